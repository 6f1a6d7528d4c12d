"""`fewstep distill`: a few-step adapter for a base of the user's own, learned from its pictures."""

import json as json_module
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from fewstep.options import AsJson, Height, Model, Vae, Width, checked
from fewstep.report import as_json, note, show_pairs
from jobs.errors import Conflict

Data = Annotated[
    list[str],
    typer.Argument(
        metavar="DATA...", help="Folders or s3:// prefixes with WebDataset tars; or single tars."
    ),
]
Name = Annotated[str, typer.Option(help="The adapter's name in the registry: a-z, 0-9, -.")]
Out = Annotated[str, typer.Option(help="Folder or s3://bucket/prefix for the adapter.")]
Steps = Annotated[int, typer.Option(help="Training steps.")]
Batch = Annotated[int, typer.Option(help="Pictures a step, on each process.")]
Processes = Annotated[int, typer.Option(help="Processes: each takes a GPU, or a core.")]
Rank = Annotated[int, typer.Option(help="Rank of the LoRA.")]
Alpha = Annotated[int | None, typer.Option(help="Scale is alpha/rank; by default 1.")]
Target = Annotated[
    list[str] | None,
    typer.Option(help="UNet modules by the end of their names, e.g. to_q. Repeatable; else all."),
]
Solver = Annotated[int, typer.Option(help="DDIM steps of the whole path; skips k = 1000 / this.")]
WMin = Annotated[float, typer.Option(help="Least guidance w that is learned (scale is w + 1).")]
WMax = Annotated[float, typer.Option(help="Most guidance w that is learned.")]
WFall = Annotated[float, typer.Option(help="Share of w that is gone at the path's end.")]
Loss = Annotated[str, typer.Option(help="huber or l2.")]
HuberC = Annotated[float, typer.Option(help="c of the pseudo-Huber loss.")]
Ema = Annotated[float, typer.Option(help="Decay of the averaged target, e.g. 0.95; 0: none.")]
Rate = Annotated[float, typer.Option("--learning-rate", help="Of AdamW.")]
Warm = Annotated[int, typer.Option(help="Steps until the learning rate is reached.")]
Precision = Annotated[str, typer.Option(help="Of the UNet: float32, bfloat16 or float16.")]
Checkpointing = Annotated[
    bool, typer.Option("--gradient-checkpointing", help="Less memory, a third more time.")
]
HeldOut = Annotated[float, typer.Option(help="Share of the pictures kept for the test.")]
SaveEvery = Annotated[int, typer.Option(help="Steps between checkpoints.")]
SampleEvery = Annotated[int, typer.Option(help="Steps between samples.")]
Seed = Annotated[int, typer.Option(help="Of order, noise, times and w.")]


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(distill)


def distill(
    data: Data,
    name: Name,
    out: Out,
    *,
    model: Model = "tiny",
    vae: Vae = None,
    width: Width = None,
    height: Height = None,
    steps: Steps = 1000,
    batch: Batch = 12,
    processes: Processes = 1,
    rank: Rank = 64,
    alpha: Alpha = None,
    target: Target = None,
    solver_steps: Solver = 50,
    w_min: WMin = 3.0,
    w_max: WMax = 15.0,
    w_fall: WFall = 0.0,
    loss: Loss = "huber",
    huber_c: HuberC = 1e-3,
    ema: Ema = 0.0,
    learning_rate: Rate = 1e-4,
    warm_steps: Warm = 20,
    precision: Precision = "float32",
    gradient_checkpointing: Checkpointing = False,
    held_out: HeldOut = 0.05,
    save_every: SaveEvery = 100,
    sample_every: SampleEvery = 200,
    seed: Seed = 0,
    json: AsJson = False,
) -> None:
    """Distil an LCM-LoRA from captioned pictures, for `fewstep render --accelerator NAME`.

    Stopped or killed, the same command goes on from the last checkpoint in --out.
    """
    given = dict(locals())
    as_given = given.pop("json")
    renamed = {"steps": "total_steps", "seed": "train_seed", "target": "targets"}
    fields = {renamed.get(key, key): value for key, value in given.items()}
    fields["targets"], fields["data"] = tuple(target or ()), tuple(map(_absolute, data))
    fields["out"] = _absolute(out)
    result = _run(fields)
    if as_given:
        as_json(result)
    else:
        _show(result)


def _absolute(place: str) -> str:
    """Processes of a cluster run in other folders than this one."""
    return place if "://" in place else str(Path(place).absolute())


