"""`fewstep preview`: what a prompt file becomes, without a server and without a picture."""

from itertools import islice
from typing import Annotated, Any

import typer

from fewstep.options import (
    AsJson,
    BadRows,
    Column,
    Drop,
    Expand,
    ExpandCount,
    ExpandSeed,
    Prompts,
    ValueList,
)
from fewstep.report import as_json, note
from jobs.rows import Row
from jobs.templates.template import Template


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(preview)


def preview(
    prompts: Prompts,
    rows: Annotated[int, typer.Option(min=1, help="How many rows to show.")] = 10,
    first: Annotated[int, typer.Option(min=0, help="The first of them.")] = 0,
    column: Column = None,
    drop: Drop = None,
    bad_rows: BadRows = "refuse",
    expand: Expand = None,
    expand_count: ExpandCount = None,
    expand_seed: ExpandSeed = 0,
    list: ValueList = None,  # noqa: A002 - the option's name
    *,
    json: AsJson = False,
) -> None:
    """Show the rows of a prompt file or template as they would be rendered."""
    from fewstep.report import show_table
    from fewstep.request import expansion_of, prompt_file, reading_of, rows_of

    expansion = expansion_of(expand, expand_count, expand_seed, list)
    reading = reading_of(column, drop, bad_rows)
    with prompt_file(prompts) as path:
        source = rows_of(path, reading, expansion)
        facts: dict[str, Any] = {}
        if isinstance(source, Template):
            found = source.prompts
            shown = [found.row(number) for number in range(first, min(first + rows, found.count))]
            facts = {"count": found.count, "combinations": found.total, "columns": found.columns}
        else:
            shown = [*islice(source, first, first + rows)]
    if json:
        as_json(facts | {"rows": [row.model_dump() for row in shown]})
        return
    if facts:
        note(f"{facts['count']} rows of {facts['combinations']} combinations")
    names = dict.fromkeys(name for row in shown for name in row.extra)
    show_table(
        ("row", "prompt", *names),
        [_line(first + place, row, names) for place, row in enumerate(shown)],
    )


def _line(number: int, row: Row, names: dict[str, None]) -> tuple[str, ...]:
    own = (row.extra.get(name) for name in names)
    return (str(number), row.prompt, *("" if value is None else str(value) for value in own))
