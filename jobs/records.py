"""The record of one image: everything needed to make it again, and what making it cost."""

from typing import Literal

from pydantic import Field

from jobs.recipe import Frozen, RowRecipe
from jobs.rows import Scalar

#: Why an image has no picture, in a word: its exception, its pixels, its file, its process, a
#: filter that broke, or one that turned it away.
ErrorKind = Literal["", "device", "nan", "flat", "encode", "died", "filter", "rejected"]
#: Letters of a traceback that a row keeps: the last ones, where the error is.
TRACEBACK_MAX = 4_000


class StageTimes(Frozen):
    """Milliseconds one image took in each stage: a batch's time over its real images."""

    text_ms: float = 0.0
    denoise_ms: float = 0.0
    decode_ms: float = 0.0
    transfer_ms: float = 0.0
    encode_ms: float = 0.0

    @property
    def device_ms(self) -> float:
        """What of it the device worked for."""
        return self.text_ms + self.denoise_ms + self.decode_ms + self.transfer_ms


class LoadTimes(Frozen):
    """Milliseconds from nothing to an engine on a device, by stage."""

    #: Finding weights (fetching what is not there), and their digests.
    find_ms: float = 0.0
    #: Reading the base; 0 where the fused engine was kept on this node.
    base_ms: float = 0.0
    fuse_ms: float = 0.0
    #: Reading the kept engine, or writing it where it was made; waiting for its lock.
    cache_ms: float = 0.0
    device_ms: float = 0.0
    #: Compiling the nets for the recipe's own batches; 0 where they are not compiled.
    compile_ms: float = 0.0
    #: The first batch, with what torch prepares for it; 0 before there was one.
    first_batch_ms: float = 0.0

    @property
    def total_ms(self) -> float:
        """All stages of loading: the first batch is work already."""
        read = self.find_ms + self.base_ms + self.fuse_ms + self.cache_ms
        return read + self.device_ms + self.compile_ms


class Maker(Frozen):
    """Who made an image, with what."""

    worker: str
    device: str
    torch: str
    diffusers: str
    fewstep: str
    #: Digests of the weights that were really loaded.
    model_sha256: str
    accelerator_sha256: str = ""
    #: "NAME=WEIGHT@SHA256", one per style, in the order of fusing.
    styles: tuple[str, ...] = Field(default=(), strict=False)
    #: `off`, `warm` or `max`: what is compiled may differ from what is not in its last bits.
    compiled: str = "off"


class ImageRecord(Frozen):
    """One image as tar, parquet and manifest tell it; `status` is `ok` or `failed`."""

    key: str
    image: int
    row: int
    repeat: int
    prompt: str
    negative_prompt: str
    seed: int
    status: Literal["ok", "failed"]
    error: str = ""
    error_kind: ErrorKind = ""
    #: Of the exception that stood in the way, `TRACEBACK_MAX` letters at most.
    traceback: str = Field(default="", max_length=TRACEBACK_MAX)
    #: Of the picture's file, whose name is `key.extension`; empty where it failed.
    file_name: str = ""
    sha256: str = ""
    bytes: int = 0
    #: Tokens of the prompt that the text encoder could not read.
    tokens_lost: int = 0
    #: Which try made it: 1, and one more for each process that died on its unit before, and for
    #: each time it was rendered again alone.
    attempt: int = 0
    #: The shape of its batch, which decides last bits; 0: it never came into one.
    batch_images: int = 0
    batch_position: int = 0
    created_ms: int = 0
    times: StageTimes = StageTimes()
    #: What of the job's recipe was another for it.
    recipe: RowRecipe | None = None
    extra: dict[str, Scalar] = Field(default_factory=dict)
    #: What its job's filters said of it, by column (`jobs/filter_columns.py`).
    filtered: dict[str, Scalar] = Field(default_factory=dict)

    @property
    def rejected(self) -> bool:
        """Whether there is a picture that a filter turned away."""
        return self.error_kind == "rejected"


class Picture(Frozen):
    """An encoded picture and its record.

    `data` is empty where the image failed, unless a filter turned it away.
    """

    record: ImageRecord
    data: bytes = b""


class ShardTimes(Frozen):
    """What one unit took as a whole, in milliseconds."""

    #: From the claim to the first batch on the device.
    wait_ms: float = 0.0
    #: Loading and fusing, where this unit had to wait for it; then by stage.
    load_ms: float = 0.0
    load: LoadTimes | None = None
    fetch_ms: float = 0.0
    #: The device's share: text, denoising, decoding.
    device_ms: float = 0.0
    encode_ms: float = 0.0
    upload_ms: float = 0.0
    #: What the device stood still for before this unit's batches: claims and rows that had not
    #: come, encoders that were all busy, uploads that were behind.
    work_stall_ms: float = 0.0
    encode_stall_ms: float = 0.0
    store_stall_ms: float = 0.0
    #: Scoring its pictures, and those that were made of its images before.
    filter_ms: float = 0.0
    #: The most memory its renderer had held by then: of its GPU, or of its process on a CPU.
    memory_bytes: int = 0
    started_ms: int = 0
    finished_ms: int = 0
