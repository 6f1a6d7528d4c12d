"""The command line: what it refuses and how it says so, before anything is started."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import fewstep
from fewstep.cli import app
from tests.s3_servers import ACCESS, SECRET
from tests.servers import RedisServer, free_port

PROMPTS = b"a red circle\na blue square\n"


def run(*arguments: str, stdin: bytes = b"") -> Result:
    """The command in this process."""
    return CliRunner().invoke(app, list(arguments), input=stdin)


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    """A good prompt file."""
    path = tmp_path / "prompts.txt"
    path.write_bytes(PROMPTS)
    return str(path)


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the test if a server would be started."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("servers must not be started for this")

    monkeypatch.setattr("fewstep.private_stack.private_stack", refuse)


def test_help_is_light_and_documents_the_exit_status() -> None:
    heavy = "{'ray', 'torch', 'diffusers', 'transformers', 'pyarrow'}"
    code = f"import sys, fewstep.cli; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    shown = run("--help")
    assert shown.exit_code == 0
    assert "Exit status" in shown.stdout
    assert all(name in shown.stdout for name in ("render", "submit", "up", "down", "doctor"))


def test_every_public_name_is_there() -> None:
    for name in fewstep.__all__:
        assert getattr(fewstep, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        fewstep.nonsense  # noqa: B018


FILES = [
    ("empty.txt", b"", "empty.txt", "no prompt"),
    ("blank.txt", b"a\n\nb\n", "line 2", "blank"),
    ("latin.txt", b"a\nc\xe9e\n", "line 2", "UTF-8"),
    ("broken.jsonl", b'{"prompt": "a"}\n{"prompt": \n', "line 2", "not JSON"),
    ("field.jsonl", b'{"promt": "a"}\n', "line 1", '"prompt" is missing'),
    ("seed.jsonl", b'{"prompt": "a", "seed": 4294967296}\n', "line 1", "seed"),
    ("long.txt", b"a" * 8001, "line 1", "8000"),
    ("table.xls", b"prompt\na\n", "table.xls", ".jsonl"),
]


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize(("name", "data", "where", "what"), FILES, ids=[one[0] for one in FILES])
def test_bad_prompts_are_named_by_line(
    tmp_path: Path, name: str, data: bytes, where: str, what: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    refused = run("render", str(path), "--out", str(tmp_path / "out"))
    assert_refused(refused, 2, where, what)
    assert not (tmp_path / "out").exists()


OPTIONS = [
    ("--model no-such", "no-such", "tiny"),
    ("--accelerator no-such", "no-such", "lcm-tiny"),
    ("--accelerator lcm-sdxl", "lcm-sdxl", "sdxl"),
    ("--style no-such=1", "no-such", "outline"),
    ("--style outline=much", "outline=much", "NAME=WEIGHT"),
    ("--style outline=9", "weight", "less than or equal to 4"),
    ("--steps 9", "steps", "1 to 8"),
    ("--steps 0", "steps", "1 to 8"),
    ("--guidance 2.5", "guidance", "0 to 2"),
    ("--guidance nan", "guidance", "finite"),
    ("--width 65", "width", "nearest is 64"),
    ("--height 4096", "height", "nearest is 128"),
    ("--repeats 0", "repeats", "greater than or equal to 1"),
    ("--seed -1", "seed", "greater than or equal to 0"),
    ("--format gif", "format", "'png'"),
    ("--quality 101", "quality", "100"),
    ("--shard-images 0", "shard-images", "1"),
    ("--priority 10", "priority", "9"),
    ("--renderers 0", "renderers", "1 to"),
    ("--max-failed-rows 1.5", "max-failed-rows", "a share above 0 and below 1"),
    ("--max-failed-rows some", "max-failed-rows", "a whole number"),
]


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize(("options", "where", "remedy"), OPTIONS, ids=[one[0] for one in OPTIONS])
def test_bad_options_are_refused_with_a_remedy(
    tmp_path: Path, prompts: str, options: str, where: str, remedy: str
) -> None:
    refused = run("render", prompts, "--out", str(tmp_path / "out"), *options.split())
    assert_refused(refused, 2, where, remedy)


@pytest.mark.usefixtures("nothing_starts")
def test_a_folder_in_use_is_refused(tmp_path: Path, prompts: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    assert_refused(run("render", prompts, "--out", str(tmp_path / "file")), 2, "not a folder")
    assert_refused(run("render", prompts, "--out", str(tmp_path / "full")), 2, "not empty")
    missing = run("render", str(tmp_path / "none.txt"), "--out", str(tmp_path / "out"))
    assert_refused(missing, 2, "none.txt", "No such file")


@pytest.mark.usefixtures("nothing_starts")
def test_standard_input_is_read(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert_refused(run("render", "-", "--out", out), 2, "stdin", "no prompt")
    assert_refused(run("render", "-", "--out", out, stdin=b'{"prompt": 1}'), 2, "stdin.jsonl")


@pytest.mark.parametrize(
    "command",
    [
        "submit {prompts}",
        "jobs",
        "show a",
        "watch a",
        "cancel a",
        "pause a",
        "resume a",
        "failed a",
        "retry-failed a",
        "cancel a --delete",
        "priority a 9",
    ],
)
def test_an_api_that_is_away_is_named(
    monkeypatch: pytest.MonkeyPatch, prompts: str, command: str
) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("FEWSTEP_API_URL", address)
    arguments = command.format(prompts=prompts).split()
    assert_refused(run(*arguments), 3, address, "fewstep up")


def test_redis_that_is_away_or_refuses_is_named(
    monkeypatch: pytest.MonkeyPatch, redis_server: RedisServer, tmp_path: Path, prompts: str
) -> None:
    render = ("render", prompts, "--out", str(tmp_path / "out"))
    port = free_port()
    monkeypatch.setenv("FEWSTEP_REDIS_URL", f"redis://:hidden@127.0.0.1:{port}/0")
    away = run(*render)
    assert_refused(away, 3, f"127.0.0.1:{port}", "FEWSTEP_REDIS_URL")
    assert "hidden" not in away.stderr
    monkeypatch.setenv("FEWSTEP_REDIS_URL", "nonsense")
    assert_refused(run(*render), 3, "redis_url")
    assert not (tmp_path / "out").exists()


def test_a_store_that_is_away_or_refuses_is_named(
    monkeypatch: pytest.MonkeyPatch, rclone_url: str, tmp_path: Path, prompts: str
) -> None:
    render = ("render", prompts, "--out", str(tmp_path / "out"))
    monkeypatch.setenv("FEWSTEP_S3_ACCESS_KEY", ACCESS)
    monkeypatch.setenv("FEWSTEP_S3_SECRET_KEY", SECRET)
    away = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("FEWSTEP_S3_ENDPOINT", away)
    assert_refused(run(*render), 3, away, "FEWSTEP_S3_ENDPOINT")
    monkeypatch.setenv("FEWSTEP_S3_ENDPOINT", rclone_url)
    monkeypatch.setenv("FEWSTEP_S3_BUCKET", "no-such-bucket")
    assert_refused(run(*render), 3, rclone_url, "no-such-bucket")
    monkeypatch.setenv("FEWSTEP_S3_SECRET_KEY", "wrongwrongwrongwrong")
    wrong = run(*render)
    assert_refused(wrong, 3, rclone_url, "FEWSTEP_S3_SECRET_KEY")
    assert "wrongwrong" not in wrong.stderr


def test_a_setting_that_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSTEP_LEASE_MS", "soon")
    assert_refused(run("up"), 3, "FEWSTEP_LEASE_MS")


def test_without_a_stack_status_fails_and_down_does_not(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Somebody's own API may well be at the address that is looked at by default.
    monkeypatch.setenv("FEWSTEP_API_URL", f"http://127.0.0.1:{free_port()}")
    status = run("status", "--json")
    assert status.exit_code == 1
    assert json.loads(status.stdout)["components"] == []
    down = run("down", "--json")
    assert down.exit_code == 0
    assert json.loads(down.stdout) == {"stopped": []}
    assert not home.exists()


def test_the_doctor_names_every_fault_and_its_remedy() -> None:
    seen = run("doctor", "--json")
    assert seen.exit_code == 1
    checks = {check["name"]: check for check in json.loads(seen.stdout)["checks"]}
    assert checks["python"]["level"] == "ok"
    assert checks["redis"]["level"] == "fail"
    assert "FEWSTEP_REDIS_URL" in checks["redis"]["remedy"]
    assert checks["model tiny"]["level"] == "ok"


def assert_refused(result: Result, status: int, *words: str) -> None:
    """One line on standard error with these words, nothing on standard output, no traceback."""
    assert result.exit_code == status, result.stderr
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.startswith("fewstep:")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in lines[0]
