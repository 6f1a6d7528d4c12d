"""What the client sends to submit or extend a job: prompts in the body, or a file from disk."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from jobs.errors import InvalidInput, NothingToRender
from jobs.job import ExtensionRequest, JobRequest
from jobs.sources.folders import check_path, path_records
from jobs.sources.reading import ERROR, WHERE, numbered
from jobs.templates.expansion import TemplateRequest
from jobs.templates.template_file import read_template

#: A template with its lists, as TOML; see docs/datasets.md.
TEMPLATE = ".toml"
SUFFIXES = {".txt": "text/plain", ".jsonl": "application/jsonl"}


@dataclass(frozen=True, slots=True)
class Stored:
    """A prompt file or folder (`s3://bucket/key`, `s3://bucket/folder/`) that the API reads."""

    uri: str
    etag: str | None = None


#: A prompt file or folder here or in S3, prompts as values, or a template.
Prompts = Path | Stored | Sequence[str | dict[str, Any]] | TemplateRequest


@dataclass(frozen=True, slots=True)
class Upload:
    """A submission's body, which can be sent again from its beginning."""

    request: JobRequest | ExtensionRequest
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
class BodyUpload:
    """A submission whose prompts are named by its body: a template, or a place in S3."""

    request: JobRequest | ExtensionRequest
    prompts: TemplateRequest | Stored

    def fields(self, timeout_s: float) -> dict[str, Any]:
        """Arguments for httpx."""
        if isinstance(self.prompts, Stored):
            place = {"uri": self.prompts.uri}
            place |= {"etag": self.prompts.etag} if self.prompts.etag is not None else {}
            named: dict[str, Any] = {"prompts_from": place}
        else:
            named = {"template": self.prompts.model_dump(mode="json")}
        if isinstance(self.request, JobRequest):
            told: dict[str, Any] = {"job": self.request.model_dump(mode="json")}
        else:
            told = self.request.model_dump(mode="json", exclude_defaults=True)
        return {"json": told | named, "timeout": timeout_s}


@contextmanager
def open_upload(
    request: JobRequest | ExtensionRequest, prompts: Prompts
) -> Iterator[Upload | BodyUpload]:
    """The body of a submission, or of an extension by rows; its file is closed after use.

    Raises InvalidInput for a file that is missing, empty, unreadable or of an unknown kind.
    """
    if isinstance(prompts, Path) and prompts.suffix.lower() == TEMPLATE:
        prompts = read_template(prompts)
    if isinstance(prompts, TemplateRequest | Stored):
        yield BodyUpload(request, prompts)
        return
    with _opened(request, prompts) as upload:
        yield upload


@contextmanager
def _opened(
    request: JobRequest | ExtensionRequest, prompts: Path | Sequence[str | dict[str, Any]]
) -> Iterator[Upload]:
    if isinstance(prompts, str):
        # A text is a sequence of texts, too: each letter would become a prompt.
        raise InvalidInput(
            "prompts are a list, or a file given as a Path; this is one text",
            where="prompts",
            remedy="Path('prompts.txt') for a file, ['a red circle'] for one prompt",
        )
    if isinstance(prompts, Path):
        check_path(prompts)
        if prompts.suffix.lower() in SUFFIXES and not prompts.is_dir():
            with prompts.open("rb") as file:
                yield Upload(request, prompts.name, file)
            return
    with tempfile.SpooledTemporaryFile(max_size=1_000_000) as spool:
        name = prompts.name if isinstance(prompts, Path) else "prompts"
        lines = _path_lines(prompts, request) if isinstance(prompts, Path) else _lines(prompts)
        spool.writelines(lines)
        if not spool.tell():
            raise NothingToRender(
                "there is no prompt in it", where=name, remedy="give at least one, one a line"
            )
        yield Upload(request, f"{name}.jsonl", spool)  # type: ignore[arg-type]


def _path_lines(path: Path, request: JobRequest | ExtensionRequest) -> Iterator[bytes]:
    """What a file or folder holds, as JSONL that says where each row stood."""
    for record in path_records(path, request.source):
        value = record.value
        if isinstance(value, InvalidInput):
            told: dict[str, Any] = {ERROR: [value.message, value.remedy or ""]}
        else:
            told = {"prompt": value.strip()} if isinstance(value, str) else value
            if record.texts:
                told = numbered(told, request.source)
        place = {WHERE: record.where}
        try:
            yield _line(told | place, record.where)
        except InvalidInput as error:
            # A number that is not finite: whether it ends the submission is not said here.
            yield _line({ERROR: [error.message, error.remedy or ""]} | place, record.where)


def _lines(prompts: Sequence[str | dict[str, Any]]) -> Iterator[bytes]:
    for number, prompt in enumerate(prompts, start=1):
        yield _line(prompt, f"prompts, row {number}")


def _line(prompt: str | dict[str, Any], where: str) -> bytes:
    value = {"prompt": prompt.strip()} if isinstance(prompt, str) else prompt
    try:
        return json.dumps(value, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the row cannot be written as JSON: {error}", where=where) from error
