"""The commands about jobs: `submit`, `jobs`, `show`, `watch`, `cancel`, `fetch` and their kin."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from fewstep.options import AsJson, JobOptions, Prompts, with_job_options
from fewstep.report import as_json, note
from jobs.client import Client
from jobs.client_upload import Stored
from jobs.job import JobView
from jobs.states import JobState

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, as `submit` told it.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for the dataset; made where missing.")]
State = Annotated[
    str | None,
    typer.Option(help="Only those in this state.", autocompletion=lambda: [*JobState]),
]
Key = Annotated[
    str | None, typer.Option("--key", help="Idempotency key: the same key is the same job.")
]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(with_job_options(submit))
    app.command("jobs")(list_jobs)
    for command in (show, watch, cancel, pause, resume, priority, budget, failed, fetch):
        app.command()(command)
    app.command("retry-failed")(retry_failed)


def submit(
    prompts: Prompts,
    job: JobOptions,
    key: Key = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and count, write nothing; say what it costs.")
    ] = False,
    *,
    json: AsJson = False,
) -> None:
    """Submit a job to the API and return at once."""
    from fewstep.report import show_estimate
    from fewstep.request import request_of

    request = request_of(job)
    with source_of(prompts) as source, client_here() as client:
        if dry_run:
            found = client.dry_run(request, source)
            as_json(found.model_dump()) if json else show_estimate(found)
            return
        reply = client.submit(request, source, idempotency_key=key)
    for warning in reply.warnings:
        note(f"note: {warning}")
    if json:
        as_json(reply.model_dump())
    else:
        note(f"{reply.images} images in {reply.shards} shards; follow it: fewstep watch {reply.id}")
        print(reply.id)


@contextmanager
def source_of(prompts: str) -> Iterator[Path | Stored]:
    """The prompts as the client takes them: a place in S3, or a file here."""
    from fewstep.request import prompt_file

    if prompts.startswith("s3://"):
        yield Stored(prompts)
        return
    with prompt_file(prompts) as path:
        yield path


def list_jobs(
    state: State = None,
    model: Annotated[str | None, typer.Option(help="Only those of this model.")] = None,
    name: Annotated[str | None, typer.Option(help="Only those with this in their name.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    *,
    json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    from fewstep.report import show_jobs

    with client_here() as client:
        views = client.jobs(state=state, model=model, name=name, limit=limit)
    as_json({"jobs": [view.model_dump(mode="json") for view in views]}) if json else show_jobs(
        views
    )


def show(job_id: JobId, *, json: AsJson = False) -> None:
    """Show one job: its state, progress, recipe and warnings."""
    with client_here() as client:
        view = client.job(job_id)
        _tell(view, _held_up(client, view), json=json)


def watch(job_id: JobId, *, json: AsJson = False) -> None:
    """Follow a job until it has ended. Exit status 1: it failed or was cancelled."""
    from fewstep.progress import job_bar

    with client_here() as client:
        view = client.job(job_id)
        with job_bar(view.images, lambda: client.stages(job_id)) as bar:
            for view in client.watch(job_id):
                bar(view)
        held_up = _held_up(client, view)
    _tell(view, held_up, json=json)
    if view.state not in (JobState.DONE, JobState.STOPPED):
        raise typer.Exit(1)


def cancel(
    job_id: JobId,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete what was committed too.")
    ] = False,
    *,
    json: AsJson = False,
) -> None:
    """Stop a job for good; what was committed stays, unless it is to be deleted."""
    _ask(lambda client: client.cancel(job_id, delete=delete), json=json)


def priority(
    job_id: JobId,
    number: Annotated[int, typer.Argument(metavar="N", help="0 to 9; 9 is served first.")],
    *,
    json: AsJson = False,
) -> None:
    """Serve a job earlier or later, from the next shard on."""
    _ask(lambda client: client.set_priority(job_id, number), json=json)


def budget(
    job_id: JobId,
    max_images: Annotated[
        str | None, typer.Option(metavar="N|none", help="Images that are let through.")
    ] = None,
    max_device_seconds: Annotated[
        str | None, typer.Option(metavar="S|none", help="Seconds of devices.")
    ] = None,
    deadline: Annotated[
        str | None, typer.Option(metavar="TIME|none", help="As 2026-12-01T18:00Z.")
    ] = None,
    *,
    json: AsJson = False,
) -> None:
    """Give a job other limits; one that stopped at a limit goes on where that is raised."""
    from fewstep.request import limits_of

    limits = limits_of(max_images, max_device_seconds, deadline)
    _ask(lambda client: client.set_budget(job_id, **limits), json=json)


def pause(job_id: JobId, *, json: AsJson = False) -> None:
    """Start no new shard of a job until it is resumed."""
    _ask(lambda client: client.pause(job_id), json=json)


def resume(job_id: JobId, *, json: AsJson = False) -> None:
    """Let a paused job go on."""
    _ask(lambda client: client.resume(job_id), json=json)


def failed(
    job_id: JobId,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    *,
    json: AsJson = False,
) -> None:
    """List the images of a job that have no picture, and why; also while it runs."""
    from itertools import islice

    from fewstep.report import show_failed

    with client_here() as client:
        images = list(islice(client.failed(job_id), limit))
    as_json({"id": job_id, "failed": images}) if json else show_failed(images)


def retry_failed(
    job_id: JobId,
    unfinished: Annotated[
        bool, typer.Option(help="Also what a cancelled or stopped job never rendered.")
    ] = False,
    key: Key = None,
    *,
    json: AsJson = False,
) -> None:
    """Render the images of an ended job that have no picture again, as new shards."""
    with client_here() as client:
        reply = client.retry_failed(job_id, unfinished=unfinished, idempotency_key=key)
    if json:
        as_json(reply.model_dump())
    else:
        note(f"{reply.images} images in {reply.shards} shards; follow it: fewstep watch {reply.id}")
        print(reply.id)


def fetch(job_id: JobId, out: Out, *, json: AsJson = False) -> None:
    """Copy a finished job's dataset into a folder; what is there and whole is not copied again."""
    from fewstep.fetching import check_out
    from fewstep.progress import byte_bar

    check_out(out, job_id=job_id)
    with client_here() as client:
        files = client.results(job_id)["files"]
        with byte_bar("fetching") as bar:
            copied = client.download(job_id, out, bar)
    if json:
        counts = {"files": len(files), "kept": len(files) - copied}
        facts = {"id": job_id, "out": str(out.resolve())} | counts
        as_json(facts | {"bytes": sum(file["bytes"] for file in files)})
    else:
        note(f"{len(files)} files are in {out.resolve()}")


def client_here() -> Client:
    """A client of the local stack that is up, or of FEWSTEP_API_URL."""
    from fewstep.configuration import current_settings

    settings = current_settings()
    key = settings.api_key
    return Client(settings.api_url, key=key.get_secret_value() if key else "")


def _ask(question: "Callable[[Client], JobView]", *, json: bool) -> None:
    with client_here() as client:
        _tell(question(client), json=json)


def _held_up(client: Client, view: JobView) -> str:
    """What decided a finished job's speed, and what to change; "" while there is nothing to say."""

    if view.state != JobState.DONE:
        return ""
    found = client.timing(view.id).get("bottleneck")
    return str(found["says"]) if found else ""


def _tell(view: JobView, held_up: str = "", *, json: bool) -> None:
    from fewstep.report import show_job

    as_json({**view.model_dump(mode="json"), "held_up": held_up}) if json else show_job(
        view, held_up
    )