def _run(fields: dict[str, Any]) -> dict[str, Any]:
    """Check everything, then train on the cluster, or on a private Ray."""
    from fewstep.configuration import current_settings
    from jobs.captioned import captioned
    from jobs.catalog import load_catalog
    from jobs.distillation import Distillation, DistillRequest, accept
    from jobs.places import check_writable

    settings = current_settings()
    catalog = load_catalog(settings.catalog, allow_noncommercial=settings.allow_noncommercial)
    plan: Distillation = accept(checked(DistillRequest, **fields), catalog)
    found = captioned(plan.data, plan.recipe.width, plan.recipe.height, settings)
    for reason, count in found.left_out.items():
        note(f"note: {count} samples {reason} are left out")
    note(f"{len(found.pictures)} captioned pictures")
    plan = plan.model_copy(update={"pictures_sha256": found.sha256})
    place = check_writable(plan.out, settings)
    ended = _begin(plan, place)
    return ended or _train(plan, settings)


def _begin(plan: Any, place: Any) -> dict[str, Any] | None:
    """Note the plan in its place; the result of a run that has ended there. Raises Conflict."""
    from jobs.distillation import Distillation

    before = place.read("plan.json")
    if before is None:
        if place.names():
            raise Conflict(
                "there are other files", where=plan.out, remedy="choose an empty place for --out"
            )
        place.write("plan.json", plan.model_dump_json(indent=1).encode())
        return None
    begun = Distillation.model_validate_json(before)
    if not begun.same_pictures(plan):
        raise Conflict(
            "the distillation there was begun with other pictures or captions",
            where=f"{plan.out}/plan.json",
            remedy="choose another --out, or give the pictures that it was begun with to go on",
        )
    if begun.identity != plan.identity:
        raise Conflict(
            "another distillation was begun there",
            where=f"{plan.out}/plan.json",
            remedy="choose another --out, or give the options of plan.json to go on",
        )
    result = place.read("distillation.json")
    if result is None:
        note("going on from the last checkpoint there")
        return None
    note("it has ended already: nothing was done")
    found: dict[str, Any] = json_module.loads(result)
    return found


def _train(plan: Any, settings: Any) -> dict[str, Any]:
    from fewstep.private_stack import private_stack

    with (
        private_stack(plan.processes, note, parts=("ray",)) as stack,
        tempfile.TemporaryDirectory(dir=stack.home) as folder,
    ):
        file = Path(folder) / "plan.json"
        file.write_text(plan.model_dump_json(), "utf-8")
        done = subprocess.run(
            [sys.executable, "-P", "-m", "scheduler.distill", str(file), folder],
            env=_environment(stack.env, settings),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        note("stopping")
    if done.returncode:
        raise typer.Exit(done.returncode)
    result: dict[str, Any] = json_module.loads(done.stdout.strip().splitlines()[-1])
    return result


def _environment(stack: dict[str, str], settings: Any) -> dict[str, str]:
    """The stack's environment with the store of the settings: this stack has none of its own."""
    from jobs.settings import s3_secrets

    access, secret = s3_secrets(settings)
    store = {
        "FEWSTEP_S3_ENDPOINT": settings.s3_endpoint,
        "FEWSTEP_S3_BUCKET": settings.s3_bucket,
        "FEWSTEP_S3_REGION": settings.s3_region,
        "FEWSTEP_S3_ACCESS_KEY": access,
        "FEWSTEP_S3_SECRET_KEY": secret,
        "FEWSTEP_CACHE": str(settings.cache),
        # Gloo otherwise listens on the machine's outer address.
        "GLOO_SOCKET_IFNAME": "lo" if stack.get("RAY_TMPDIR") else None,
        "RAY_TRAIN_METRICS_ENABLED": "0",
    }
    rest = {key: value for key, value in stack.items() if key not in store}
    return rest | {key: value for key, value in store.items() if value is not None}


def _show(result: dict[str, Any]) -> None:
    first, last = result["held_out_loss"][0], result["held_out_loss"][-1]
    show_pairs(
        "Distilled",
        {
            "adapter": f"{result['out']}/pytorch_lora_weights.safetensors",
            "steps": f"{result['steps']}, {result['seconds']:.0f} s, "
            f"{result['pictures_per_second']:.2f} pictures/s",
            "held-out loss": f"{first[1]:.5f} before, {last[1]:.5f} after",
            "trained": f"{result['trainable_parameters']:,} parameters in {result['modules']} "
            f"modules; at most {result['peak_bytes'] / 1e9:.2f} GB",
            **({"judge": result["judge"]} if result["judge"] else {}),
            "use it": f"FEWSTEP_CATALOG={result['out']}/accelerator.toml fewstep render "
            f"PROMPTS --accelerator {result['name']} --out FOLDER",
        },
    )
