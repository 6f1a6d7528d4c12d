"""The commands that change a dataset that is complete: `extend`."""

from pathlib import Path
from typing import Annotated

import typer

from fewstep.cli_jobs import JobId, Key, client_here
from fewstep.options import AsJson, Column, Drop
from fewstep.report import as_json, note


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(extend)


def extend(
    job_id: JobId,
    repeats: Annotated[
        int, typer.Option(min=0, metavar="+N", help="So many more pictures of every row.")
    ] = 0,
    rows: Annotated[
        Path | None, typer.Option(help="A prompt file or folder: its rows are added.")
    ] = None,
    column: Column = None,
    drop: Drop = None,
    key: Key = None,
    *,
    json: AsJson = False,
) -> None:
    """Add pictures to a dataset that is complete, as new shards; those there stay as they are."""
    from fewstep.request import reading_of

    source = reading_of(column, drop, "refuse")
    with client_here() as client:
        reply = client.extend(
            job_id, repeats=repeats, rows=rows, source=source, idempotency_key=key
        )
    if json:
        as_json(reply.model_dump())
    else:
        note(f"{reply.images} images in {reply.shards} shards; follow it: fewstep watch {reply.id}")
        print(reply.id)
