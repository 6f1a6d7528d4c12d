"""What OpenAI's clients send and get: images, files, batches. Times are seconds since 1970."""

from typing import Literal

from pydantic import Field

from jobs.recipe import Frozen, Name
from jobs.seeds import MAX_SEED

ENDPOINT = "/v1/images/generations"
#: Lines of a batch, distinct recipes among them, and bytes of a file (the first and last are
#: OpenAI's own limits).
MAX_LINES = 50_000
MAX_RECIPES = 100
MAX_FILE = 200_000_000

FILE_ID = r"^file-[0-9a-f]{24}$"
BATCH_ID = r"^batch_[0-9a-f]{24}$"

BatchState = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "cancelling", "cancelled"
]


class ImageBody(Frozen):
    """The body of an image request: OpenAI's fields that mean something here, and four of ours."""

    prompt: str
    model: Name = "tiny"
    n: int = Field(default=1, ge=1, le=10, description="Pictures of the prompt")
    size: str | None = Field(
        default=None,
        pattern=r"^(auto|[1-9][0-9]{1,4}x[1-9][0-9]{1,4})$",
        description="WIDTHxHEIGHT in pixels; by default the model's own",
        examples=["64x64"],
    )
    response_format: Literal["url", "b64_json"] = "url"
    output_format: Literal["png", "jpeg", "webp"] = "png"
    output_compression: int = Field(
        default=95, ge=1, le=100, description="Quality of JPEG and WebP"
    )
    user: str | None = Field(default=None, max_length=200, description="Not used")
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED, description="Of the first picture")
    negative_prompt: str | None = None
    num_inference_steps: int | None = Field(default=None, ge=1, le=1_000)
    guidance_scale: float | None = Field(default=None, ge=0, le=100)


class Picture(Frozen):
    """One picture: a link that works for a while, or its bytes."""

    url: str | None = None
    b64_json: str | None = None
    seed: int
    sha256: str


class Pictures(Frozen):
    """The answer to an image request."""

    created: int
    data: tuple[Picture, ...] = Field(strict=False)
    output_format: str
    size: str = Field(examples=["64x64"])


class FileView(Frozen):
    """A file that was uploaded, or that a batch made."""

    id: str = Field(pattern=FILE_ID)
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"] = "processed"


class FileGone(Frozen):
    """What deleting a file answers."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


class FileList(Frozen):
    """Files, newest first; `after` the last id is the next page."""

    object: Literal["list"] = "list"
    data: tuple[FileView, ...] = Field(strict=False)
    first_id: str | None
    last_id: str | None
    has_more: bool


class BatchFault(Frozen):
    """What is wrong with a line of a batch's input."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class BatchFaults(Frozen):
    """All that was found before anything was made."""

    object: Literal["list"] = "list"
    data: tuple[BatchFault, ...] = Field(strict=False)


class Counts(Frozen):
    """Lines of a batch; a line whose pictures are not all there has failed."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class BatchView(Frozen):
    """A batch as OpenAI's clients know it."""

    id: str = Field(pattern=BATCH_ID)
    object: Literal["batch"] = "batch"
    endpoint: str = ENDPOINT
    input_file_id: str
    completion_window: str = "24h"
    status: BatchState
    created_at: int
    in_progress_at: int | None = None
    failed_at: int | None = None
    completed_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    errors: BatchFaults | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    request_counts: Counts = Counts()
    metadata: dict[str, str] | None = None


class BatchList(Frozen):
    """Batches, newest first; `after` the last id is the next page."""

    object: Literal["list"] = "list"
    data: tuple[BatchView, ...] = Field(strict=False)
    first_id: str | None
    last_id: str | None
    has_more: bool


class NewBatch(Frozen):
    """The body that makes a batch."""

    input_file_id: str = Field(pattern=FILE_ID)
    endpoint: Literal["/v1/images/generations"]
    completion_window: Literal["24h"] = Field(
        description="As OpenAI asks for it; a batch goes on after it"
    )
    metadata: dict[str, str] | None = Field(default=None, max_length=16)


class BatchJob(Frozen):
    """The job that makes the lines of one recipe; `n` pictures of each."""

    id: str
    n: int
    lines: int


class BatchRecord(Frozen):
    """A batch as the store holds it."""

    view: BatchView
    jobs: tuple[BatchJob, ...] = Field(default=(), strict=False)
