"""From options and a prompt file to a request that is known to be right."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fewstep.options import JobOptions, accelerator_of, checked, limit_of, styles_of
from jobs.client_upload import SUFFIXES
from jobs.errors import InvalidInput
from jobs.job import JobRequest
from jobs.recipe import RecipeRequest, StyleWeight
from jobs.rows import MAX_LINE, SourceFormat, read_rows

_SOURCES: dict[str, SourceFormat] = {".txt": "text", ".jsonl": "jsonl"}


def request_of(options: JobOptions) -> JobRequest:
    """The request that the options make; raises InvalidInput naming the option."""
    styles = tuple(
        checked(StyleWeight, name=name, weight=weight) for name, weight in styles_of(options.style)
    )
    recipe = checked(
        RecipeRequest,
        model=options.model,
        accelerator=accelerator_of(options.accelerator),
        styles=styles,
        sampler=options.sampler,
        steps=options.steps,
        guidance=options.guidance,
        eta=options.eta,
        vae=options.vae,
        dtype=options.dtype,
        width=options.width,
        height=options.height,
    )
    return checked(
        JobRequest,
        recipe=recipe,
        name=options.name,
        repeats=options.repeats,
        seed=options.seed,
        format=options.format,
        quality=options.quality,
        output=options.output,
        shard_images=options.shard_images,
        priority=options.priority,
        max_failed_rows=limit_of(options.max_failed_rows),
    )


@contextmanager
def prompt_file(prompts: str) -> Iterator[Path]:
    """The prompts as a file that can be read twice; standard input is copied to one.

    Lines of standard input are JSON where the first begins with `{`. Raises InvalidInput.
    """
    if prompts != "-":
        path = Path(prompts)
        _check_file(path)
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="fewstep-stdin-") as folder:
        yield _copy(sys.stdin.buffer, Path(folder))


def count_rows(path: Path) -> int:
    """Read and check every row; raises InvalidInput naming file and line."""
    source = _SOURCES[path.suffix.lower()]
    with path.open("rb") as lines:
        return sum(1 for _ in read_rows(lines, source, path.name))


def _copy(stream: BinaryIO, folder: Path) -> Path:
    first = stream.readline(MAX_LINE + 1)
    suffix = ".jsonl" if first.lstrip(b"\xef\xbb\xbf \t").startswith(b"{") else ".txt"
    path = folder / f"stdin{suffix}"
    with path.open("wb") as file:
        file.write(first)
        shutil.copyfileobj(stream, file)
    return path


def _check_file(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise InvalidInput(
            "a prompt file of this kind is not known",
            where=str(path),
            remedy="name it .txt (a prompt a line) or .jsonl (an object a line)",
        )
    try:
        path.open("rb").close()
    except OSError as error:
        raise InvalidInput(
            f"the prompt file cannot be read: {error.strerror}",
            where=str(path),
            remedy="give the path of a text or JSONL file, or - for standard input",
        ) from error
