"""The extent of a dataset: rows times repeats, block by block as they were asked for."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from pydantic import Field

from jobs.errors import NotFound
from jobs.job import Image, Job, Rows, image_at
from jobs.recipe import Frozen
from jobs.rows import Row

#: Reads rows `first` up to `stop` of a job.
ReadRows = Callable[[Job, int, int], list[Row]]


class RowsAt(Frozen):
    """Rows of a dataset from `first_row` on, and where they lie."""

    first_row: int
    rows: Rows


class Block(Frozen):
    """Rows `first_row` up to `stop_row`, each with its repeats, as images from `first_image` on."""

    first_image: int
    first_row: int
    stop_row: int
    first_repeat: int
    stop_repeat: int
    #: The first of the shards that its images are in, as units of `shard_images`.
    first_shard: int
    shard_images: int
    sources: tuple[RowsAt, ...] = Field(strict=False)

    @property
    def repeats(self) -> int:
        """How many of its images are of one row."""
        return self.stop_repeat - self.first_repeat

    @property
    def images(self) -> int:
        """How many images it has."""
        return (self.stop_row - self.first_row) * self.repeats

    @property
    def brought(self) -> tuple[RowsAt, ...]:
        """The rows that an extension added: none where it is more repeats of those there."""
        return self.sources if self.first_row else ()

    @property
    def cost(self) -> float:
        """Device time of its images over that of as many of the job's own recipe."""
        rows = [one.rows for one in self.sources]
        return sum(one.cost * one.count for one in rows) / sum(one.count for one in rows)

    @property
    def stop_image(self) -> int:
        """The first image after it."""
        return self.first_image + self.images

    def spot(self, image: int) -> tuple[int, int]:
        """Row and repeat of an image."""
        row, repeat = divmod(image - self.first_image, self.repeats)
        return self.first_row + row, self.first_repeat + repeat

    def images_of(self, row: int) -> range:
        """The images of one of its rows."""
        first = self.first_image + (row - self.first_row) * self.repeats
        return range(first, first + self.repeats)

    def place(self, image: int) -> int:
        """The image's place in the numbering of the dataset's shards."""
        return self.first_shard * self.shard_images + image - self.first_image

    def image_at(self, place: int) -> int:
        """The image at a place of that numbering."""
        return place - self.first_shard * self.shard_images + self.first_image

    def planned(self, job: Job, first: int, stop: int, read_rows: ReadRows) -> list[Image]:
        """Images `first` up to `stop`, which are all of this block."""
        if first >= stop:
            return []
        first_row, stop_row = self.spot(first)[0], self.spot(stop - 1)[0] + 1
        rows = list(self.rows(job, first_row, stop_row, read_rows))
        found = []
        for image in range(first, stop):
            row, repeat = self.spot(image)
            found.append(image_at(job, image, row, repeat, rows[row - first_row]))
        return found

    def rows(self, job: Job, first: int, stop: int, read_rows: ReadRows) -> Iterator[Row]:
        """Rows `first` up to `stop` of the dataset, from wherever they lie."""
        for source in self.sources:
            begin = max(first, source.first_row)
            end = min(stop, source.first_row + source.rows.count)
            if begin < end:
                there = job.model_copy(update={"rows": source.rows})
                yield from read_rows(there, begin - source.first_row, end - source.first_row)


@dataclass(frozen=True)
class Extent:
    """All that was asked for of a dataset: the job's own block, then one of each extension.

    Together they are every row with every repeat, each once.
    """

    job: Job
    blocks: Sequence[Block]

    @property
    def images(self) -> int:
        """How many images it has."""
        return self.blocks[-1].stop_image

    @cached_property
    def rows(self) -> int:
        """How many rows it has."""
        return max(block.stop_row for block in self.blocks)

    @cached_property
    def repeats(self) -> int:
        """How many images each of its rows has."""
        return max(block.stop_repeat for block in self.blocks)

    @property
    def sources(self) -> tuple[RowsAt, ...]:
        """Where its rows lie, each source once."""
        found = {one.first_row: one for block in self.blocks for one in block.sources}
        return tuple(found[first] for first in sorted(found))

    @property
    def whole(self) -> Job:
        """The job as if all of it had been asked for at once: for what tells of the dataset.

        Settings that rows of several sources have alike are counted by each.
        """
        every = [one.rows for one in self.sources]
        told = {name: sum(getattr(one, name) for one in every) for name in ("rejected", "recipes")}
        rows = self.job.rows.model_copy(update={"count": self.rows, **told})
        accept = self.job.accept and self.repeats
        news = {"rows": rows, "repeats": self.repeats, "accept": accept}
        return self.job.model_copy(update=news)

    def rows_of(self, runs: Iterable[tuple[int, int]]) -> Iterator[range]:
        """The rows of runs of images (first and stop), each within one block."""
        for first, stop in runs:
            block = self.block_of(first)
            yield range(block.spot(first)[0], block.spot(stop - 1)[0] + 1)

    def block_of(self, image: int) -> Block:
        """The block that an image is of; raises NotFound for none."""
        for block in self.blocks:
            if block.first_image <= image < block.stop_image:
                return block
        raise NotFound(f"the job has {self.images} images", where=f"image {image}")

    def place(self, image: int) -> int:
        """The image's place in the numbering of the dataset's shards."""
        return self.block_of(image).place(image)

    def shard(self, image: int) -> int:
        """The shard of the image's first try."""
        return self.place(image) // self.job.shard_images

    def spot(self, image: int) -> tuple[int, int]:
        """Row and repeat of an image."""
        return self.block_of(image).spot(image)

    def more_repeats(self, count: int, first_shard: int) -> Block:
        """A block of so many more repeats of every row."""
        first = self.repeats
        return self._block(first_shard, 0, self.rows, first, first + count, self.sources)

    def more_rows(self, rows: Rows, first_shard: int) -> Block:
        """A block of further rows, with as many repeats as all others have."""
        first, source = self.rows, RowsAt(first_row=self.rows, rows=rows)
        return self._block(first_shard, first, first + rows.count, 0, self.repeats, (source,))

    def _block(
        self,
        first_shard: int,
        first_row: int,
        stop_row: int,
        first_repeat: int,
        stop_repeat: int,
        sources: tuple[RowsAt, ...],
    ) -> Block:
        return Block(
            first_image=self.images,
            first_row=first_row,
            stop_row=stop_row,
            first_repeat=first_repeat,
            stop_repeat=stop_repeat,
            first_shard=first_shard,
            shard_images=self.job.shard_images,
            sources=sources,
        )


def own_block(job: Job) -> Block:
    """What was asked for when the job was submitted."""
    return Block(
        first_image=0,
        first_row=0,
        stop_row=job.rows.count,
        first_repeat=0,
        stop_repeat=job.repeats,
        first_shard=0,
        shard_images=job.shard_images,
        sources=(RowsAt(first_row=0, rows=job.rows),),
    )
