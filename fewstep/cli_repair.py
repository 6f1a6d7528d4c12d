"""The commands that change a dataset that is complete: `extend`, `drop`."""

from contextlib import ExitStack
from typing import Annotated, Any

import typer

from fewstep.cli_jobs import JobId, Key, client_here, source_of
from fewstep.options import (
    AsJson,
    BadRows,
    Column,
    Drop,
    Expand,
    ExpandCount,
    ExpandSeed,
    ValueList,
)
from fewstep.report import as_json, note, show_table
from jobs.errors import InvalidInput


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (extend, drop):
        app.command()(command)


def extend(
    job_id: JobId,
    repeats: Annotated[
        int, typer.Option(min=0, metavar="+N", help="So many more pictures of every row.")
    ] = 0,
    rows: Annotated[
        str | None,
        typer.Option(metavar="PROMPTS", help="Whatever `submit` takes: its rows are added."),
    ] = None,
    column: Column = None,
    drop: Drop = None,
    bad_rows: BadRows = "refuse",
    expand: Expand = None,
    expand_count: ExpandCount = None,
    expand_seed: ExpandSeed = 0,
    list: ValueList = None,  # noqa: A002 - the option's name
    key: Key = None,
    *,
    json: AsJson = False,
) -> None:
    """Add pictures to a dataset that is complete, as new shards; those there stay as they are."""
    from fewstep.request import expansion_of, reading_of

    asked: dict[str, Any] = {
        "source": reading_of(column, drop, bad_rows),
        "expand": expansion_of(expand, expand_count, expand_seed, list),
        "idempotency_key": key,
    }
    with ExitStack() as open_while, client_here() as client:
        prompts = None if rows is None else open_while.enter_context(source_of(rows))
        reply = client.extend(job_id, repeats=repeats, rows=prompts, **asked)
    for warning in reply.warnings:
        note(f"note: {warning}")
    if json:
        as_json(reply.model_dump())
    else:
        note(f"{reply.images} images in {reply.shards} shards; follow it: fewstep watch {reply.id}")
        print(reply.id)


def drop(
    job_id: JobId,
    where: Annotated[
        str, typer.Option(help="Which rows: \"shape = 'star' and not (seed < 100)\".")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count them and show ten; write nothing.")
    ] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Put back what the last drop took out, within a day.")
    ] = False,
    key: Key = None,
    *,
    json: AsJson = False,
) -> None:
    """Take rows out of a dataset that is complete: their shards are written anew without them."""
    if undo == bool(where):
        raise InvalidInput(
            "say which rows are to go, or --undo alone",
            where="--where",
            remedy="--where \"status = 'failed'\"",
        )
    with client_here() as client:
        if undo:
            done = client.undo_drop(job_id)
        else:
            done = client.drop(job_id, where, dry_run=dry_run, idempotency_key=key)
    if json:
        as_json(done)
        return
    if done["examples"]:
        columns = list(done["examples"][0])
        rows = [[str(row.get(name, ""))[:200] for name in columns] for row in done["examples"]]
        show_table(columns, rows)
    verb = "put back" if undo else "would go" if dry_run else "dropped"
    note(f"{done['dropped']} of {done['images']} images {verb}, of {done['shards']} shards")
