"""`fewstep render`: prompts in, a dataset in a folder out, and nothing else left behind."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from fewstep.local import Stack
from fewstep.options import AsJson, JobOptions, Prompts, Renderers, with_job_options
from fewstep.report import as_json, note
from jobs.client import Client
from jobs.errors import RenderFailed
from jobs.job import JobRequest, JobView
from jobs.states import JobState

Out = Annotated[Path, typer.Option("--out", help="Folder for the dataset; new or empty.")]


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(with_job_options(render))


def render(
    prompts: Prompts,
    out: Out,
    job: JobOptions,
    renderers: Renderers = None,
    *,
    json: AsJson = False,
) -> None:
    """Render a prompt file on this machine: start all it needs, render, fetch, stop.

    The dataset lies at the root of --out afterwards, and no process is left behind.
    """
    from fewstep.cli_stack import renderers_wanted
    from fewstep.private_stack import private_stack
    from fewstep.report import show_render
    from fewstep.request import prompt_file, request_of

    request = request_of(job)
    wanted = renderers_wanted(renderers)
    with prompt_file(prompts) as path:
        images = _check(request, path)
        with _folder(out):
            note(f"{images} images to render with up to {wanted} renderers")
            with private_stack(wanted, note) as stack:
                facts = _render(stack, request, path, out)
                note("stopping")
    as_json(facts) if json else show_render(facts)


def _check(request: JobRequest, path: Path) -> int:
    """How many images these are; raises InvalidInput before any server is started."""
    from fewstep.configuration import read_settings
    from fewstep.request import count_rows
    from jobs.catalog import load_catalog
    from jobs.submit import check_deadline, resolve_request

    check_deadline(request, time.time_ns() // 1_000_000)
    settings = read_settings()
    catalog = load_catalog(settings.catalog, allow_noncommercial=settings.allow_noncommercial)
    recipes, _ = resolve_request(catalog, request)
    return request.images_of(count_rows(path, request, recipes.check) * request.per_row)


@contextmanager
def _folder(out: Path) -> Iterator[None]:
    """The folder for the dataset; one that was made in vain is removed again."""
    from fewstep.fetching import check_out

    was_there = out.exists()
    check_out(out)
    try:
        yield
    finally:
        if not was_there and not any(out.iterdir()):
            out.rmdir()


def _render(stack: Stack, request: JobRequest, path: Path, out: Path) -> dict[str, Any]:
    from fewstep.fetching import count_cut_prompts, fetch_job
    from fewstep.following import follow

    with Client(stack.settings.api_url) as client:
        submission = client.submit(request, path)
        for warning in submission.warnings:
            note(f"note: {warning}")
        note(f"watch it in a browser: {stack.settings.api_url}/jobs/{submission.id}")
        view = follow(client, submission.id, stack.check)
        _check_end(view)
        timing = client.timing(view.id)
    fetch_job(stack.settings, view, out)
    return {
        "id": view.id,
        "images": view.images,
        "failed": view.failed,
        "images_per_second": timing.get("images_per_second", view.images_per_second),
        "stages": timing.get("stages", {}),
        "bottleneck": timing.get("bottleneck"),
        "tokens_lost": count_cut_prompts(out),
        "out": str(out.resolve()),
    }


def _check_end(view: JobView) -> None:

    if view.state == JobState.STOPPED:
        # The stack ends with this command: nothing is left that could go on.
        note(view.reason.partition(" `fewstep budget")[0])
    elif view.state != JobState.DONE:
        raise RenderFailed(
            f"the job {view.state}: {view.reason or 'no reason was given'}",
            where=view.id,
            remedy=f"{view.done} of {view.images} images were made",
        )
