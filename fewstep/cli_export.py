"""`fewstep export`: a fetched dataset in the form that a training program reads."""

from pathlib import Path
from typing import Annotated

import typer

from fewstep.options import AsJson
from fewstep.report import as_json, note


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(export)


def export(
    dataset: Annotated[Path, typer.Argument(help="The folder of a fetched dataset.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the export; new or empty.")],
    form: Annotated[str, typer.Option("--as", help="webdataset, imagefolder or parquet.")],
    validation: Annotated[
        float, typer.Option(help="Share of the prompts that are for validation, up to 0.5.")
    ] = 0.0,
    label: Annotated[
        str | None, typer.Option(help="imagefolder: the column that names the folders.")
    ] = None,
    thumbnails: Annotated[
        int | None, typer.Option(help="Small pictures too, of so many pixels at most.")
    ] = None,
    shard_images: Annotated[int, typer.Option(help="Pictures in a shard at most.")] = 10_000,
    shard_megabytes: Annotated[int, typer.Option(help="Size of a shard's pictures.")] = 1_024,
    *,
    json: AsJson = False,
) -> None:
    """Write a fetched dataset anew: other shards, folders, or tables with the pictures in them.

    The dataset itself is not touched, and no server is asked.
    """
    from fewstep.fetching import check_out
    from fewstep.options import checked
    from jobs.exports.asked import Export
    from jobs.exports.exporting import export_dataset
    from jobs.exports.samples import Fetched

    asked = checked(
        Export,
        form=form,
        validation=validation,
        label=label,
        thumbnails=thumbnails,
        shard_images=shard_images,
        shard_bytes=shard_megabytes << 20,
    )
    source = Fetched.at(dataset)
    check_out(out)
    done = export_dataset(source, out, asked)
    if json:
        as_json({"out": str(out.resolve()), **done.model_dump()})
    else:
        counts = ", ".join(f"{count} in {split}" for split, count in done.pictures.items())
        note(f"{counts}, in {out.resolve()}")
