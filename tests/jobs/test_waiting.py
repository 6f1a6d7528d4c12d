"""Every job that waits or failed says why."""

from dataclasses import replace
from typing import Any

import pytest
import redis

from jobs.queue_placement import KEEP_MS, Placement
from jobs.queue_values import QueueJob, RendererRecord
from jobs.shard_queue import ShardQueue
from jobs.states import TERMINAL, JobState
from jobs.waiting import NO_SCHEDULER, Scene, reason_of, scene_of
from tests.jobs.conftest import Claim, Submit

MINE, OTHER = "engine", "another"


@pytest.fixture
def record(queue: ShardQueue, submit: Submit) -> QueueJob:
    """A job that has just been submitted."""
    submit()
    job = queue.job("job")
    assert job is not None
    return job


def renderers(*states: str, engine: str = MINE, error: str = "") -> list[RendererRecord]:
    return [
        RendererRecord(f"w{n}", 0, {"engine_key": engine, "state": state, "error": error})
        for n, state in enumerate(states)
    ]


def placed(slots: int, *, held: int = 0, wanted: int | None = None) -> Placement:
    """What the scheduler says of our engine (`wanted` None: it has not seen it yet)."""
    return Placement(slots, {MINE: held}, {} if wanted is None else {MINE: wanted})


def behind(engine: str, *tenants: str) -> dict[str, frozenset[str]]:
    return {engine: frozenset(tenants)}


READY = renderers("rendering")


@pytest.mark.parametrize(
    ("scene", "says"),
    [
        (Scene(), NO_SCHEDULER),
        (Scene(scheduler_age_ms=31_000, placement=placed(2, wanted=1)), NO_SCHEDULER),
        # Scaling up: from the moment the scheduler sees it until a renderer reports.
        (Scene(scheduler_age_ms=1), "scaling up: the scheduler is about to place it"),
        (Scene(scheduler_age_ms=1, placement=placed(2)), "scaling up: the scheduler is about"),
        (Scene(scheduler_age_ms=1, placement=placed(2, wanted=1)), "scaling up: room for its"),
        (
            Scene(renderers("idle", engine=OTHER), 1, placed(2, held=1, wanted=1)),
            "scaling up: its renderer is being started",
        ),
        # No renderer fits: no device at all, or all of them taken.
        (Scene((), 1, placed(0, wanted=0)), "no renderer fits: the cluster has no device for one"),
        (Scene((), 1, placed(2, wanted=0)), "no renderer fits: other engines have all 2 places"),
        (
            Scene((), 1, placed(1, wanted=0), behind(OTHER, "ann")),
            "no renderer fits: other engines have all 1 places, behind your own jobs",
        ),
        (
            Scene((), 1, placed(1, wanted=0), behind(OTHER, "bob")),
            "no renderer fits: other engines have all 1 places, behind others' jobs",
        ),
        (
            Scene((), 1, Placement(1, {}, {MINE: 1}, [MINE])),
            "its renderer cannot start: the scheduler cannot read its settings",
        ),
        # Loading.
        (Scene(renderers("starting"), 1), "loading weights"),
        (Scene(renderers("loading", "starting")), "loading weights"),
        (Scene(renderers("compiling", "loading"), 1), "compiling its nets"),
        # Its engine is there: who is before it?
        (Scene(READY, 1, None, behind(MINE, "ann")), "behind your own jobs"),
        (Scene(READY, 1, None, behind(MINE, "bob")), "behind others' jobs"),
        (Scene(READY, 1, None, behind(MINE, "bob", "ann")), "behind your own jobs and others'"),
        (Scene(READY, 1, None, behind(OTHER, "bob")), "its renderer takes it up next"),
        (Scene(renderers("loading", "idle"), 1), "its renderer takes it up next"),
        # Quota before all else.
        (Scene(READY, 1, None, behind(MINE, "bob"), spent=3), "your quota: 3 of your shards"),
        (Scene(renderers("waiting for the store"), 1), "its renderers cannot reach the store"),
        (Scene(renderers("broken", error="no weights"), 1), "renderer cannot start: no weights"),
        (Scene(renderers("rendering", "broken", error="no room"), 1), "cannot start: no room"),
        (Scene(renderers("broken", error="x" * 900), 1), "its renderer cannot start: xxx"),
    ],
)
def test_a_waiting_job(record: QueueJob, scene: Scene, says: str) -> None:
    for state in (JobState.WAITING, JobState.RUNNING):
        reason = reason_of(record, state, scene)
        assert reason.startswith(says) or says in reason
        assert len(reason) <= 300
        assert says.startswith("behind") <= (reason == says)


