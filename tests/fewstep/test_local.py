"""The local stack: up, healed, down, and never anything left behind."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from fewstep.cli import app
from fewstep.doctor_ray import ray_found
from fewstep.local import Stack
from fewstep.processes import is_alive, mark_of, of_stack
from fewstep.stack_state import STATE_FILE, load_state
from jobs.client import Client
from jobs.errors import BadConfiguration, NoCapacity, NotFound
from jobs.settings import Settings
from jobs.store import Store
from tests.servers import wait_until

SERVERS = ("redis", "s3", "api")


def start(home: Path, *parts: str) -> Stack:
    """A stack of these parts."""
    return Stack.start(home, 1, print, private=True, parts=parts)


def test_up_status_kill_heal_down(home: Path) -> None:
    stack = start(home, *SERVERS)
    assert stat.S_IMODE((home / STATE_FILE).stat().st_mode) == 0o600
    with Client(stack.settings.api_url) as client:
        assert client.health()["status"] == "ok"
    Store.connect(stack.settings).close()
    before = dict(stack.state.processes)

    os.kill(before["redis"].pid, signal.SIGKILL)
    wait_until(lambda: Stack.attach(home).state.dead == ("redis",), "the death of Redis")
    seen = CliRunner().invoke(app, ["status", "--json"])
    assert seen.exit_code == 1
    alive = {part["name"]: part["alive"] for part in json.loads(seen.stdout)["components"]}
    assert (alive["redis"], alive["s3"], alive["api"]) == (False, True, True)

    healed = start(home, *SERVERS)
    after = healed.state.processes
    assert healed.state.redis_url == stack.state.redis_url
    assert (after["s3"], after["api"]) == (before["s3"], before["api"])
    assert after["redis"] != before["redis"]
    with Client(healed.settings.api_url) as client:
        assert client.health()["status"] == "ok"

    down = CliRunner().invoke(app, ["down", "--json"])
    assert json.loads(down.stdout) == {"stopped": sorted(SERVERS)}
    assert not of_stack(stack.state.id)
    assert not any(is_alive(mark) for mark in (*before.values(), *after.values()))
    assert load_state(home) is None
    with pytest.raises(NotFound, match="fewstep up"):
        Stack.attach(home)


def test_a_second_up_changes_nothing_and_data_outlive_a_down(home: Path) -> None:
    first = start(home, "redis", "s3")
    Store.connect(first.settings).put("kept", b"data")
    again = start(home, "redis", "s3")
    assert again.state == first.state
    again.stop()
    again.stop()
    with start(home, "redis", "s3") as later:
        assert later.state.redis_url != first.state.redis_url
        assert Store.connect(later.settings).get("kept") == b"data"


def test_secrets_are_in_no_command_line_and_no_log(home: Path) -> None:
    with start(home, *SERVERS) as stack:
        state = stack.state
        password = state.redis_url.split("@")[0].rpartition(":")[2]
        pids = [mark.pid for mark in state.processes.values()]
        lines = [" ".join(psutil.Process(pid).cmdline()) for pid in pids]
        logs = [path.read_text() for path in (home / "logs").glob("*.log")]
    assert len(lines) == len(SERVERS)
    assert state.s3_secret_key
    for secret in (password, state.s3_secret_key):
        assert not any(secret in text for text in (*lines, *logs))


def test_what_does_not_start_is_told_with_its_last_words(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWSTEP_CATALOG", "/no/such/catalog.toml")
    with pytest.raises(BadConfiguration, match=r"the API ended .*catalog\.toml"):
        start(home, *SERVERS)
    assert load_state(home) is None


def test_too_little_memory_is_told_before_anything_starts(home: Path) -> None:
    with pytest.raises(NoCapacity, match="--renderers"):
        Stack.start(home, 1000, print, parts=("redis",))
    assert load_state(home) is None


PRIVATE = """
import sys, signal
from fewstep.cli import _leave
from fewstep.private_stack import private_stack
signal.signal(signal.SIGTERM, _leave)
# Who runs tests in the background has SIGINT ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
with private_stack(1, lambda line: None, ("redis", "s3")) as stack:
    pids = [mark.pid for mark in stack.state.processes.values()]
    print(stack.home, *pids, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_private_stack_ends_with_its_command(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PRIVATE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        folder, *pids = process.stdout.readline().split()
        marks = [mark_of(int(pid)) for pid in pids]
        assert [is_alive(mark) for mark in marks] == [True, True]
        process.send_signal(number)
        process.wait(60)
        wait_until(lambda: not any(map(is_alive, marks)), "the end of the servers", 60)
        wait_until(lambda: not Path(folder).exists(), "the folder's removal", 60)


JOIN = """
import ray, sys
ray.init(address=sys.argv[1], namespace="fewstep", log_to_driver=False)
@ray.remote(num_cpus=1)
class Renderer:
    def pid(self):
        import os
        return os.getpid()
actor = Renderer.options(name="one", lifetime="detached").remote()
print(ray.get(actor.pid.remote()))
"""


@pytest.mark.ray
def test_ray_asks_for_the_token_stays_on_loopback_and_leaves_nobody(home: Path) -> None:
    with start(home, "ray") as stack:
        join = [sys.executable, "-c", JOIN, stack.state.ray_address]
        joined = subprocess.run(join, env=stack.env, capture_output=True, text=True, check=True)
        renderer = mark_of(int(joined.stdout.split()[-1]))
        assert is_alive(renderer)
        (asked,) = ray_found(Settings(ray_address=stack.state.ray_address))
        assert (asked.level, asked.name) == ("ok", "ray"), asked
        ours = of_stack(stack.state.id)
        assert {renderer.pid, stack.state.processes["ray"].pid} <= ours
        hosts = {
            connection.laddr.ip.removeprefix("::ffff:")
            for pid in ours
            for connection in psutil.Process(pid).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert hosts == {"127.0.0.1"}
        for token in ({}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}):
            stranger = {k: v for k, v in stack.env.items() if not k.startswith("RAY_AUTH")}
            with pytest.raises(subprocess.SubprocessError):
                subprocess.run(
                    join, env=stranger | token, capture_output=True, check=True, timeout=20
                )
    assert not is_alive(renderer)
    assert not of_stack(stack.state.id)
    assert not Path(stack.state.ray_folder).exists()
