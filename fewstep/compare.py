"""A comparison from its plan to its page: check, render, score, write."""

import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyarrow import parquet

from fewstep.cli_stack import renderers_wanted
from fewstep.compare_page import page
from fewstep.compare_pictures import beside
from fewstep.compare_rows import Rendered, check_rows, render_rows
from fewstep.compare_table import Comparison, Line, markdown
from fewstep.configuration import current_settings, read_settings
from fewstep.fetching import check_out
from fewstep.options import checked
from fewstep.private_stack import private_stack
from fewstep.report import note, printed
from fewstep.request import count_rows, prompt_file
from fewstep.stack_state import load_state
from jobs.catalog import load_catalog
from jobs.client import Client
from jobs.comparison import Row, read_plan
from jobs.errors import InvalidInput
from jobs.job import JobRequest
from jobs.layout import SPLIT
from workers.scores import Sample, Scorer, features_of, score


@dataclass(frozen=True)
class Wanted:
    """What the command line said."""

    plan: Path | None
    model: str
    prompts: Path | None
    images: int
    repeats: int
    seed: int
    truth: Path | None
    out: Path
    keep: bool


def compare_rows(wanted: Wanted, renderers: int | None) -> Comparison:
    """Measure every row and write the three files; raises before any work where it cannot."""
    plan = read_plan(wanted.plan)
    rows = plan.spread(wanted.model)
    architecture = _architecture(wanted.model, rows)
    request = checked(JobRequest, seed=wanted.seed, repeats=wanted.repeats)
    at_most = renderers_wanted(renderers)
    check_out(wanted.out)
    with _prompts(wanted, architecture) as prompts:
        scorer = _scorer(architecture, wanted.truth)
        with _connected(at_most) as (client, check):
            check_rows(client, rows, request, prompts)
            datasets = wanted.out / "datasets"
            rendered = render_rows(client, rows, request, prompts, datasets, check)
    note("scoring")
    lines = _scored(scorer, rendered, plan.reference)
    found = Comparison(_facts(wanted, rendered), scorer, lines, plan.reference)
    (wanted.out / "compare.json").write_text(printed(found.as_json()), "utf-8")
    (wanted.out / "compare.md").write_text(markdown(found), "utf-8")
    (wanted.out / "compare.html").write_text(page(found), "utf-8")
    if not wanted.keep:
        shutil.rmtree(datasets)
    return found


def _architecture(model: str, rows: Sequence[Row]) -> str:
    """The base's architecture; every row is checked against this machine's catalog on the way."""
    settings = read_settings()
    catalog = load_catalog(settings.catalog, allow_noncommercial=settings.allow_noncommercial)
    found = ""
    for row in rows:
        try:
            found = catalog.resolve(row.recipe).architecture
        except InvalidInput as error:
            raise InvalidInput(
                f"the row {row.name!r} will not do: {error.message}",
                where=model,
                remedy=error.remedy,
            ) from error
    return found


@contextmanager
def _prompts(wanted: Wanted, architecture: str) -> Iterator[Path]:
    """The prompts as a file whose rows have been read and checked."""
    if wanted.prompts is not None:
        with prompt_file(str(wanted.prompts)) as path:
            count_rows(path)
            yield path
        return
    if architecture != "tiny":
        raise InvalidInput(
            "prompts are drawn for the tiny model alone",
            where="--prompts",
            remedy="give a file of prompts that your model knows, a line each",
        )
    if not 2 <= wanted.images <= 100_000:
        raise InvalidInput(
            f"{wanted.images} prompts will not do", where="--images", remedy="2 to 100,000"
        )
    from workers.tiny.scorer import drawn_prompts

    with tempfile.TemporaryDirectory(prefix="fewstep-compare-") as folder:
        path = Path(folder) / "prompts.txt"
        path.write_text("\n".join(drawn_prompts(wanted.images)) + "\n", "utf-8")
        yield path


def _scorer(architecture: str, truth: Path | None) -> Scorer:
    if architecture == "tiny":
        from workers.tiny.scorer import TinyScorer

        return TinyScorer()
    from workers.library_scorer import LibraryScorer

    return LibraryScorer(truth)


@contextmanager
def _connected(renderers: int) -> Iterator[tuple[Client, Callable[[], None]]]:
    """A client of the API that is there, or of a stack of our own; and how to see that it lives."""
    settings = current_settings()
    if "api_url" in settings.model_fields_set or load_state(settings.home) is not None:
        key = settings.api_key
        with Client(settings.api_url, key=key.get_secret_value() if key else "") as client:
            yield client, lambda: None
        return
    with private_stack(renderers, note) as stack:
        with Client(stack.settings.api_url) as client:
            yield client, stack.check
        note("stopping")


def _scored(scorer: Scorer, rendered: Sequence[Rendered], reference: int) -> tuple[Line, ...]:
    goal = rendered[reference].folder
    features = None
    if scorer.truth is None:
        features = features_of(scorer, _samples(goal, None))
    return tuple(Line(one, score(scorer, _samples(one.folder, goal), features)) for one in rendered)


def _samples(dataset: Path, reference: Path | None) -> Iterator[Sample]:
    for one, other in beside(dataset, reference):
        yield Sample(one.prompt, one.pixels, other)


def _facts(wanted: Wanted, rendered: Sequence[Rendered]) -> dict[str, str]:
    """What the figures were measured with, from the first picture's own row."""
    tables = sorted((rendered[0].folder / SPLIT).glob("*.parquet"))
    columns = ["device", "torch", "diffusers", "fewstep", "dtype", "width", "height"]
    [first] = parquet.read_table(tables[0], columns=columns).slice(0, 1).to_pylist()
    return {
        "command": f"fewstep {shlex.join(sys.argv[1:])}",
        "model": wanted.model,
        "images a row": str(rendered[0].timing["images"]),
        "seed": str(wanted.seed),
        "size": f"{first['width']}x{first['height']}",
        "dtype": str(first["dtype"]),
        "device": str(first["device"]),
        "libraries": f"torch {first['torch']}, diffusers {first['diffusers']}",
        "fewstep": str(first["fewstep"]),
    }
