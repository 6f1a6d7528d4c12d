"""The check that the autoscaler's run rests on: it sees a node that is removed under a renderer."""

from jobs.events import Event
from tests.autoscaler.removals import NodeNote, Stay, claims_of, removed_under

NODE = "f" * 56


def event(kind: str, at: int, unit: str = "0", worker: str = "") -> Event:
    fields = {"worker": worker} if worker else {}
    return Event(f"{at}-0", kind, "job", unit, at, 8, 0, 0, 0, fields)


def wrong(removed_at: int, last_seen: int, *events: Event) -> list[str]:
    notes = [NodeNote("made", NODE, 0), NodeNote("ended", NODE, removed_at)]
    return removed_under(notes, {"a": Stay(NODE, last_seen)}, claims_of(events))


def test_a_node_whose_renderer_had_delivered_and_left() -> None:
    assert not wrong(300, 250, event("claimed", 100, worker="a"), event("done", 200))


def test_a_node_whose_renderer_was_still_there() -> None:
    assert wrong(300, 301, event("claimed", 100, worker="a"), event("done", 200))


def test_a_node_whose_renderer_held_a_unit() -> None:
    assert wrong(150, 120, event("claimed", 100, worker="a"), event("done", 200))
    assert wrong(150, 120, event("claimed", 100, worker="a"))


def test_a_unit_that_was_given_back_or_is_anothers_by_then() -> None:
    claimed = event("claimed", 100, worker="a")
    assert not wrong(150, 120, claimed, event("release", 110))
    assert not wrong(150, 120, claimed, event("claimed", 140, worker="b"))
    # Another unit's end is not this one's.
    assert wrong(150, 120, claimed, event("done", 110, unit="1"))
