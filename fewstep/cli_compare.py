"""`fewstep compare`: few steps beside many, on the user's own model, as a table and a page."""

from pathlib import Path
from typing import Annotated

import typer

from fewstep.options import AsJson, Renderers

PlanFile = Annotated[
    Path | None,
    typer.Argument(metavar="[PLAN]", help="TOML with the rows; by default the paper's table."),
]
Model = Annotated[str, typer.Option(help="Base model, by its name in the catalog.")]
PromptFile = Annotated[
    Path | None,
    typer.Option(
        "--prompts", help=".txt or .jsonl. For the tiny model they are drawn if left out."
    ),
]
Images = Annotated[int, typer.Option(help="Prompts to draw, where no file is given.")]
Repeats = Annotated[int, typer.Option(help="Images of each prompt.")]
Seed = Annotated[int, typer.Option(help="The same for every row.")]
Truth = Annotated[
    Path | None,
    typer.Option(help="Folder of true pictures, for the Frechet distance of a real model."),
]
Out = Annotated[Path, typer.Option("--out", help="Folder for table and page; new or empty.")]
Keep = Annotated[bool, typer.Option("--keep", help="Keep the rows' datasets in the folder.")]


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(compare)


def compare(
    plan: PlanFile = None,
    *,
    out: Out,
    model: Model = "tiny",
    prompts: PromptFile = None,
    images: Images = 200,
    repeats: Repeats = 1,
    seed: Seed = 7,
    truth: Truth = None,
    renderers: Renderers = None,
    keep: Keep = False,
    json: AsJson = False,
) -> None:
    """Render the same prompts and seeds in many ways, and measure how good and how fast each is.

    The rows run as jobs, one after the other, on the stack that is up or that FEWSTEP_API_URL
    names, else on one of its own. --out gets compare.json, compare.md and compare.html.
    """
    from fewstep.compare import Wanted, compare_rows
    from fewstep.report import as_json

    wanted = Wanted(plan, model, prompts, images, repeats, seed, truth, out, keep)
    found = compare_rows(wanted, renderers)
    if json:
        as_json(found.as_json())
    else:
        print((out / "compare.md").read_text("utf-8"))
