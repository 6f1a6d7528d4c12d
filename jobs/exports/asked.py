"""What a user asks of an export: its form, its splits, the size of its shards."""

import hashlib
from typing import Literal

from pydantic import Field

from jobs.layout import SPLIT
from jobs.recipe import Frozen

Form = Literal["webdataset", "imagefolder", "parquet"]
VALIDATION = "validation"
_STEPS = 1 << 53


class Export(Frozen):
    """How a dataset is written anew."""

    form: Form
    #: The share of prompts whose pictures are for validation.
    validation: float = Field(default=0.0, ge=0.0, le=0.5)
    #: Of `webdataset` and `parquet`: pictures, and bytes of pictures, in a shard at most.
    shard_images: int = Field(default=10_000, ge=1, le=10_000)
    shard_bytes: int = Field(default=1 << 30, ge=1 << 20)
    #: Pixels of the longer side of a thumbnail; None: no thumbnails.
    thumbnails: int | None = Field(default=None, ge=16, le=1024)
    #: Of `imagefolder`: the column whose values name the folders, as torchvision reads labels.
    label: str | None = Field(default=None, max_length=64)

    def split_of(self, prompt: str) -> str:
        """The split of a picture: all pictures of one prompt are in the same one, in any export."""
        digest = hashlib.blake2b(f"fewstep-split:{prompt}".encode(), digest_size=8).digest()
        share = (int.from_bytes(digest, "big") >> 11) / _STEPS
        return VALIDATION if share < self.validation else SPLIT
