"""The live contact sheet: which images of a job stand on it, and how far each of them is."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from jobs.api.services import Services
from jobs.dataset_index import DatasetIndex
from jobs.errors import NotFound
from jobs.job import JobView
from jobs.layout import JobLayout, parse_unit
from jobs.round_items import picked
from jobs.rounds import Round, read_accepted
from jobs.states import TERMINAL, JobState

#: Pictures on one sheet; of a larger job, every n-th.
CELLS = 96
#: Leases that are looked at for those of a job.
_LEASES = 1_000

CellState = Literal["waiting", "rendering", "made"]
#: What an event of a unit makes of its images.
AFTER: dict[str, CellState] = {
    "claimed": "rendering",
    "done": "made",
    "release": "waiting",
    "fail": "waiting",
    "split": "waiting",
    "dead": "waiting",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """A place on the sheet: the image that it shows, and what there is of it."""

    number: int
    image: int
    state: CellState


@dataclass(frozen=True, slots=True)
class Sheet:
    """The images on a job's sheet: their positions in the queue's numbering, and their indexes."""

    queue_id: str
    #: The job whose dataset it is: a retry's is the job's own.
    job_id: str
    images: int
    shard_images: int
    positions: tuple[int, ...]
    indexes: tuple[int, ...]

    @property
    def step(self) -> int:
        """Every how many-th image it shows."""
        return max(1, self.images // max(1, len(self.positions)))

    def cells(self, state: CellState, spans: Iterable[range]) -> list[Cell]:
        """The cells of these runs of positions, in that state."""
        found = list(spans)
        return [
            Cell(number, self.indexes[number], state)
            for number, position in enumerate(self.positions)
            if any(position in span for span in found)
        ]

    def after(self, kind: str, unit: str) -> list[Cell]:
        """The cells that an event of the queue changes, as they are then."""
        state = AFTER.get(kind)
        if state is None or not unit:
            return []
        return self.cells(state, [self._span(unit)])

    def all(self, made: Iterable[range], rendering: Iterable[str]) -> list[Cell]:
        """Every cell, with what is done and the units in flight."""
        ready = {cell.number for cell in self.cells("made", made)}
        spans = map(self._span, rendering)
        busy = {cell.number for cell in self.cells("rendering", spans)} - ready
        return [
            Cell(number, image, _state(number, ready, busy))
            for number, image in enumerate(self.indexes)
        ]

    def _span(self, unit: str) -> range:
        return parse_unit(unit, self.shard_images, self.images).span


def chosen(images: int, cells: int = CELLS) -> list[int]:
    """The positions that a sheet shows: all, or so many at equal distances."""
    if images <= cells:
        return list(range(images))
    return [number * images // cells for number in range(cells)]


def sheet_of(services: Services, job_id: str) -> Sheet:
    """The sheet of a job, or of a retry of it; raises NotFound."""
    job = services.views.accepted(job_id)
    accepted = read_accepted(services.store, services.settings.s3_prefix, job.tenant, job_id)
    again = accepted.again
    images, per_shard = (again or job).images, (again or job).shard_images
    shown = {position: position for position in chosen(images)}
    if again is not None:
        shown = picked(services.store, services.views.layout(job.id), accepted, [*shown])
    return Sheet(job_id, job.id, images, per_shard, tuple(shown), tuple(shown.values()))


def cells_now(services: Services, sheet: Sheet, view: JobView) -> list[Cell]:
    """Every cell of the sheet as the queue knows it, or as the job has ended."""
    if view.state == JobState.DONE:
        return sheet.all([range(sheet.images)], ())
    if view.state in TERMINAL:
        return sheet.all(_committed(services, sheet), ())
    shards = sorted({position // sheet.shard_images for position in sheet.positions})
    done = services.queue.settled_shards(sheet.queue_id, shards)
    size = sheet.shard_images
    made = [range(shard * size, (shard + 1) * size) for shard in done]
    leases = services.queue.leases(_LEASES)
    return sheet.all(made, [one.unit for one in leases if one.job_id == sheet.queue_id])


def _committed(services: Services, sheet: Sheet) -> list[range]:
    """What a job that was stopped has in its dataset, by its index."""
    layout = services.views.layout(sheet.job_id)
    again = _round(services, layout, sheet.queue_id)
    try:
        index = DatasetIndex.model_validate_json(services.store.get(layout.index))
    except NotFound:
        return []
    first = again.first_place if again else 0
    number = again.number if again else 0
    return [
        range(shard.first - first, shard.stop - first)
        for shard in index.shards
        if shard.round == number
    ]


def _round(services: Services, layout: JobLayout, queue_id: str) -> Round | None:
    return read_accepted(services.store, layout.prefix, layout.tenant, queue_id).again


def _state(number: int, ready: set[int], busy: set[int]) -> CellState:
    if number in ready:
        return "made"
    return "rendering" if number in busy else "waiting"
