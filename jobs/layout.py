"""Where everything of a job lies in the store: names, and nothing else."""

import re
from collections.abc import Sequence

from pydantic import Field

from jobs.errors import InvalidInput
from jobs.job import Job
from jobs.recipe import Frozen

# Matched as a whole: "$" would let a line feed through.
_SEGMENT = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_UNIT = re.compile(r"(\d{1,8})(?::(\d{1,16})-(\d{1,16}))?")

SPLIT = "train"


def segment(value: str, field: str) -> str:
    """`value` if it may stand in a storage key; raises InvalidInput otherwise."""
    if not _SEGMENT.fullmatch(value):
        raise InvalidInput(
            f"{value[:40]!r} may not stand in a storage key",
            where=field,
            remedy="a-z, 0-9 and -, at most 40 characters, not beginning with -",
        )
    return value


class Unit(Frozen):
    """A shard ("17") or a part of one ("17:17000-17500"): images `first` up to `stop`."""

    shard: int
    first: int
    stop: int
    whole: bool
    #: Its images where they are not `first` up to `stop`: those of a later round, whose `first` and
    #: `stop` are places in the dataset's numbering.
    picks: tuple[int, ...] = Field(default=(), strict=False)
    #: The number of the round that wrote its files anew; None: none did.
    anew: int | None = None

    @property
    def indexes(self) -> Sequence[int]:
        """Its images, in order."""
        return self.picks or range(self.first, self.stop)

    @property
    def name(self) -> str:
        """Its name in the queue."""
        return f"{self.shard}" if self.whole else f"{self.shard}:{self.first}-{self.stop}"

    @property
    def span(self) -> range:
        """The places of its images."""
        return range(self.first, self.stop)

    @property
    def images(self) -> int:
        """How many images it has."""
        return self.stop - self.first


def parse_unit(name: str, shard_images: int, images: int) -> Unit:
    """The unit of that name in a job of `images` images."""
    match = _UNIT.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is no unit")
    shard = int(match[1])
    if match[2] is None:
        first = shard * shard_images
        return Unit(shard=shard, first=first, stop=min(first + shard_images, images), whole=True)
    return Unit(shard=shard, first=int(match[2]), stop=int(match[3]), whole=False)


