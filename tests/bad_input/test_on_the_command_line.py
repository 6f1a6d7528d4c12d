"""Bad input on the command line: one line that says what to do, an exit status, no trace."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fewstep.cli import app
from tests.fewstep.conftest import home
from tests.s3_servers import ACCESS, SECRET
from tests.servers import free_port

__all__ = ["home"]

AWAY = f"http://127.0.0.1:{free_port()}"
JOB = "a" * 26
KEYS = {"FEWSTEP_S3_ACCESS_KEY": ACCESS, "FEWSTEP_S3_SECRET_KEY": SECRET}
STORE = "FEWSTEP_S3_ENDPOINT"


@dataclass(frozen=True)
class Command:
    """A command in an environment: `{folder}` stands for a folder with prompts.txt in it."""

    title: str
    arguments: str
    status: int
    says: str
    variables: dict[str, str] = field(default_factory=dict)


RENDER = "render {folder}/prompts.txt --out {folder}/out"
COMMANDS = [
    Command("file missing", "render {folder}/no.txt --out {folder}/out", 2, "no.txt|No such file"),
    Command(
        "file is a folder",
        "render {folder}/dir.txt --out {folder}/out",
        2,
        "dir.txt|no prompt file",
    ),
    Command("parquet", "render {folder}/a.parquet --out {folder}/out", 2, "a.parquet|be read"),
    Command("no images", f"{RENDER} --max-images 0", 2, "--max-images|greater than or equal to 1"),
    Command("no time", f"{RENDER} --max-device-seconds -1", 2, "--max-device-seconds|than 0"),
    Command(
        "a deadline that is over",
        f"{RENDER} --deadline 2020-01-01T00:00Z",
        2,
        "deadline: 2020-01-01 00:00 UTC is over",
        {STORE: AWAY, **KEYS},
    ),
    Command("no time zone", f"{RENDER} --deadline 2030-01-01", 2, "--deadline|2026-12-01T18:00Z"),
    Command("limit below 0", f"budget {JOB} --max-images -1", 2, "'-1' will not do|equal to 1"),
    Command("no prompts", "submit {folder}/none.csv", 2, "none.csv: there is no prompt in it"),
    Command("lines of CR", "submit {folder}/cr.csv", 2, "cr.csv|a line ends in CR alone"),
    Command("option unknown", "render {folder}/prompts.txt --stpes 4", 2, "stpes"),
    Command("no such command", "rendr", 2, "rendr"),
    Command("store's address", RENDER, 3, "nonsense|http", {STORE: "nonsense", **KEYS}),
    Command("store away", RENDER, 3, f"{AWAY}|FEWSTEP_S3_ENDPOINT", {STORE: AWAY, **KEYS}),
    Command("no keys", RENDER, 3, "keys|FEWSTEP_S3_ACCESS_KEY", {STORE: "moto"}),
    Command("API away", f"show {JOB}", 3, f"{AWAY}|fewstep up", {"FEWSTEP_API_URL": AWAY}),
    Command("API is no address", f"show {JOB}", 3, "FEWSTEP_API_URL", {"FEWSTEP_API_URL": "a b"}),
    Command("Redis's address", "restore", 3, "redis_url", {"FEWSTEP_REDIS_URL": "nonsense"}),
    Command("prefix upwards", "restore", 3, "S3_PREFIX", {"FEWSTEP_S3_PREFIX": "../../x"}),
    Command("prefix from the root", "restore", 3, "S3_PREFIX", {"FEWSTEP_S3_PREFIX": "/x"}),
    Command("prefix encoded", "restore", 3, "S3_PREFIX", {"FEWSTEP_S3_PREFIX": "%2e%2e"}),
    Command("prefix with a backslash", "restore", 3, "S3_PREFIX", {"FEWSTEP_S3_PREFIX": "a\\b"}),
    Command("prefix with a line", "restore", 3, "S3_PREFIX", {"FEWSTEP_S3_PREFIX": "a\n"}),
    Command("long prefix", "restore", 3, "S3_PREFIX", {"FEWSTEP_S3_PREFIX": "a" * 1025}),
    Command("bucket upwards", "restore", 3, "S3_BUCKET", {"FEWSTEP_S3_BUCKET": "../x"}),
    Command("tenant with braces", "restore", 3, "TENANT", {"FEWSTEP_TENANT": "{a}"}),
    Command("tenant with a bar", "restore", 3, "TENANT", {"FEWSTEP_TENANT": "a|b"}),
    Command("tenant with a line", "restore", 3, "TENANT", {"FEWSTEP_TENANT": "a\n"}),
    Command("lease of no time", "restore", 3, "LEASE_MS", {"FEWSTEP_LEASE_MS": "0"}),
    Command(
        "catalog missing", RENDER, 3, "no.toml|FEWSTEP_CATALOG", {"FEWSTEP_CATALOG": "no.toml"}
    ),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.title)
def test_bad_input(
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    home: Path,
) -> None:
    folder = tmp_path / "given"
    (folder / "dir.txt").mkdir(parents=True)
    (folder / "prompts.txt").write_text("a red circle\n", "utf-8")
    (folder / "a.parquet").write_bytes(b"PAR1")
    (folder / "none.csv").write_text("prompt\n", "utf-8")
    (folder / "cr.csv").write_bytes(b"prompt\ra\r")
    before = files_in(tmp_path)
    # Keys must come from our variables here, not from this machine's profile or its cloud.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in [name for name in os.environ if name.startswith("AWS_") and "KEY" in name]:
        monkeypatch.delenv(name)
    for name, value in command.variables.items():
        address = request.getfixturevalue("moto_url") if value == "moto" else value
        monkeypatch.setenv(name, address)

    arguments = [part.format(folder=folder) for part in command.arguments.split()]
    done = CliRunner().invoke(app, arguments)

    assert done.exit_code == command.status, done.output
    assert done.stdout == ""
    assert "Traceback" not in done.output
    for words in command.says.split("|"):
        assert words in done.stderr
    assert SECRET not in done.output
    # The home's folder and its lock are made before its settings are tried.
    assert files_in(tmp_path) - {"home", "home/stack.lock"} == before


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
