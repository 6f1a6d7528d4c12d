"""Later rounds in the soak: a job that is done is extended, thinned, put back, struck meanwhile."""

import io
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from jobs.drop import drop_rows
from jobs.errors import BadConfiguration, Conflict, NoCapacity, Unreachable
from jobs.extend import extend_job
from jobs.finish import facts_of
from jobs.job import ExtensionRequest, Job, Submission
from jobs.results import outcome_of
from jobs.retry import retry_failed
from jobs.rounds import rounds_of
from jobs.sources.reading import read_rows
from jobs.specs import round_number
from jobs.undo_drop import undo_drop
from tests.chaos.bench import Bench
from tests.chaos.examine import read_dataset
from tests.chaos.inject import Trap
from tests.chaos.one_site import Site
from tests.chaos.seats import OLD
from tests.chaos.strikes import STRIKES, Strike, cancel
from tests.chaos.striking import last
from tests.chaos.world import IMAGES, TENANT, Whole, prompt, request
from tests.s3_servers import WEAK
from tests.servers import wait_until

Kind = Literal["repeats", "rows", "drop", "undo", "retry"]
KINDS: tuple[Kind, ...] = ("repeats", "repeats", "rows", "drop", "drop", "undo", "undo", "retry")
#: Steps of one plan, and rows that one of them adds, at most.
STEPS, ROWS = 4, 3
NOW_MS = 1_700_000_000_000
T = TypeVar("T")


@dataclass(frozen=True)
class Step:
    """What is asked of one of the jobs, counted round, and what is struck meanwhile."""

    kind: Kind
    job: int
    #: Rows that are added, or images that are dropped, from `first` on.
    count: int
    first: int
    strikes: tuple[tuple[float, Strike], ...]

    def __str__(self) -> str:
        what = {"rows": f" +{self.count}", "drop": f" {self.first}-{self.first + self.count - 1}"}
        told = f"{self.kind}{what.get(self.kind, '')} of job {self.job}"
        return "; ".join([told, *(strike.text for _, strike in self.strikes)])


def steps_of(dice: random.Random) -> tuple[Step, ...]:
    """The steps of a plan; an undo is of the drop just before it."""
    found: list[Step] = []
    for step in (_step_of(dice) for _ in range(dice.randint(0, STEPS))):
        before = found[-1] if found else step
        kind = "drop" if step.kind == "undo" and before.kind != "drop" else step.kind
        found.append(replace(step, kind=kind, job=before.job if kind == "undo" else step.job))
    return tuple(found)


def _step_of(dice: random.Random) -> Step:
    """A step; what a user may do to the job itself is no strike while it is done."""
    kinds = [one for one in STRIKES if one is not cancel]
    count = dice.choice([0, 0, 1, 2])
    return Step(
        kind=dice.choice(KINDS),
        job=dice.randrange(3),
        count=dice.randint(1, ROWS),
        first=dice.randrange(IMAGES + 10),
        strikes=tuple((dice.uniform(0.0, 1.5), dice.choice(kinds)(dice)) for _ in range(count)),
    )


@dataclass
class Content:
    """What a job's dataset is to hold, by an arithmetic that is not the product's own."""

    #: Image -> its row and repeat.
    spots: list[tuple[int, int]] = field(default_factory=lambda: [(n, 0) for n in range(IMAGES)])
    rows: int = IMAGES
    repeats: int = 1
    dropped: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    #: What an undo would put back, and which of that had failed.
    aside: tuple[set[int], set[int]] = (set(), set())

    def grow(self, added: Sequence[tuple[int, int]], bad: int | None) -> None:
        """Further images; those of row `bad` fail."""
        self.aside = (set(), set())
        first = len(self.spots)
        self.spots += added
        self.failed |= {first + n for n, (row, _) in enumerate(added) if row == bad}

    def drop(self, images: range) -> set[int]:
        """Which of these there are: they are none any more."""
        gone = {image for image in images if image < len(self.spots)} - self.dropped
        if gone:
            self.aside = (gone, gone & self.failed)
            self.dropped |= gone
            self.failed -= gone
        return gone

    def put_back(self) -> bool:
        """The last drop is undone, if nothing was done since."""
        gone, failed = self.aside
        self.dropped -= gone
        self.failed |= failed
        self.aside = (set(), set())
        return bool(gone)

    def whole(self, pictures: Mapping[tuple[int, int], str]) -> Whole:
        """With the digests of an undisturbed run, by row and repeat."""
        found = {image: pictures[spot] for image, spot in enumerate(self.spots)}
        return Whole(
            {image: digest for image, digest in found.items() if image not in self.dropped},
            len(self.failed),
        )


def grown_pictures(made: Bench) -> dict[tuple[int, int], str]:
    """Row and repeat -> digest, of a job that asks at once for all that steps may add."""
    rows, repeats = IMAGES + STEPS * ROWS, 1 + STEPS
    with made.site(OLD, WEAK, name="grown") as site:
        site.pace_s = 0.0
        site.scheduler()
        for name in ("a", "b"):
            site.renderer(name)
        site.submit(rows, request().model_copy(update={"repeats": repeats}))
        site.wait_for_end()
        assert not site.stop()
        found = read_dataset(site.store, site.layout())
    assert len(found.pictures) == rows * repeats
    return {divmod(image, repeats): digest for image, digest in found.pictures.items()}


