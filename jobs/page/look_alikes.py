"""What a job's end tells of its filters: prompts short of pictures, and near-duplicates."""

import io
from dataclasses import dataclass

import pyarrow.parquet as pq

from jobs.api.services import Services
from jobs.dataset_index import DatasetIndex
from jobs.errors import NotFound
from jobs.fetch import read_index
from jobs.layout import JobLayout
from jobs.store import Store

#: Pictures that are shown, and named in a condition that would drop them.
SHOWN, NAMED = 12, 100
#: Bytes of a list that is read for a page; of a longer one the page tells the number alone.
BYTES_MAX = 8 << 20


@dataclass(frozen=True, slots=True)
class LookAlike:
    """A picture that resembles an earlier one; `distance`: bits by which their hashes differ."""

    image: int
    key: str
    duplicate_of: str
    distance: int


@dataclass(frozen=True, slots=True)
class AtTheEnd:
    """What the index counts, None where the job asked for no such thing, and some look-alikes."""

    rows_short: int | None = None
    duplicates: int | None = None
    look_alikes: tuple[LookAlike, ...] = ()
    #: A condition that is true of all look-alikes; empty: there are more than it names.
    where: str = ""


def at_the_end(services: Services, job_id: str) -> AtTheEnd:
    """Of a job that has ended; raises NotFound for none."""
    layout = services.views.layout(job_id)
    try:
        index = read_index(services.store, layout)
    except NotFound:
        return AtTheEnd()
    found = _look_alikes(services.store, layout, index)
    named = ", ".join(f"'{one.key}'" for one in found)
    return AtTheEnd(
        index.rows_short,
        index.duplicates,
        tuple(found[:SHOWN]),
        f"key in ({named})" if found and len(found) == index.duplicates else "",
    )


def _look_alikes(store: Store, layout: JobLayout, index: DatasetIndex) -> list[LookAlike]:
    head = store.head(layout.duplicates) if index.duplicates else None
    if head is None or head.bytes > BYTES_MAX:
        return []
    table = pq.ParquetFile(io.BytesIO(store.get(layout.duplicates)))
    columns = ["image", "key", "duplicate_of", "distance"]
    for batch in table.iter_batches(NAMED, columns=columns):
        return [LookAlike(**row) for row in batch.to_pylist()]
    return []
