"""What shells and scripts meet: completion, exit status, and the bar that `watch` draws."""

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fewstep.cli import EPILOG, app
from fewstep.progress import job_bar, split_words
from fewstep.report import show_pairs, show_table
from jobs import errors
from jobs.errors import FewstepError, Unreachable
from jobs.job import JobView

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "cli.md").read_text("utf-8")


def fewstep(**variables: str) -> str:
    """Standard output of the bare command with these variables."""
    done = subprocess.run(
        [sys.executable, "-m", "fewstep"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    return done.stdout


# ---- completion ----


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(fewstep(_FEWSTEP_COMPLETE=f"source_{shell}"), "utf-8")
    assert f"_FEWSTEP_COMPLETE=complete_{shell}" in script.read_text("utf-8")
    assert f"_FEWSTEP_COMPLETE=source_{shell} fewstep" in PAGE
    if shutil.which(shell):
        subprocess.run([shell, "-n", str(script)], check=True, timeout=20)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("re", ["render", "repro", "resume", "restore", "results", "retry-failed"]),
        ("webhooks ", ["add", "list", "delete", "deliveries"]),
        ("submit --dry", ["--dry-run"]),
        ("jobs --state pau", ["paused"]),
        ("webhooks deliveries --state d", ["delivered", "dead"]),
        ("show --j", ["--json"]),
    ],
)
def test_what_is_offered(typed: str, offered: list[str]) -> None:
    words = f"fewstep {typed}"
    fish = fewstep(
        _FEWSTEP_COMPLETE="complete_fish",
        _TYPER_COMPLETE_FISH_ACTION="get-args",
        _TYPER_COMPLETE_ARGS=words,
    )
    bash = fewstep(
        _FEWSTEP_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(words.count(" "))
    )
    zsh = fewstep(_FEWSTEP_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS=words)
    assert {line.split("\t")[0] for line in fish.splitlines()} == set(offered)
    assert set(bash.split()) == set(offered)
    assert all(f'"{one}"' in zsh for one in offered)


def test_completing_is_light() -> None:
    """A shell asks with every press of the key."""
    heavy = "{'ray', 'torch', 'diffusers', 'pyarrow'}"
    code = f"import sys, fewstep.cli; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# ---- exit status ----


def statuses(text: str) -> set[int]:
    """The numbers of the page's table, or of the help's last lines."""
    rows = re.findall(r"^\| ([\d, ]+) \|", text, flags=re.MULTILINE)
    return {int(number) for row in rows for number in row.split(",")}


ERRORS = [
    one
    for one in vars(errors).values()
    if isinstance(one, type) and issubclass(one, FewstepError) and one is not FewstepError
]


def test_every_status_is_documented() -> None:
    listed = statuses(PAGE[PAGE.index("## Exit status") :])
    assert listed == {0, 1, 2, 3, 4, 130, 143}
    assert {one.exit_code for one in ERRORS} <= listed
    assert all(str(number) in EPILOG for number in listed)


@pytest.mark.parametrize("kind", ERRORS, ids=lambda one: one.__name__)
def test_an_error_ends_with_its_status(
    kind: type[FewstepError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise kind("what was wrong", where="there", remedy="mend it")

    monkeypatch.setattr("fewstep.cli_jobs.client_here", fail)
    done = CliRunner().invoke(app, ["show", "a", "--json"])
    assert (done.exit_code, done.stdout) == (kind.exit_code, "")
    assert "what was wrong" in done.stderr
    assert "mend it" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["--version"], 0), (["show", "--help"], 0), (["show"], 2), (["nonsense"], 2), (["-x"], 2)],
)
def test_bad_usage_is_two(arguments: list[str], status: int) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == status


# ---- the bar ----

SPLIT = {
    "stages": {
        "queue_wait": {"per": "unit", "sum_ms": 900.0},
        "text_encoding": {"per": "image", "sum_ms": 1.0},
        "denoising": {"per": "image", "sum_ms": 600.0},
        "decode": {"per": "image", "sum_ms": 399.0},
    },
    "bottleneck": {"stage": "device"},
}


def view(done: int, **fields: Any) -> JobView:
    known = {
        "id": "j",
        "tenant": "t",
        "name": "",
        "state": "running",
        "reason": "",
        "images": 100,
        "done": done,
        "failed": 0,
        "shards": 1,
        "shards_running": 1,
        "priority": 4,
        "submitted_ms": 0,
        "started_ms": 0,
        "finished_ms": None,
        "images_per_second": 12.34,
        "eta_s": 3_725.0,
        "prefix": "",
        "recipe": {},
    }
    return JobView.model_validate(known | fields)


def drawn(show: Callable[[Callable[[JobView], None]], None], *, terminal: bool) -> str:
    screen = Console(file=io.StringIO(), force_terminal=terminal, width=160)
    with job_bar(100, lambda: SPLIT, screen) as bar:
        show(bar)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_the_bar_has_rate_time_left_and_stages() -> None:
    text = drawn(lambda bar: bar(view(40)), terminal=True)
    for words in ("40/100", "12.3 images/s", "1:02:05 left", "denoising 60% · decode 40%"):
        assert words in text
    assert "device-bound" in text
    assert "text encoding" not in text, "less than a hundredth is not told"


def test_stages_that_nobody_tells_do_not_end_the_watch() -> None:
    """They are read from the store, which may be away while the job is only waiting for it."""

    def away() -> NoReturn:
        raise Unreachable("the store does not answer (made up)")

    screen = Console(file=io.StringIO(), force_terminal=True, width=160)
    with job_bar(100, away, screen) as bar:
        bar(view(40))
        bar(view(41))
    assert isinstance(screen.file, io.StringIO)
    assert "41/100" in screen.file.getvalue()


def test_markup_in_a_reason_is_only_text() -> None:
    waiting = view(0, state="waiting", reason="[red]behind[/] your own jobs")
    assert "[red]behind[/]" in drawn(lambda bar: bar(waiting), terminal=True)


def test_without_a_terminal_a_line_for_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    def show(bar: Callable[[JobView], None]) -> None:
        for done in (0, 1, 5, 10, 11, 19, 20):
            bar(view(done))

    drawn(show, terminal=False)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" images")[0] for line in lines] == [
        "running: 0 of 100",
        "running: 10 of 100",
        "running: 20 of 100",
    ]
    assert "12.3 images/s, 1:02:05 left" in lines[1]


def test_nothing_is_said_of_stages_before_there_are_any() -> None:
    assert split_words({"stages": {}, "bottleneck": None}) == ""


def test_a_prompt_does_not_move_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b[2J\x1b]0;title\x07[red]a\u202e"
    show_table(("prompt",), [[evil]])
    show_pairs(evil, {"prompt": evil})
    seen = capsys.readouterr().out
    assert "[2J" in seen
    assert "[red]a" in seen
    assert not {"\x1b", "\x07", "\u202e"} & set(seen)
