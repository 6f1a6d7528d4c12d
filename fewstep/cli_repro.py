"""`fewstep repro`: one picture made again from its row on this machine, and compared."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from fewstep.cli_jobs import client_here
from fewstep.options import AsJson
from fewstep.report import as_json, note, show_pairs
from jobs.errors import InvalidInput
from jobs.original import Original

_JOB = re.compile(r"[a-z2-7]{26}(-r[1-9]\d{0,3})?")
_SAYS = {
    "equal": "equal: the same file, byte for byte",
    "same_pixels": "the same pixels, in another file",
    "close": "within the tolerance",
    "different": "another picture",
}


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(repro)


def repro(
    picture: Annotated[
        str,
        typer.Argument(
            metavar="KEY", help="JOB/KEY, or FOLDER/KEY of a fetched dataset: JOB/000170012."
        ),
    ],
    tolerance: Annotated[
        int, typer.Option(min=0, max=255, help="How far a pixel's value may be off, of 255.")
    ] = 1,
    out: Annotated[
        Path | None, typer.Option("--out", help="File for the picture that is made here.")
    ] = None,
    *,
    json: AsJson = False,
) -> None:
    """Make one picture again from its row on this machine, and compare.

    Exit status 1: it is another picture.
    """
    # torch and diffusers take seconds to import: first see that there is something to make.
    place, original, theirs = _found(picture)
    from fewstep.configuration import current_settings
    from workers.repro import make_again

    done = make_again(original, theirs, current_settings(), tolerance)
    if out is not None:
        out.write_bytes(done.data)
    apart = done.difference
    facts: dict[str, Any] = {
        "key": f"{place}/{original.row['key']}",
        "verdict": done.verdict,
        "max_abs": apart.max_abs if apart else None,
        "mean_abs": apart.mean_abs if apart else None,
    }
    if json:
        unlike = {name: {"row": row, "here": here} for name, (row, here) in done.unlike.items()}
        as_json(facts | {"unlike": unlike})
    else:
        _show(facts, done.unlike)
    if not done.agrees:
        raise typer.Exit(1)


def _show(facts: dict[str, Any], unlike: dict[str, tuple[str, str]]) -> None:
    note(_SAYS[facts["verdict"]])
    pairs = dict(facts) | {
        f"other {name}": f"{row or 'none'} in the row, {here or 'none'} here"
        for name, (row, here) in unlike.items()
    }
    show_pairs(pairs.pop("key"), pairs)


def _found(picture: str) -> tuple[str, Original, bytes]:
    """Where it lies, its row with its job, and its file: of a folder, or by the API."""
    place, slash, key = picture.rpartition("/")
    if not slash or not place:
        raise InvalidInput(
            f"{picture[:60]!r} names no picture",
            where="KEY",
            remedy="JOB/KEY, such as ID/000170012; `fewstep items ID --json` has the keys",
        )
    if _JOB.fullmatch(place) and not Path(place).is_dir():
        with client_here() as client:
            original = client.original(place, key)
            made = original.row["status"] == "ok"
            return place, original, client.picture(place, original.row["image"]) if made else b""
    from jobs.original_rows import fetched_original

    return place, *fetched_original(Path(place), key)
