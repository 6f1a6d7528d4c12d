"""From options and a prompt file to a request that is known to be right."""

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fewstep.options import JobOptions, accelerator_of, checked, limit_of, styles_of
from jobs.client_upload import SUFFIXES, TEMPLATE
from jobs.errors import InvalidInput
from jobs.job import JobRequest
from jobs.recipe import RecipeRequest, StyleWeight
from jobs.rows import MAX_LINE, Row, SourceFormat, read_rows
from jobs.templates.expansion import Expansion
from jobs.templates.row_templates import expanded
from jobs.templates.template import Template
from jobs.templates.template_file import read_list, read_template

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
        expand=expansion_of(
            options.expand, options.expand_count, options.expand_seed, options.list
        ),
    )


def expansion_of(
    mode: str | None, count: int | None, seed: int, lists: Sequence[str] | None
) -> Expansion | None:
    """How prompts become rows; None: as they are. Raises InvalidInput naming the option."""
    if mode is None:
        if count is not None or lists:
            raise InvalidInput(
                "there is nothing to expand",
                where="--expand-count" if count is not None else "--list",
                remedy="say how: --expand combinatorial, sampled or balanced",
            )
        return None
    found = {}
    for text in lists or ():
        name, _, file = text.partition("=")
        if not file:
            raise InvalidInput(f"{text[:80]!r} is no list", where="--list", remedy="give NAME=FILE")
        found[name] = read_list(Path(file))
    return checked(Expansion, mode=mode, count=count, seed=seed, lists=found)


@contextmanager
def prompt_file(prompts: str) -> Iterator[Path]:
    """The prompts as a file that can be read twice; standard input is copied to one.

    Lines of standard input are JSON where the first begins as an object does. Raises InvalidInput.
    """
    if prompts != "-":
        path = Path(prompts)
        _check_file(path)
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="fewstep-stdin-") as folder:
        yield _copy(sys.stdin.buffer, Path(folder))


def count_rows(path: Path, expand: Expansion | None = None) -> int:
    """Read and check every row; raises InvalidInput naming file and line."""
    with opened_rows(path, expand) as rows:
        return rows.prompts.count if isinstance(rows, Template) else sum(1 for _ in rows)


@contextmanager
def opened_rows(path: Path, expand: Expansion | None) -> Iterator[Template | Iterator[Row]]:
    """The template, or the rows, that a prompt file makes; raises InvalidInput."""
    if path.suffix.lower() == TEMPLATE:
        if expand is not None:
            raise InvalidInput(
                "a template's file says itself how it becomes rows",
                where="--expand",
                remedy="write mode and count into the file",
            )
        yield Template.of(read_template(path))
        return
    with path.open("rb") as lines:
        rows = read_rows(lines, _SOURCES[path.suffix.lower()], path.name)
        yield rows if expand is None else expanded(rows, expand)


def _copy(stream: BinaryIO, folder: Path) -> Path:
    first = stream.readline(MAX_LINE + 1)
    # A template may begin with a brace too.
    suffix = ".jsonl" if re.match(rb"[\xef\xbb\xbf \t]*\{\s*[\"}]", first) else ".txt"
    path = folder / f"stdin{suffix}"
    with path.open("wb") as file:
        file.write(first)
        shutil.copyfileobj(stream, file)
    return path


def _check_file(path: Path) -> None:
    if path.suffix.lower() not in (*SUFFIXES, TEMPLATE):
        raise InvalidInput(
            "a prompt file of this kind is not known",
            where=str(path),
            remedy="name it .txt (a prompt a line), .jsonl (an object a line), .toml (template)",
        )
    try:
        path.open("rb").close()
    except OSError as error:
        raise InvalidInput(
            f"the prompt file cannot be read: {error.strerror}",
            where=str(path),
            remedy="give the path of a text or JSONL file, or - for standard input",
        ) from error
