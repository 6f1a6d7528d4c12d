"""What the client sends to submit a job: prompts in the body, or a file streamed from disk."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from jobs.errors import InvalidInput
from jobs.job import JobRequest
from jobs.templates.expansion import TemplateRequest
from jobs.templates.template_file import read_template

#: A template with its lists, as TOML; see docs/datasets.md.
TEMPLATE = ".toml"
SUFFIXES = {".txt": "text/plain", ".jsonl": "application/jsonl"}
#: Read here and sent as JSONL: each row's columns, as an object.
TABLE = ".parquet"
#: Rows of a table in memory at a time.
TABLE_ROWS = 1_000
#: A prompt file, prompts as values, or a template.
Prompts = Path | Sequence[str | dict[str, Any]] | TemplateRequest


@dataclass(frozen=True, slots=True)
class Upload:
    """A submission's body, which can be sent again from its beginning."""

    request: JobRequest
    name: str
    file: BinaryIO

    def fields(self, timeout_s: float) -> dict[str, Any]:
        """Arguments for httpx; rewinds the file, and never holds it in memory."""
        self.file.seek(0)
        parts = {
            "job": (None, self.request.model_dump_json(), "application/json"),
            "prompts": (self.name, self.file, SUFFIXES[Path(self.name).suffix.lower()]),
        }
        return {"files": parts, "timeout": timeout_s}


@dataclass(frozen=True, slots=True)
class TemplateUpload:
    """A submission's body whose prompts are a template."""

    request: JobRequest
    template: TemplateRequest

    def fields(self, timeout_s: float) -> dict[str, Any]:
        """Arguments for httpx."""
        job, template = (one.model_dump(mode="json") for one in (self.request, self.template))
        return {"json": {"job": job, "template": template}, "timeout": timeout_s}


@contextmanager
def open_upload(request: JobRequest, prompts: Prompts) -> Iterator[Upload | TemplateUpload]:
    """The body for a prompt file, for prompts as values or a template; closes its file after use.

    Raises InvalidInput for a file that is missing, empty, unreadable or of an unknown kind.
    """
    if isinstance(prompts, str):
        # A text is a sequence of texts, too: each letter would become a prompt.
        raise InvalidInput(
            "prompts are a list, or a file given as a Path; this is one text",
            where="prompts",
            remedy="Path('prompts.txt') for a file, ['a red circle'] for one prompt",
        )
    if isinstance(prompts, Path) and prompts.suffix.lower() == TEMPLATE:
        prompts = read_template(prompts)
    if isinstance(prompts, TemplateRequest):
        yield TemplateUpload(request, prompts)
        return
    if isinstance(prompts, Path) and prompts.suffix.lower() != TABLE:
        with _opened(prompts) as file:
            yield Upload(request, prompts.name, file)
        return
    name = prompts.name if isinstance(prompts, Path) else "prompts"
    rows = _table_rows(prompts) if isinstance(prompts, Path) else prompts
    with tempfile.SpooledTemporaryFile(max_size=1_000_000) as spool:
        for number, prompt in enumerate(rows, start=1):
            spool.write(_line(prompt, f"{name}, row {number}"))
        yield Upload(request, f"{name}.jsonl", spool)  # type: ignore[arg-type]


def _table_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file, without their nulls."""
    # Only who sends a table needs it.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path)
        for batch in table.iter_batches(TABLE_ROWS):
            for row in batch.to_pylist():
                yield {name: value for name, value in row.items() if value is not None}
    except (OSError, pa.ArrowException) as error:
        raise InvalidInput(
            f"the prompt file cannot be read: {str(error)[:200]}", where=str(path)
        ) from error


def _opened(path: Path) -> BinaryIO:
    if path.suffix.lower() not in SUFFIXES:
        raise InvalidInput(
            "a prompt file of this kind is not known",
            where=str(path),
            remedy="name it .txt (a prompt a line), .jsonl (an object a line), .parquet (a row) or "
            ".toml (a template)",
        )
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidInput(
            f"the prompt file cannot be read: {error.strerror}", where=str(path)
        ) from error
    return file


def _line(prompt: str | dict[str, Any], where: str) -> bytes:
    value = {"prompt": prompt.strip()} if isinstance(prompt, str) else prompt
    try:
        return json.dumps(value, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the row cannot be written as JSON: {error}", where=where) from error
