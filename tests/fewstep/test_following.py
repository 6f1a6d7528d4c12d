"""Following a job: to its end, or to where nothing can come of it; a dead part is noticed."""

from typing import Any

import pytest

from fewstep.following import follow
from jobs.errors import BadConfiguration, NoCapacity
from jobs.job import JobView
from jobs.waiting import CANNOT_START


def view(state: str, reason: str = "") -> JobView:
    return JobView(
        id="a",
        tenant="ann",
        name="",
        state=state,
        reason=reason,
        images=4,
        done=0,
        failed=0,
        shards=1,
        shards_running=0,
        priority=4,
        submitted_ms=0,
        prefix="x/",
        recipe={"model": "tiny"},
    )


class Told:
    """A client that tells these views, one after the other."""

    def __init__(self, *views: JobView) -> None:
        self._views = list(views)

    def job(self, _job_id: str) -> JobView:
        return self._views.pop(0)

    def stages(self, _job_id: str) -> dict[str, Any]:
        return {"stages": {}, "bottleneck": None}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewstep.following._POLL_S", 0.0)


def test_a_job_is_followed_to_its_end() -> None:
    checked: list[str] = []
    client = Told(view("waiting"), view("running"), view("stopped"))
    assert follow(client, "a", lambda: checked.append("x")).state == "stopped"  # type: ignore[arg-type]
    assert checked == ["x", "x"]


def test_a_renderer_that_cannot_start_ends_the_wait() -> None:
    client = Told(view("waiting"), view("waiting", f"{CANNOT_START}: no such file"))
    with pytest.raises(BadConfiguration, match="no such file"):
        follow(client, "a", lambda: None)  # type: ignore[arg-type]


def test_a_dead_part_of_the_stack_ends_the_wait() -> None:
    def dead() -> None:
        raise NoCapacity("the scheduler has ended")

    with pytest.raises(NoCapacity, match="the scheduler"):
        follow(Told(view("waiting"), view("waiting")), "a", dead)  # type: ignore[arg-type]
