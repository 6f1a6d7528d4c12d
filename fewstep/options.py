"""The options that make a job: `render` and `submit` share them to the letter."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import typer

from jobs.errors import InvalidInput

Value = TypeVar("Value")

Model = Annotated[str, typer.Option(help="Base model, by its name in the catalog.")]
Accelerator = Annotated[
    list[str] | None,
    typer.Option(help="Few-step adapter; by default the model's own. 'none': the bare teacher."),
]
Sampler = Annotated[
    str | None,
    typer.Option(help="lcm, tcd, ddim, dpm, dpmpp or euler; an accelerator brings its own."),
]
Eta = Annotated[
    float | None, typer.Option(help="Of TCD: how much of each step is fresh noise, 0 to 1.")
]
Vae = Annotated[
    str | None, typer.Option(help="Another autoencoder, by its name in the catalog; 'own': none.")
]
Precision = Annotated[
    str | None, typer.Option("--dtype", help="float32, float16 or bfloat16; else the model's own.")
]
Style = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=WEIGHT", help="Mix in a style LoRA, e.g. outline=0.8. Repeatable."),
]
Steps = Annotated[int | None, typer.Option(help="Sampling steps, as the accelerator allows.")]
Guidance = Annotated[
    float | None, typer.Option(help="Guidance scale; at 1 or below it is off (one UNet call).")
]
Width = Annotated[int | None, typer.Option(help="Pixels; by default the model's own.")]
Height = Annotated[int | None, typer.Option(help="Pixels; by default the model's own.")]
Repeats = Annotated[int, typer.Option(help="Images of each prompt.")]
Seed = Annotated[
    int | None, typer.Option(help="Fixes every image's seed; by default one is drawn and noted.")
]
Format = Annotated[str, typer.Option(help="png, jpeg or webp.")]
Quality = Annotated[int, typer.Option(help="Of JPEG and WebP, 1 to 100 (WebP: 100 is lossless).")]
Output = Annotated[
    str,
    typer.Option(
        help="webdataset; and once more: objects (images/), imagefolder, or parquet with pictures."
    ),
]
Validation = Annotated[
    float,
    typer.Option(help="Of imagefolder and parquet: share of the prompts that are for validation."),
]
Thumbnails = Annotated[
    int | None,
    typer.Option(help="Of imagefolder and parquet: small pictures too, of so many pixels at most."),
]
ShardImages = Annotated[
    int | None, typer.Option(help="Images in one shard; by default about sixteen shards.")
]
Priority = Annotated[int, typer.Option(help="0 to 9; 9 is served first.")]
MaxFailed = Annotated[
    str | None,
    typer.Option(
        "--max-failed-rows",
        metavar="N|SHARE",
        help="Stop when more images fail: a number, or a share as 0.05. Default: half, at least "
        "1,000.",
    ),
]
MaxImages = Annotated[
    int | None, typer.Option(help="Stop after so many images; `fewstep budget` raises it.")
]
MaxDeviceSeconds = Annotated[
    float | None, typer.Option(help="Stop when devices have worked for so many seconds.")
]
Deadline = Annotated[
    str | None, typer.Option(metavar="TIME", help="Stop then, e.g. 2026-12-01T18:00Z.")
]
FilterBy = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="NAME[>=X|<=X][:POLICY]",
        help="Score every picture, e.g. 'prompt_agreement>=0.8:retry'; keep (and mark), drop or "
        "retry those that miss the limit. Repeatable.",
    ),
]
Accept = Annotated[
    int | None,
    typer.Option(help="So many pictures of each prompt that pass all filters of the policy retry."),
]
MaxTries = Annotated[int, typer.Option(help="With retry: pictures made of one image at most.")]
Expand = Annotated[
    str | None,
    typer.Option(
        metavar="MODE",
        help="The prompts are templates: combinatorial, sampled or balanced rows of each.",
    ),
]
ExpandCount = Annotated[
    int | None, typer.Option(help="With --expand: rows of each template; by default all.")
]
ExpandSeed = Annotated[int, typer.Option(help="With --expand sampled: other draws.")]
ValueList = Annotated[
    list[str] | None,
    typer.Option(
        "--list", metavar="NAME=FILE", help="With --expand: a list of values. Repeatable."
    ),
]
Column = Annotated[
    list[str] | None,
    typer.Option(
        metavar="OURS=THEIRS",
        help="Which column of the prompts is what: prompt=caption, seed=id. Repeatable.",
    ),
]
Drop = Annotated[
    list[str] | None, typer.Option(metavar="COLUMN", help="A column not to read. Repeatable.")
]
BadRows = Annotated[
    str, typer.Option(help="refuse, or quarantine: leave out rows that cannot be rendered.")
]
Title = Annotated[str, typer.Option("--name", help="A name for people to know the job by.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="One JSON object on standard output; progress elsewhere.")
]
Renderers = Annotated[
    int | None,
    typer.Option(help="Renderers at most; by default one a GPU, or one a core up to four."),
]
Prompts = Annotated[
    str,
    typer.Argument(
        metavar="PROMPTS",
        help=".txt (a prompt a line), .jsonl, .csv, .tsv, .parquet, .tar (captions), a folder of "
        "these, a saved Hugging Face dataset, or .toml (a template); - is stdin.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What the options said; checked when `request` is made of it."""

    model: str
    accelerator: list[str] | None
    style: list[str] | None
    sampler: str | None
    eta: float | None
    vae: str | None
    dtype: str | None
    steps: int | None
    guidance: float | None
    width: int | None
    height: int | None
    repeats: int
    seed: int | None
    format: str
    quality: int
    output: str
    validation: float
    thumbnails: int | None
    shard_images: int | None
    priority: int
    max_failed_rows: str | None
    max_images: int | None
    max_device_seconds: float | None
    deadline: str | None
    filter: list[str] | None
    accept: int | None
    max_tries: int
    column: list[str] | None
    drop: list[str] | None
    bad_rows: str
    expand: str | None
    expand_count: int | None
    expand_seed: int
    list: list[str] | None
    name: str