class Later:
    """Carries out steps on the jobs of a site that are done, and says what they are to hold."""

    def __init__(self, site: Site, bad: Trap, row: int | None, wait: Callable[..., None]) -> None:
        """`bad`: what makes row `row` fail; None: it was mended. `wait` until something is so."""
        self._site, self._bad, self._row, self._wait = site, bad, row, wait
        self.contents: dict[str, Content] = {}
        for job in site.jobs:
            if outcome_of(site.store, site.layout(job)).state == "done":
                failed = set() if row is None else {row}
                self.contents[job.id] = Content(failed=failed)

    def carry_out(self, step: Step) -> None:
        """One step with its strikes; a job that is not done is left as it is."""
        site = self._site
        job = site.job_number(step.job)
        if (content := self.contents.get(job.id)) is None:
            return
        with ThreadPoolExecutor(1) as asks:
            asked = asks.submit(self._ask, step, job, content)
            for wait, strike in step.strikes:
                last(wait)
                strike.act(site)
            site.heal()
            # Whoever left by itself is replaced meanwhile.
            self._wait(site, asked.done)
            again = asked.result()
        if again is not None:
            ends = site.layout(job).round_ended(round_number(again.id))
            self._wait(site, lambda: site.store.head(ends) is not None)
            wait_until(lambda: not site.queue.open_jobs(), "the queue to close them", 60)

    def _ask(self, step: Step, job: Job, content: Content) -> Submission | None:
        """What there is to wait for, if there is."""
        if step.kind == "drop":
            if content.drop(range(step.first, step.first + step.count)):
                self._drop(step, job)
            return None
        if step.kind == "undo":
            if content.put_back():
                self._undo(job)
            return None
        if step.kind == "retry":
            return self._retry(job, content)
        return self._extend(step, job, content)

    def _extend(self, step: Step, job: Job, content: Content) -> Submission:
        rows, repeats = content.rows, content.repeats
        if step.kind == "repeats":
            added = [(row, repeats) for row in range(rows)]
            content.repeats += 1
        else:
            content.rows += step.count
            added = [(row, n) for row in range(rows, content.rows) for n in range(repeats)]
        content.grow(added, self._row)
        lines = "".join(f"{prompt(row)}\n" for row in range(rows, content.rows)).encode()

        def ask(**ids: Any) -> Submission:
            asked = ExtensionRequest(repeats=1 if step.kind == "repeats" else 0)
            found = read_rows(io.BytesIO(lines), "text", "prompts") if lines else None
            servers = (*self._servers, self._site.catalog)
            return extend_job(*servers, **ids, request=asked, rows=found)

        return _answer(ask, **self._ids(job), idempotency_key=uuid.uuid4().hex)

    def _retry(self, job: Job, content: Content) -> Submission | None:
        """The row is mended for all jobs from now on."""
        self._bad.mend()
        self._row = None
        content.aside = (set(), set()) if content.failed else content.aside
        if not content.failed:
            return None
        content.failed.clear()
        ask = lambda **ids: retry_failed(*self._servers, **ids)  # noqa: E731
        return _answer(ask, **self._ids(job), idempotency_key=uuid.uuid4().hex)

    def _drop(self, step: Step, job: Job) -> None:
        facts = facts_of(job, self._site.catalog)
        where = f"image >= {step.first} and image < {step.first + step.count}"
        ask = lambda **ids: drop_rows(*self._servers, facts, **ids, where=where)  # noqa: E731
        _answer(ask, **self._ids(job), idempotency_key=uuid.uuid4().hex)

    def _undo(self, job: Job) -> None:
        facts, layout = facts_of(job, self._site.catalog), self._site.layout(job)

        def ask(**ids: Any) -> object:
            try:
                return undo_drop(*self._servers, facts, **ids)
            except Conflict:
                # It has no key: asked again after its answer was lost, there is none to undo.
                if rounds_of(self._site.store, layout)[-1].kind != "undo":
                    raise
                return None

        _answer(ask, **self._ids(job))

    @property
    def _servers(self) -> tuple[Any, Any]:
        # Redis may be another one by now.
        return self._site.store, self._site.queue

    def _ids(self, job: Job) -> dict[str, Any]:
        prefix = self._site.direct.s3_prefix
        return {"prefix": prefix, "tenant": TENANT, "job_id": job.id, "now_ms": NOW_MS}


def _answer(ask: Callable[..., T], **ids: Any) -> T:
    """Asked again, as it was, for as long as a server is away."""
    found: list[T] = []

    def answered() -> bool:
        try:
            found.append(ask(**ids))
        except (Unreachable, NoCapacity, BadConfiguration):
            return False
        return True

    wait_until(answered, "an answer", 120)
    return found[0]
