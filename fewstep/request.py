"""From options and a prompt file to a request that is known to be right."""

import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from fewstep.options import JobOptions, accelerator_of, checked, limit_of, styles_of
from jobs.budget import Budget
from jobs.client_upload import TEMPLATE
from jobs.errors import InvalidInput
from jobs.filters import FilterRequest
from jobs.intake import repeated
from jobs.job import JobRequest
from jobs.recipe import RecipeRequest, StyleWeight
from jobs.rows import MAX_LINE, Row
from jobs.sources.folders import check_path, path_records
from jobs.sources.reading import Reading, SourceRows
from jobs.templates.expansion import Expansion
from jobs.templates.row_templates import expanded
from jobs.templates.template import Template
from jobs.templates.template_file import read_list, read_template

_NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
_FILTER = re.compile(
    rf"(?P<name>[^<>=:]+)(?:>=(?P<least>{_NUMBER}))?(?:<=(?P<most>{_NUMBER}))?(?::(?P<policy>\w+))?"
)


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
        validation=options.validation,
        thumbnails=options.thumbnails,
        shard_images=options.shard_images,
        priority=options.priority,
        max_failed_rows=limit_of(options.max_failed_rows),
        max_images=options.max_images,
        max_device_seconds=options.max_device_seconds,
        deadline=options.deadline,
        filters=filters_of(options.filter),
        accept=options.accept,
        max_tries=options.max_tries,
        source=reading_of(options.column, options.drop, options.bad_rows),
        expand=expansion_of(
            options.expand, options.expand_count, options.expand_seed, options.list
        ),
    )


def limits_of(
    max_images: str | None, max_device_seconds: str | None, deadline: str | None
) -> dict[str, Any]:
    """The limits that `fewstep budget` changes; raises InvalidInput naming the option."""
    given = {
        "max_images": max_images,
        "max_device_seconds": max_device_seconds,
        "deadline": deadline,
    }
    told = {name: value for name, value in given.items() if value is not None}
    if not told:
        raise InvalidInput(
            "no limit is given",
            where="budget",
            remedy="--max-images, --max-device-seconds, --deadline",
        )
    budget = checked(Budget, **{name: _number(value) for name, value in told.items()})
    return {name: getattr(budget, name) for name in told}


def _number(text: str) -> str | int | float | None:
    """`none`, a number, or what is none."""
    return None if text == "none" else limit_of(text)


def filters_of(given: Sequence[str] | None) -> tuple[FilterRequest, ...]:
    """`NAME[>=X][<=X][:POLICY]` each; raises InvalidInput naming the option."""
    found = []
    for text in given or ():
        match = _FILTER.fullmatch(text.replace(" ", ""))
        if match is None:
            raise InvalidInput(
                f"{text[:80]!r} is no filter",
                where="--filter",
                remedy="give NAME, NAME>=X or NAME<=X, and by choice :keep, :drop or :retry "
                "(in quotes: a shell reads > and <)",
            )
        limits = {"at_least": match["least"], "at_most": match["most"]}
        found.append(
            checked(
                FilterRequest,
                name=match["name"],
                policy=match["policy"] or "keep",
                **{name: float(value) for name, value in limits.items() if value},
            )
        )
    return tuple(found)


def reading_of(columns: Sequence[str] | None, drop: Sequence[str] | None, bad_rows: str) -> Reading:
    """How a prompt file is read; raises InvalidInput naming the option."""
    found = {}
    for text in columns or ():
        ours, _, theirs = text.partition("=")
        if not ours or not theirs or ours in found:
            raise InvalidInput(
                f"{text[:80]!r} says of no column what it is",
                where="--column",
                remedy="give OURS=THEIRS once for each, e.g. prompt=caption",
            )
        found[ours] = theirs
    return checked(Reading, columns=found, drop=tuple(drop or ()), bad_rows=bad_rows)


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
        if path.suffix.lower() != TEMPLATE:
            check_path(path)
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="fewstep-stdin-") as folder:
        yield _copy(sys.stdin.buffer, Path(folder))


def count_rows(
    path: Path,
    request: JobRequest | None = None,
    check: Callable[[Row, str], None] = lambda row, where: None,
) -> int:
    """Read and check every row, also by `check`; raises InvalidInput naming file and line."""
    request = request or JobRequest()
    rows = rows_of(path, request.source, request.expand, check)
    if isinstance(rows, Template):
        return rows.prompts.count
    return sum(1 if request.expand else row.repeats for row in rows)


def rows_of(
    path: Path,
    reading: Reading,
    expand: Expansion | None,
    check: Callable[[Row, str], None] = lambda row, where: None,
) -> Template | Iterable[Row]:
    """The template, or the rows, that a prompt file makes; raises InvalidInput."""
    if path.suffix.lower() == TEMPLATE:
        if expand is not None:
            raise InvalidInput(
                "a template's file says itself how it becomes rows",
                where="--expand",
                remedy="write mode and count into the file",
            )
        return Template.of(read_template(path))
    rows = SourceRows(path_records(path, reading), path.name, reading)
    rows.check = check
    return rows if expand is None else expanded(repeated(rows), expand)


def _copy(stream: BinaryIO, folder: Path) -> Path:
    first = stream.readline(MAX_LINE + 1)
    # A template may begin with a brace too.
    suffix = ".jsonl" if re.match(rb"[\xef\xbb\xbf \t]*\{\s*[\"}]", first) else ".txt"
    path = folder / f"stdin{suffix}"
    with path.open("wb") as file:
        file.write(first)
        shutil.copyfileobj(stream, file)
    return path
