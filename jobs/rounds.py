"""Rounds: later tries of some of a job's images, or further ones, as new shards of its dataset.

The job itself is round 0. For the queue each round is a job of its own (`JOB-r1`), whose units are
numbered from 0; in the dataset its shards follow those of the rounds before, and `picks` says which
images they hold. What was committed before is never touched. A retry lists its images; those of an
extension follow from its block.
"""

import hashlib
import re
import threading
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

from pydantic import Field, ValidationError

from jobs.budget import Budget
from jobs.draft import order_of
from jobs.errors import DamagedJob
from jobs.extent import Block, Extent, ReadRows, own_block
from jobs.job import PAGE_ROWS, Image, Job, with_try
from jobs.keys import Quota
from jobs.layout import JobLayout, Unit, parse_unit
from jobs.manifest import Manifest
from jobs.queue_values import SubmitRequest
from jobs.recipe import Frozen
from jobs.results import round_outcome
from jobs.row_checks import device_seconds
from jobs.rows import Row
from jobs.specs import read_job, round_number
from jobs.store import PutReply, Store

#: One after another: whoever writes a round down where the store decides nothing.
_TURNS = threading.Lock()
_DOC = re.compile(r"rounds/(\d{4})\.json$")


class Again(Frozen):
    """An image of a round, as its pages hold it: everything that its first try knew."""

    image: int
    seed: int
    row: Row
    #: Its row and repeat; None in pages of earlier versions: they follow from the image.
    row_index: int | None = None
    repeat: int | None = None
    #: Which seed of the image's sequence it is.
    seed_try: int = 0

    def of(self, job: Job) -> Image:
        """It as an image of its job."""
        row, repeat = divmod(self.image, job.repeats)
        if self.row_index is not None and self.repeat is not None:
            row, repeat = self.row_index, self.repeat
        return Image(
            index=self.image,
            row_index=row,
            repeat=repeat,
            seed=self.seed,
            row=self.row,
            seed_try=self.seed_try,
        )

    def next_of(self, job: Job) -> "Again":
        """The same with the next seed of its sequence."""
        later = with_try(job, self.of(job), self.seed_try + 1)
        return self.model_copy(update={"seed": later.seed, "seed_try": later.seed_try})


