"""The commands that look into a job: its images, shards, coverage, files and times."""

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from fewstep.cli_jobs import JobId, client_here
from fewstep.options import AsJson
from fewstep.report import as_json, clock, note, show_pairs, show_table, show_times
from fewstep.report_coverage import show_coverage

Limit = Annotated[int, typer.Option(min=1, help="How many at most.")]
File = Annotated[Path, typer.Option("--out", help="File for the picture; it is written over.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (items, picture, shards, sheet, coverage, results, timing, stages):
        app.command()(command)


def items(
    job_id: JobId,
    first: Annotated[int, typer.Option(min=0, help="Index of the first.")] = 0,
    limit: Limit = 100,
    *,
    json: AsJson = False,
) -> None:
    """List the images of a job: row, seed, state, error and link; also while it runs."""
    with client_here() as client:
        found = list(islice(client.items(job_id, first=first), limit))
    if json:
        as_json({"id": job_id, "items": found})
        return
    columns = ("image", "row", "seed", "status", "prompt", "error")
    show_table(columns, [[str(one[name])[:200] for name in columns] for one in found])


def picture(
    job_id: JobId,
    image: Annotated[int, typer.Argument(min=0, help="Its index, as `items` tells.")],
    out: File,
    *,
    json: AsJson = False,
) -> None:
    """Copy one picture into a file, as soon as its shard is committed."""
    with client_here() as client:
        data = client.picture(job_id, image)
    out.write_bytes(data)
    facts = {"id": job_id, "image": image, "out": str(out.resolve()), "bytes": len(data)}
    as_json(facts) if json else note(f"{len(data)} bytes are in {out.resolve()}")


def shards(
    job_id: JobId,
    first: Annotated[int, typer.Option(min=0, help="Number of the first.")] = 0,
    limit: Limit = 100,
    *,
    json: AsJson = False,
) -> None:
    """List the committed shards of a job: pictures, failures, size, makers; also while it runs."""
    with client_here() as client:
        found = list(islice(client.shards(job_id, first=first), limit))
    if json:
        as_json({"id": job_id, "shards": found})
        return
    columns = ("shard", "images", "ok", "failed", "MB", "committed", "renderers")
    show_table(
        columns,
        [
            (
                *(str(one[name]) for name in columns[:4]),
                f"{one['bytes'] / 1e6:.2f}",
                clock(one["finished_ms"]),
                ", ".join(one["workers"]),
            )
            for one in found
        ],
    )


def sheet(
    job_id: JobId,
    out: File,
    shard: Annotated[int, typer.Option(min=0, help="Its number, as `shards` tells.")] = 0,
    *,
    json: AsJson = False,
) -> None:
    """Copy the contact sheet of a shard into a file (JPEG), as soon as it is committed."""
    with client_here() as client:
        data = client.contact_sheet(job_id, shard)
    out.write_bytes(data)
    facts = {"id": job_id, "shard": shard, "out": str(out.resolve()), "bytes": len(data)}
    as_json(facts) if json else note(f"{len(data)} bytes are in {out.resolve()}")


def coverage(
    job_id: JobId,
    pairs: Annotated[bool, typer.Option("--pairs", help="Pairs of columns too.")] = False,
    *,
    json: AsJson = False,
) -> None:
    """Count pictures by value of the prompts' own columns, and what was not taken, by reason.

    From committed shards, also while the job runs; beside what is expected at the end.
    """
    with client_here() as client:
        found = client.coverage(job_id)
    as_json(found) if json else show_coverage(found, pairs=pairs)


def results(job_id: JobId, *, json: AsJson = False) -> None:
    """Say where the dataset of a job that has ended lies, and which files it has.

    With --json each file has a link that reads it for 15 minutes: treat it as a secret.
    """
    with client_here() as client:
        found = client.results(job_id)
    if json:
        as_json(found)
        return
    files = found["files"]
    names = ("uri", "complete")
    show_pairs(found["id"], {name: found[name] for name in names} | {"files": len(files)})
    show_table(("file", "bytes"), [(file["name"], str(file["bytes"])) for file in files])


def timing(job_id: JobId, *, json: AsJson = False) -> None:
    """Say where the time of a job that has ended went, stage by stage."""
    with client_here() as client:
        found = client.timing(job_id)
    as_json(found) if json else _show(found)


def stages(job_id: JobId, *, json: AsJson = False) -> None:
    """Say where the time of a job's latest shards went; also while it runs."""
    with client_here() as client:
        found = client.stages(job_id)
    as_json(found) if json else _show(found)


def _show(found: dict[str, Any]) -> None:
    show_pairs(found.get("job") or found["id"], {"images": found["images"]})
    show_times(found["stages"], found["bottleneck"])
