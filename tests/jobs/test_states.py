"""The states of a job: every state is reachable, every end is an end, and words match the queue."""

from pathlib import Path

import pytest

from jobs.states import NEXT, TERMINAL, JobState, state_of

DOC = Path(__file__).resolve().parents[2] / "docs" / "states.md"


def test_every_state_has_its_ways() -> None:
    assert set(NEXT) == set(JobState)
    assert {state for state, ways in NEXT.items() if not ways} == TERMINAL


def test_every_state_can_be_reached() -> None:
    seen, waiting = set(), [JobState.WAITING]
    while waiting:
        state = waiting.pop()
        if state not in seen:
            seen.add(state)
            waiting += NEXT[state]
    assert seen == set(JobState)


def test_the_diagram_is_the_table() -> None:
    """`docs/states.md` draws exactly the ways that the table has."""
    drawn = set()
    for line in DOC.read_text("utf-8").splitlines():
        before, arrow, after = line.partition("-->")
        target = after.partition(":")[0].strip()
        if arrow and "[*]" not in (before.strip(), target):
            drawn.add((before.strip(), target))
    assert drawn == {(state.value, way.value) for state, ways in NEXT.items() for way in ways}


@pytest.mark.parametrize(
    ("queue", "outcome", "started", "flying", "accounted", "state"),
    [
        ("run", "", False, 0, False, "waiting"),
        ("run", "", True, 0, False, "running"),
        ("run", "", False, 1, False, "running"),
        ("run", "", True, 0, True, "finishing"),
        ("pause", "", True, 0, False, "paused"),
        ("pause", "", True, 0, True, "finishing"),
        ("cancel", "", True, 3, False, "cancelling"),
        ("stop", "", True, 2, False, "stopping"),
        ("stop", "", True, 0, True, "stopping"),
        ("fin", "", True, 0, True, "finishing"),
        ("closed", "done", True, 0, True, "done"),
        ("closed", "cancelled", True, 0, False, "cancelled"),
        ("closed", "failed", True, 0, False, "failed"),
        ("closed", "stopped", True, 0, False, "stopped"),
    ],
)
def test_the_users_word(
    queue: str, outcome: str, started: bool, flying: int, accounted: bool, state: str
) -> None:
    found = state_of(queue, outcome, started=started, in_flight=flying, accounted=accounted)
    assert found == state