def test_a_renderer_that_leaves_takes_no_more(record: QueueJob) -> None:
    leaving = [RendererRecord("w", 0, {"engine_key": MINE, "state": "idle", "draining": "1"})]
    scene = Scene(leaving, 1, placed(1, held=0, wanted=1))
    assert reason_of(record, JobState.WAITING, scene).startswith("scaling up")


def test_the_scene_is_what_the_queue_knows(
    queue: ShardQueue, submit: Submit, claim: Claim, record: QueueJob
) -> None:
    submit("other", tenant="bob")
    submit("capped", tenant="cat", tenant_cap=1)

    def reason() -> str:
        return reason_of(record, JobState.WAITING, scene_of(queue, "ann"))

    queue.scheduler_beat()
    assert reason() == "scaling up: the scheduler is about to place it"
    queue.place(Placement(1, {}, {MINE: 0}))
    assert reason() == "no renderer fits: other engines have all 1 places"
    queue.heartbeat("w", {"engine_key": MINE, "state": "idle"})
    assert reason() == "its renderer takes it up next"
    (mine,) = claim()
    assert mine.job_id == "job"
    assert reason() == "behind your own jobs"
    others = claim(2)
    assert {one.job_id for one in others} == {"other", "capped"}
    assert reason() == "behind your own jobs and others'"
    queue.fail(mine.job_id, mine.unit, mine.token, "release")
    assert reason() == "behind others' jobs"
    assert scene_of(queue, "ann").spent == 0
    assert scene_of(queue, "cat").spent == 1


def test_what_was_placed_is_forgotten(queue: ShardQueue, client: redis.Redis) -> None:
    queue.place(Placement(1))
    assert 0 < client.pttl(queue.key("placement")) <= KEEP_MS


def test_a_job_of_which_images_are_being_made_waits_for_nothing(record: QueueJob) -> None:
    busy = changed(record, units_in_flight=1)
    assert reason_of(busy, JobState.RUNNING, Scene()) == ""


@pytest.mark.parametrize(
    ("state", "changes", "says"),
    [
        (JobState.PAUSED, {}, "paused"),
        (JobState.CANCELLING, {"units_in_flight": 1}, "dropping its shards"),
        (JobState.CANCELLING, {}, "being closed"),
        (JobState.FINISHING, {}, "index, card and timing"),
        (JobState.STOPPING, {"failed_images": 4, "max_failed": 3}, "4 images failed, 3 may"),
        (JobState.FAILED, {"reason": "4 images failed, 3 may"}, "4 images failed, 3 may"),
        (JobState.WAITING, {"restoring": True}, "read back from the store"),
        (JobState.PAUSED, {"restoring": True}, "read back from the store"),
    ],
)
def test_every_other_state(
    record: QueueJob, state: JobState, changes: dict[str, Any], says: str
) -> None:
    assert says in reason_of(changed(record, **changes), state, Scene())


def test_no_state_is_silent_but_those_of_success(record: QueueJob) -> None:
    silent = {state for state in JobState if not reason_of(record, state, Scene())}
    assert silent <= TERMINAL


def changed(record: QueueJob, **changes: Any) -> QueueJob:
    return replace(record, **changes)
