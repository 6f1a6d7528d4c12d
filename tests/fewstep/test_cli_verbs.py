"""Every verb of the API has a command, and every command says what it found as one JSON object."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from typer.testing import CliRunner

from fewstep.cli import app
from tests.api_renderer import finish_dataset, render_shards
from tests.api_servers import RunningApi, serving

#: Routes that are no verbs of the command line's, and who else they are for.
FOR_OTHERS = {
    "/healthz": "load balancers",
    "/metrics": "Prometheus",
    "/v1/files": "OpenAI's client",
    "/v1/batches": "OpenAI's client",
    "/v1/images": "OpenAI's client",
}
#: Commands that start or repair a stack, and are run by other tests.
ELSEWHERE = {
    *("compare", "distill", "export", "preview", "render", "up", "down", "status", "doctor"),
    *("restore", "sweep"),
}


def leaves(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command by its words, groups taken apart."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for word, one in inner.items():
        yield from leaves(one, f"{name} {word}".strip())


COMMANDS = dict(leaves(typer.main.get_command(app)))


def said(*arguments: str) -> dict[str, Any]:
    """What a command says with `--json`: one object, and nothing else."""
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, f"{arguments}: {done.output}"
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def counted(http: httpx.Client) -> set[tuple[str, str]]:
    """Method and route of every request that the API has answered well."""
    found = set()
    for line in http.get("/metrics").text.splitlines():
        if line.startswith("fewstep_http_requests_total{"):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
            if labels["status"].startswith("2"):
                found.add((labels["method"], labels["route"]))
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_speaks_json(name: str) -> None:
    options = {text for one in COMMANDS[name].params for text in one.opts}
    assert "--json" in options
    assert COMMANDS[name].help


def test_every_verb_of_the_api_has_a_command(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\nb\nc\n", "utf-8")
    settings = api.settings.model_copy(update={"webhooks": "https"})
    with serving(settings) as url, httpx.Client(base_url=url, trust_env=False) as http:
        monkeypatch.setenv("FEWSTEP_API_URL", url)
        monkeypatch.setattr("jobs.api.routes_webhooks.checked_url", lambda url, _: url)
        ran = run_them(api, prompts, tmp_path)
        served = {
            (method.upper(), path)
            for path, operations in http.get("/openapi.json").json()["paths"].items()
            for method in operations
            if not any(path.startswith(other) for other in FOR_OTHERS)
        }
        missing = served - counted(http)

    assert not missing, "no command reaches these"
    assert len(served) >= 20
    owners = {name for name in COMMANDS if name.split()[0] in ("keys", "tenants")}
    assert COMMANDS.keys() - owners - ELSEWHERE == ran


def run_them(api: RunningApi, prompts: Path, folder: Path) -> set[str]:
    """Run every command that talks to the API; their names."""
    assert said("submit", str(prompts), "--dry-run")["images"] == 3
    job = said("submit", str(prompts), "--shard-images", "1", "--name", "verbs")["id"]
    found = said("jobs", "--state", "waiting", "--model", "tiny", "--name", "verbs")
    assert [one["id"] for one in found["jobs"]] == [job]
    assert said("pause", job)["reason"] == "paused"
    assert said("resume", job)["state"] == "waiting"
    assert said("priority", job, "7")["priority"] == 7
    limited = said("budget", job, "--max-device-seconds", "3600", "--deadline", "none")
    assert limited["budget"]["max_device_seconds"] == 3600
    assert said("cluster")["backlog"][0]["images_waiting"] == 3
    render_shards(api, job, failed=[1])
    assert said("failed", job)["failed"][0]["image"] == 1
    assert said("stages", job)["images"] == 3
    assert said("coverage", job)["errors"] == {"not a number": 1}
    assert [one["failed"] for one in said("shards", job)["shards"]] == [0, 1, 0]
    sheet = folder / "sheet.jpg"
    said("sheet", job, "--shard", "2", "--out", str(sheet))
    assert sheet.read_bytes()[:2] == b"\xff\xd8"
    finish_dataset(api, job)
    assert said("show", job)["state"] == "done"
    assert [one["image"] for one in said("items", job, "--first", "1")["items"]] == [1, 2]
    picture = folder / "one.png"
    assert said("picture", job, "0", "--out", str(picture))["bytes"] == picture.stat().st_size
    # The API's pictures are made up: what is rendered here is far from them.
    assert said("repro", f"{job}/000000000", "--tolerance", "255")["verdict"] == "close"
    assert said("results", job)["complete"] is True
    assert said("timing", job)["images"] == 3
    out = str(folder / "out")
    first = said("fetch", job, "--out", out)
    assert (first["kept"], first["files"] > 5) == (0, True)
    assert said("fetch", job, "--out", out)["kept"] == first["files"]
    assert said("retry-failed", job)["id"] == f"{job}-r1"
    more = said("submit", str(prompts), "--priority", "8")["id"]
    render_shards(api, more, shards=1)
    finish_dataset(api, more)
    seen = said("drop", more, "--where", "image = 1", "--dry-run")
    assert (seen["dropped"], seen["examples"][0]["prompt"]) == (1, "b")
    assert said("drop", more, "--where", "image = 1")["dropped"] == 1
    assert said("drop", more, "--undo")["dropped"] == 1
    assert said("extend", more, "--repeats", "+4")["images"] == 12
    assert said("cancel", f"{more}-r3", "--delete")["state"] in ("cancelling", "cancelled")
    finish_dataset(api, f"{more}-r3")
    table = folder / "more.csv"
    table.write_text("caption,steps\n{a|b} star,2\n,3\n", "utf-8")
    added = ("--rows", str(table), "--column", "prompt=caption", "--bad-rows", "quarantine")
    wish = (*added, "--expand", "combinatorial", "--drop", "choice_1", "--drop", "combination")
    grown = said("extend", more, *wish)
    assert (grown["images"], "1 rows cannot be rendered" in grown["warnings"][0]) == (2, True)
    assert said("cancel", grown["id"], "--delete")["state"] in ("cancelling", "cancelled")
    gone = said("submit", str(prompts), "--key", "gone")["id"]
    assert said("cancel", gone, "--delete")["state"] in ("cancelling", "cancelled")
    seen = said("submit", str(prompts), "--priority", "9")["id"]
    render_shards(api, seen, shards=1)
    finish_dataset(api, seen)
    assert said("watch", seen)["state"] == "done"
    assert said("health")["status"] == "ok"
    for kind in ("models", "accelerators", "styles", "filters"):
        assert said(kind, "--served") == said(kind)
    hook = said("webhooks", "add", "https://example.org/hook", "--event", "job.failed")
    assert hook["secret"]
    assert said("webhooks", "list")["webhooks"][0]["id"] == hook["id"]
    assert said("webhooks", "deliveries", "--state", "dead") == {"deliveries": []}
    assert said("webhooks", "delete", hook["id"])["id"] == hook["id"]
    hooks = ("add", "list", "deliveries", "delete")
    words = "submit jobs pause resume priority budget cluster failed stages show items picture "
    words += (
        "coverage shards sheet results repro extend drop timing fetch retry-failed cancel watch "
    )
    words += "health models accelerators styles filters"
    return {*words.split(), *(f"webhooks {one}" for one in hooks)}
