"""The pictures of fetched datasets, image by image, beside those of a reference."""

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pyarrow import parquet

from jobs.layout import SPLIT


@dataclass(frozen=True)
class Shown:
    """One picture of a dataset: its image's number, its prompt, and pixels uint8 [h, w, 3]."""

    image: int
    prompt: str
    pixels: NDArray[np.uint8]


def shown(dataset: Path) -> Iterator[Shown]:
    """Every picture of a dataset, shard by shard; images that failed are left out."""
    for table in sorted((dataset / SPLIT).glob("*.parquet")):
        columns = ["image", "prompt", "status", "file_name"]
        rows = parquet.read_table(table, columns=columns).to_pylist()
        with tarfile.open(table.with_suffix(".tar")) as tar:
            for row in rows:
                if row["status"] == "ok":
                    yield Shown(row["image"], row["prompt"], _pixels(tar, row["file_name"]))


def beside(
    dataset: Path, reference: Path | None
) -> Iterator[tuple[Shown, NDArray[np.uint8] | None]]:
    """Each picture with the reference's of the same image, where there is one.

    Both are read as streams: their shards hold the same images, in the same order.
    """
    others = shown(reference) if reference is not None else iter(())
    other = next(others, None)
    for one in shown(dataset):
        while other is not None and other.image < one.image:
            other = next(others, None)
        same = other is not None and other.image == one.image
        yield one, other.pixels if same and other is not None else None


def _pixels(tar: tarfile.TarFile, name: str) -> NDArray[np.uint8]:
    member = tar.extractfile(name)
    if member is None:
        raise FileNotFoundError(f"{tar.name!r} has no {name}")
    with Image.open(io.BytesIO(member.read())) as picture:
        return np.asarray(picture.convert("RGB"))