def job_options(
    *,
    model: Model = "tiny",
    accelerator: Accelerator = None,
    style: Style = None,
    sampler: Sampler = None,
    eta: Eta = None,
    vae: Vae = None,
    dtype: Precision = None,
    steps: Steps = None,
    guidance: Guidance = None,
    width: Width = None,
    height: Height = None,
    repeats: Repeats = 1,
    seed: Seed = None,
    format: Format = "png",  # noqa: A002 - the option's name
    quality: Quality = 95,
    output: Output = "webdataset",
    validation: Validation = 0.0,
    thumbnails: Thumbnails = None,
    shard_images: ShardImages = None,
    priority: Priority = 4,
    max_failed_rows: MaxFailed = None,
    max_images: MaxImages = None,
    max_device_seconds: MaxDeviceSeconds = None,
    deadline: Deadline = None,
    filter: FilterBy = None,  # noqa: A002 - the option's name
    accept: Accept = None,
    max_tries: MaxTries = 4,
    column: Column = None,
    drop: Drop = None,
    bad_rows: BadRows = "refuse",
    expand: Expand = None,
    expand_count: ExpandCount = None,
    expand_seed: ExpandSeed = 0,
    list: ValueList = None,  # noqa: A002 - the option's name
    name: Title = "",
) -> JobOptions:
    """The options as one value; its signature is what the command line shows."""
    return JobOptions(**locals())


def with_job_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameter `job` stands for all of `job_options`'s own."""
    own = inspect.signature(command).parameters
    shared = inspect.signature(job_options).parameters

    @functools.wraps(command)
    def spread(**given: Any) -> None:
        job = job_options(**{name: given.pop(name) for name in shared})
        command(job=job, **given)

    parameters = [
        part.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, one in own.items()
        for part in (shared.values() if name == "job" else (one,))
    ]
    spread.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    spread.__annotations__ = {part.name: part.annotation for part in parameters}
    return spread


def checked(kind: Callable[..., Value], **fields: object) -> Value:
    """A value of `kind`; raises InvalidInput naming the first field that is wrong."""
    from pydantic import ValidationError

    try:
        return kind(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(
            f"{str(first['input'])[:80]!r} will not do",
            where=f"--{field.replace('_', '-')}",
            remedy=first["msg"][:1].lower() + first["msg"][1:],
        ) from error


def accelerator_of(given: list[str] | None) -> str | None:
    """The one accelerator; raises InvalidInput where there are several."""
    if given and len(given) > 1:
        raise InvalidInput(
            f"two accelerators at once: {', '.join(given)}"[:200],
            where="--accelerator",
            remedy="a recipe has one; mix in styles with --style",
        )
    return given[0] if given else None


def styles_of(given: list[str] | None) -> tuple[tuple[str, float | None], ...]:
    """`NAME=WEIGHT` pairs; a name alone has the weight of the catalog. Raises InvalidInput."""
    found = []
    for text in given or ():
        name, _, weight = text.partition("=")
        try:
            found.append((name, float(weight) if weight else None))
        except ValueError as error:
            raise InvalidInput(
                f"{text[:80]!r} is no style with a weight",
                where="--style",
                remedy="give NAME=WEIGHT, e.g. outline=0.8",
            ) from error
    return tuple(found)


def limit_of(given: str | None) -> int | float | str | None:
    """`100` as a number, `0.05` as a share; anything else is left for the request to refuse."""
    if given is None or given.removeprefix("-").isdigit():
        return given and int(given)
    try:
        return float(given)
    except ValueError:
        return given
