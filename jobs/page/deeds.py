"""What may be done about a job and its dataset, and why the rest may not."""

from dataclasses import dataclass

from jobs.api.services import Services
from jobs.job import JobView
from jobs.layout import JobLayout
from jobs.new_round import is_over
from jobs.results import outcome_of
from jobs.rounds import Round, rounds_of
from jobs.specs import dataset_id
from jobs.states import TERMINAL, JobState
from jobs.store import Store

_OPEN = (JobState.WAITING, JobState.RUNNING, JobState.PAUSED)
_TITLES = {"retry-failed": "retry", "extend": "extension", "drop": "drop", "undo": "undo of a drop"}


@dataclass(frozen=True, slots=True)
class Standing:
    """A job as queue and store have it, which decides what may be done."""

    #: Of the job itself, not of a later round.
    view: JobView
    rounds: tuple[Round, ...]
    #: The last round, while it has not ended.
    running: Round | None
    #: Whether every image was rendered once, or failed.
    complete: bool
    deleted: bool
    #: Whether the last round is a drop, and what it took out is kept.
    can_undo: bool

    @property
    def ended(self) -> bool:
        """Whether the job itself has ended."""
        return self.view.state in TERMINAL


def standing_of(services: Services, job_id: str) -> Standing:
    """Where the job stands that this id is of, or whose round it is of; raises NotFound."""
    own = dataset_id(job_id)
    view, layout, store = services.views.view(own), services.views.layout(own), services.store
    rounds = tuple(rounds_of(store, layout))
    last = rounds[-1] if rounds else None
    return Standing(
        view=view,
        rounds=rounds,
        running=None if last is None or is_over(store, layout, last) else last,
        complete=store.head(layout.success) is not None,
        deleted=view.state in TERMINAL and outcome_of(store, layout).deleted,
        can_undo=last is not None and last.kind == "drop" and _kept(store, layout, last.number),
    )


def reasons(now: Standing) -> dict[str, str]:
    """Deed -> why it cannot be done, "" where it can."""
    ready = _not_ready(now)
    whole = ready or ("" if now.complete else "Images of it were never rendered. First the rest.")
    fewer = whole or ("" if now.view.done else "There is no picture in it.")
    return {
        "limits": _limits(now),
        "rest": ready or ("Every image was rendered." if now.complete else ""),
        "retry": ready or ("" if now.view.failed else "No image failed."),
        "extend": whole,
        # One that was cut short is completed where it is asked for again.
        "drop": "" if now.running and now.running.kind == "drop" else fewer,
        "undo": _undo(now, ready),
        "delete": "" if now.view.state in _OPEN else f"The job is {now.view.state}.",
        "priority": "" if now.view.state in _OPEN else f"The job is {now.view.state}.",
    }


def title_of(again: Round) -> str:
    """What a later round is to people."""
    return f"{_TITLES[again.kind]} {again.number}"


def _not_ready(now: Standing) -> str:
    if not now.ended:
        return f"The job is {now.view.state}. It must have ended."
    if now.deleted:
        return "The job was deleted with its pictures."
    if now.running:
        return f"Its {title_of(now.running)} has not ended. Wait for it, or cancel it."
    return ""


def _limits(now: Standing) -> str:
    state = now.view.state
    if state in _OPEN or (state == JobState.STOPPED and not now.rounds):
        return ""
    if state == JobState.STOPPED:
        return "It was tried again since it stopped, which closed its own shards: render the rest."
    if state == JobState.DONE:
        return "Every image was made, or failed: extend it for more."
    if state in TERMINAL:
        return f"The job is {state}: it goes on no more, but the rest can be rendered."
    return f"The job is {state}. Try again in a moment."


def _undo(now: Standing, ready: str) -> str:
    if now.running and now.running.kind == "undo":
        return ""
    if ready:
        return ready
    if not now.rounds or now.rounds[-1].kind != "drop":
        return "The last that was done to the dataset is no drop."
    return "" if now.can_undo else "What was dropped is gone: it is kept for a day."


def _kept(store: Store, layout: JobLayout, number: int) -> bool:
    found = store.list(layout.replaced(number))
    return any(one.key.endswith("_stats.json") for one in found)