class Round(Frozen):
    """A round as `rounds/0001.json` holds it; immutable once accepted."""

    version: Literal[1] = 1
    kind: Literal["retry-failed", "extend", "drop", "undo"] = "retry-failed"
    job: str
    number: int
    images: int
    shard_images: int
    #: The number of its first shard in the dataset.
    first_shard: int
    #: Where its images are listed, as JSONL pages of `PAGE_ROWS`: of a retry.
    pages: str
    #: What images it has: of an extension.
    block: Block | None = None
    #: What is dropped, and how many images that is; or the drop that is undone.
    where: str = ""
    dropped: int = 0
    undoes: int = 0
    #: Digest of the pages, or of what an extension or a drop was asked for.
    sha256: str
    #: Digest of the idempotency key it was asked for with.
    key: str
    created_ms: int
    fewstep: str
    #: What its submitter was told of it.
    warnings: tuple[str, ...] = Field(default=(), strict=False)

    @property
    def id(self) -> str:
        """Its name in the queue."""
        return f"{self.job}-r{self.number}"

    @property
    def renders(self) -> bool:
        """Whether the queue knows it: a drop renders nothing."""
        return self.kind in ("retry-failed", "extend")

    @property
    def shards(self) -> int:
        """How many shards it has, where none is split."""
        return -(-self.images // self.shard_images)

    @property
    def stop_shard(self) -> int:
        """The number of the first shard after it."""
        return self.first_shard + self.shards

    @property
    def first_place(self) -> int:
        """The place in the dataset of its first image: where the numbering of its shards begins."""
        return self.first_shard * self.shard_images

    def holds(self, manifest: Manifest) -> bool:
        """Whether a manifest of the job is of this round."""
        return self.first_shard <= manifest.shard < self.stop_shard

    def queue_unit(self, manifest: Manifest) -> str:
        """The queue's name of the unit that a manifest of this round is of."""
        shard, whole = manifest.shard - self.first_shard, ":" not in manifest.unit
        first, stop = manifest.first - self.first_place, manifest.stop - self.first_place
        return Unit(shard=shard, first=first, stop=stop, whole=whole).name


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the queue's id stands for: a job, or a later round of it."""

    job: Job
    again: Round | None = None


def read_accepted(store: Store, prefix: str, tenant: str, queue_id: str) -> Accepted:
    """The job, and the round if it is one; raises NotFound or DamagedJob."""
    job = read_job(store, prefix, tenant, queue_id)
    number = round_number(queue_id)
    if not number:
        return Accepted(job)
    return Accepted(job, read_round(store, _layout(prefix, job), number))


def read_round(store: Store, layout: JobLayout, number: int) -> Round:
    """Round `number` (1 the first retry); raises NotFound or DamagedJob."""
    key = layout.round(number)
    try:
        return Round.model_validate_json(store.get(key))
    except ValidationError as error:
        raise DamagedJob(
            f"the file does not read as a round: {error.errors()[0]['msg']}",
            where=key,
            remedy="it was written by another version, or changed by hand",
        ) from error


def rounds_of(store: Store, layout: JobLayout) -> list[Round]:
    """The later rounds of a job, the first retry first."""
    keys = [found.key for found in store.list(f"{layout.root}rounds/")]
    numbers = [int(match[1]) for key in keys if (match := _DOC.search(key))]
    return [read_round(store, layout, number) for number in sorted(numbers)]


def read_extent(
    store: Store, layout: JobLayout, job: Job, later: Sequence[Round] | None = None
) -> Extent:
    """What the dataset is to hold: the job's own images, and those of its extensions.

    `later`: the rounds that count; None: all. An extension that was cancelled and deleted does not.
    """
    rounds = rounds_of(store, layout) if later is None else later
    blocks = [one.block for one in rounds if one.block and not withdrawn(store, layout, one)]
    return Extent(job, [own_block(job), *blocks])


def extent_with(store: Store, layout: JobLayout, job: Job, image: int) -> Extent:
    """The extent as far as it takes to find an image: the store is asked for added ones alone."""
    own = Extent(job, [own_block(job)])
    return own if image < own.images else read_extent(store, layout, job)


def withdrawn(store: Store, layout: JobLayout, again: Round) -> bool:
    """Whether a round was cancelled and deleted: then it counts as never asked for."""
    return again.block is not None and round_outcome(store, layout, again.number).deleted


def put_round(store: Store, layout: JobLayout, again: Round, token: str = "") -> PutReply:
    """Write a round down, if none of its number is there.

    One that is there counts as stored by us where it was written with the same `token`; by default
    that is its key's digest, so whoever asks for the same at the same time stores it too.
    """
    # A store that ignores the condition lets two at once get past: those of one process wait.
    with nullcontext() if store.honours_absent else _TURNS:
        return store.put(
            layout.round(again.number),
            again.model_dump_json(indent=1).encode(),
            content_type="application/json",
            metadata={"token": token or again.key},
            if_absent=True,
        )


def order_of_accepted(
    accepted: Accepted,
    quota: Quota | None = None,
    budget: Budget | None = None,
    before_ms: int = 0,
) -> SubmitRequest:
    """What the queue is told of a job, or of a round of it.

    `budget`: the job's as it is now, of which `before_ms` of devices are spent.
    """
    job, again = accepted.job, accepted.again
    if again is None:
        return order_of(job, quota, budget, before_ms)
    # What is asked for once more is made, whatever the job's own limits.
    whole = order_of(job, quota, Budget())
    cost = device_seconds(job.recipe) * again.block.cost if again.block else whole.unit_cost
    return replace(
        whole,
        unit_cost=cost,
        job_id=again.id,
        images=again.images,
        spec_sha256=again.sha256,
        # A retry may fail as a whole; the job's budget holds for each extension anew, a share
        # of its own images.
        max_failed=job.failed_limit(again.images) if again.block else None,
    )


# ---- its images ----


def unit_images(
    accepted: Accepted, name: str, read_rows: ReadRows, store: Store
) -> tuple[Unit, list[Image]]:
    """A unit by its name in the queue, as the dataset numbers it, and its images in order."""
    job, again = accepted.job, accepted.again
    if again is None:
        unit = parse_unit(name, job.shard_images, job.images)
        return unit, own_block(job).planned(job, unit.first, unit.stop, read_rows)
    here = parse_unit(name, again.shard_images, again.images)
    if again.block:
        first = again.block.first_image
        images = again.block.planned(job, first + here.first, first + here.stop, read_rows)
    else:
        images = [one.of(job) for one in _read_pages(store, again, here.first, here.stop)]
    unit = Unit(
        shard=here.shard + again.first_shard,
        first=here.first + again.first_place,
        stop=here.stop + again.first_place,
        whole=here.whole,
        picks=tuple(image.index for image in images),
    )
    return unit, images


def write_pages(store: Store, folder: str, images: Iterable[Again]) -> tuple[int, str]:
    """List a round's images under `folder`; how many they are, and the digest of the pages."""
    digest, count, page = hashlib.sha256(), 0, 0
    source = iter(images)
    while some := list(islice(source, PAGE_ROWS)):
        data = b"".join(one.model_dump_json().encode() + b"\n" for one in some)
        digest.update(data)
        store.put(JobLayout.page(folder, page), data, content_type="application/jsonl")
        count, page = count + len(some), page + 1
    return count, digest.hexdigest()


def _read_pages(store: Store, again: Round, first: int, stop: int) -> list[Again]:
    first_page, stop_page = first // PAGE_ROWS, -(-stop // PAGE_ROWS)
    lines: list[bytes] = []
    for page in range(first_page, stop_page):
        lines += store.get(JobLayout.page(again.pages, page)).rstrip(b"\n").split(b"\n")
    skipped = first_page * PAGE_ROWS
    return [Again.model_validate_json(line) for line in lines[first - skipped : stop - skipped]]


def _layout(prefix: str, job: Job) -> JobLayout:
    return JobLayout(prefix=prefix, tenant=job.tenant, job_id=job.id)