class JobLayout(Frozen):
    """The keys of one job: its dataset under `root`, its scratch space under `scratch`."""

    prefix: str
    tenant: str
    job_id: str
    shard_images: int = 1
    #: Image -> its place in the dataset's numbering, of images that are tried again in a later
    #: round; elsewhere the place of an image is its index.
    places: dict[int, int] = Field(default_factory=dict)

    @property
    def root(self) -> str:
        """Where the dataset lies; ends in a slash."""
        return f"{self.prefix}/{self.tenant}/{self.job_id}/"

    @property
    def scratch(self) -> str:
        """Spooled rows and staged shards: no part of the dataset."""
        return f"{self.prefix}/_scratch/{self.tenant}/{self.job_id}/"

    @staticmethod
    def page(rows_prefix: str, number: int) -> str:
        """Page `number` of the spooled rows."""
        return f"{rows_prefix}{number:06d}.jsonl"

    @property
    def job(self) -> str:
        """The accepted job."""
        return f"{self.root}job.json"

    @property
    def card(self) -> str:
        """The dataset card."""
        return f"{self.root}README.md"

    @staticmethod
    def template(rows_prefix: str) -> str:
        """The template that stands for the rows."""
        return f"{rows_prefix}template.json"

    @staticmethod
    def row_values(rows_prefix: str) -> str:
        """How many of the spooled rows have which value."""
        return f"{rows_prefix}values.json"

    @staticmethod
    def rejected(rows_prefix: str) -> str:
        """The rows of the source that were left out."""
        return f"{rows_prefix}rejected.jsonl"

    @property
    def rejected_copy(self) -> str:
        """The same of all sources, as a part of the dataset."""
        return f"{self.root}rejected_rows.jsonl"

    def template_copy(self, first_row: int = 0) -> str:
        """The template of the rows from that one on, as a part of the dataset."""
        return (
            f"{self.added_templates}{first_row}.json" if first_row else f"{self.root}template.json"
        )

    @property
    def added_templates(self) -> str:
        """How the names begin of the templates that extensions brought."""
        return f"{self.root}template-"

    @property
    def croissant(self) -> str:
        """The dataset's metadata for machines."""
        return f"{self.root}croissant.json"

    @property
    def index(self) -> str:
        """The list of shards."""
        return f"{self.root}index.json"

    @property
    def timing(self) -> str:
        """The timing of every stage."""
        return f"{self.root}timing.json"

    @property
    def contact_sheet(self) -> str:
        """The preview of the first pictures."""
        return f"{self.root}previews/contact_sheet.png"

    @property
    def duplicates(self) -> str:
        """The pictures that resemble earlier ones, of jobs that look for them."""
        return f"{self.root}duplicates.parquet"

    @property
    def coverage(self) -> str:
        """Pictures by value of the prompt source's own columns, and what was not taken."""
        return f"{self.root}coverage.json"

    @property
    def success(self) -> str:
        """Written last: the dataset is complete."""
        return f"{self.root}_SUCCESS"

    @property
    def outcome(self) -> str:
        """How a job ended that did not become a dataset."""
        return f"{self.root}outcome.json"

    @property
    def shards(self) -> str:
        """The folder of the shards."""
        return f"{self.root}{SPLIT}/"

    @property
    def pictures(self) -> str:
        """The folder of the pictures as single objects, of jobs that want them so."""
        return f"{self.root}images/"

    @property
    def form_folders(self) -> tuple[str, ...]:
        """The folders of what is made of tars beside them, of jobs that want that."""
        return tuple(f"{self.root}{name}/" for name in ("data", "imagefolder", "thumbnails"))

    def table_with_pictures(self, unit: Unit, split: str) -> str:
        """A unit's pictures and rows of a split as one table."""
        return f"{self.root}data/{split}-{self.stem(unit)}.parquet"

    def picture_folder(self, unit: Unit, split: str) -> str:
        """The folder of a unit's pictures of a split, and of their rows."""
        return f"{self.root}imagefolder/{split}/{self.stem(unit)}/"

    def thumbnail_folder(self, unit: Unit, split: str) -> str:
        """The folder of their thumbnails."""
        return f"{self.root}thumbnails/{split}/{self.stem(unit)}/"

    def round(self, number: int) -> str:
        """A later round as it was accepted."""
        return f"{self.root}rounds/{number:04d}.json"

    def round_ended(self, number: int) -> str:
        """How a later round ended."""
        return f"{self.root}rounds/{number:04d}_ended.json"

    def control(self, number: int, what: str) -> str:
        """What a job (0) or a later round of it was told: its `state`, `priority` or `budget`.

        Of a job that a limit had stopped also what it had `spent`.
        """
        return f"{self.scratch}control/{number:04d}-{what}.json"

    def replaced(self, number: int) -> str:
        """The folder of the shards as they were before drop `number` wrote them anew."""
        return f"{self.scratch}replaced/{number:04d}/"

    def round_pages(self, number: int, kind: str) -> str:
        """The folder of the pages that list a later round's images."""
        return f"{self.scratch}rounds/{number:04d}-{kind}/"

    def for_unit(self, unit: Unit) -> "JobLayout":
        """The layout that knows the places of a unit's images."""
        if not unit.picks:
            return self
        return self.model_copy(update={"places": dict(zip(unit.picks, unit.span, strict=True))})

    @property
    def quarantine_folder(self) -> str:
        """The folder of the rows without a picture."""
        return f"{self.root}quarantine/"

    def quarantine(self, number: int) -> str:
        """File `number` of the rows without a picture."""
        return f"{self.quarantine_folder}{number:05d}.parquet"

    def rejected_tar(self, unit: Unit) -> str:
        """The pictures of a unit that filters turned away."""
        return f"{self.quarantine_folder}{self.stem(unit)}.tar"

    def stem(self, unit: Unit) -> str:
        """`00017`, or `00017-0500-0999` for a part (indexes in the shard, last included).

        Where a round wrote it anew, `-r0002` follows.
        """
        anew = "" if unit.anew is None else f"-r{unit.anew:04d}"
        if unit.whole:
            return f"{unit.shard:05d}{anew}"
        base = unit.shard * self.shard_images
        return f"{unit.shard:05d}-{unit.first - base:04d}-{unit.stop - 1 - base:04d}{anew}"

    def tar(self, unit: Unit) -> str:
        """Pictures, captions and rows: the commit point of the unit."""
        return f"{self.shards}{self.stem(unit)}.tar"

    def table(self, unit: Unit) -> str:
        """One parquet row per image, failed ones too."""
        return f"{self.shards}{self.stem(unit)}.parquet"

    def manifest(self, unit: Unit) -> str:
        """Counts, digests and timings: readers trust this."""
        return f"{self.shards}{self.stem(unit)}_stats.json"

    def staged(self, unit: Unit, token: str, kind: str) -> str:
        """What one claim wrote before it was known to win (`kind`: tar, failed.jsonl)."""
        return f"{self.scratch}staged/{self.stem(unit)}.{token}.{kind}"

    def sample(self, image: int) -> str:
        """Key of an image inside its tar: five digits of shard, four of index."""
        shard, index = divmod(self.places.get(image, image), self.shard_images)
        return f"{shard:05d}{index:04d}"


def layout_of(job: Job, prefix: str) -> JobLayout:
    """The layout of an accepted job."""
    return JobLayout(prefix=prefix, tenant=job.tenant, job_id=job.id, shard_images=job.shard_images)
