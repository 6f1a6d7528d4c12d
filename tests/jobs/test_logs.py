"""Log lines: one event, its facts, one line; and the list of events in the documentation."""

import ast
import json
import logging
import re
from pathlib import Path

import pytest

from jobs.logs import OTHERS, LineFormatter, LogForm, is_event

ROOT = Path(__file__).resolve().parents[2]
FLOORS = ("jobs", "workers", "scheduler", "fewstep")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def record(pattern: str, *facts: object) -> logging.LogRecord:
    made = logging.LogRecord("workers.claims", logging.WARNING, "f", 1, pattern, facts, None)
    made.created, made.msecs = 1_700_000_000.5, 500.0
    return made


def line(form: LogForm, pattern: str, *facts: object) -> str:
    return LineFormatter(form).format(record(pattern, *facts))


def test_a_line_of_words() -> None:
    said = line("text", "lease_lost job=%s unit=%s error=%s", "j1", "17", 'a "b"\nc')
    assert said == (
        "2023-11-14T22:13:20.500Z WARNING workers.claims lease_lost job=j1 unit=17 "
        'error="a \\"b\\"\\nc"'
    )


def test_a_line_of_json() -> None:
    said = line("json", "stalled worker=%s seconds=%.0f", "w", 130.4)
    assert json.loads(said) == {
        "time": "2023-11-14T22:13:20.500Z",
        "level": "WARNING",
        "logger": "workers.claims",
        "event": "stalled",
        "worker": "w",
        "seconds": "130",
    }


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_stays_on_its_line(form: LogForm) -> None:
    made = record("commit_broke job=%s unit=%s", "j", "1")
    error = ValueError("x\ny")
    made.exc_info = (ValueError, error, None)
    said = LineFormatter(form).format(made)
    assert "\n" not in said
    assert "ValueError: x\\ny" in said


def test_what_libraries_say_is_one_event_too() -> None:
    said = json.loads(line("json", "Retrying in %s seconds", 3))
    assert (said["event"], said["text"]) == (OTHERS, "Retrying in 3 seconds")


def calls() -> list[tuple[str, str]]:
    """Each call of a log in the code: where it is, and its pattern."""
    found = []
    for file in sorted(one for floor in FLOORS for one in (ROOT / floor).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                ours = getattr(node.func.value, "id", "") == "log" and node.func.attr in LEVELS
                if ours:
                    first = node.args[0]
                    text = first.value if isinstance(first, ast.Constant) else ast.unparse(first)
                    found.append((f"{file.relative_to(ROOT)}:{node.lineno}", str(text)))
    return found


def test_every_line_is_an_event_with_facts_and_names_its_job() -> None:
    assert len(calls()) > 50
    for place, pattern in calls():
        assert is_event(pattern), f"{place}: {pattern!r} is no event with key=%s facts"
        keys = re.findall(r" (\w+)=", pattern)
        assert "unit" not in keys or "job" in keys, f"{place}: a unit without its job"


def test_the_documentation_lists_every_event() -> None:
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    section = text.partition("## Log lines")[2].partition("\n## ")[0]
    rows = [row for row in section.splitlines() if row.startswith("| ")]
    listed = set(re.findall(r"`([a-z_]+)`", "".join(rows)))
    events = {pattern.partition(" ")[0] for _, pattern in calls()} | {OTHERS}
    assert events == listed
