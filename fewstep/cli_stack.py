"""The commands of the stack: `up`, `down`, `status`, `doctor`, `restore`, `sweep`."""

import typer

from fewstep.options import AsJson, Renderers
from fewstep.report import as_json, note, show_pairs


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (up, down, status, doctor, restore, sweep):
        app.command()(command)


def up(renderers: Renderers = None, *, json: AsJson = False) -> None:
    """Start the local stack, or what is missing of it, and leave it running.

    Redis, an object store, Ray, the API and the scheduler, on loopback alone. Servers named by
    FEWSTEP_REDIS_URL or FEWSTEP_S3_ENDPOINT are used instead of own ones.
    """
    from fewstep.configuration import read_settings
    from fewstep.local import Stack
    from fewstep.stack_summary import addresses

    settings = read_settings()
    wanted = renderers_wanted(renderers)
    stack = Stack.start(settings.home, wanted, note)
    if renderers is not None and stack.state.renderers != wanted:
        note(
            f"it runs with {stack.state.renderers} renderers at most; "
            "`fewstep down` first to change that"
        )
    facts = addresses(stack)
    if json:
        as_json(facts)
    else:
        shown = ("store", "bucket", "renderers", "home")
        pairs = {"open in a browser": facts["url"]} | {name: facts[name] for name in shown}
        show_pairs("The local stack is up", pairs)


def down(*, json: AsJson = False) -> None:
    """Stop the local stack and every process of it; jobs and pictures stay."""
    from fewstep.configuration import read_settings
    from fewstep.local import Stack
    from jobs.errors import NotFound

    home = read_settings().home
    try:
        stack = Stack.attach(home)
    except NotFound:
        stopped: list[str] = []
    else:
        stopped = sorted(stack.state.processes)
        note("stopping the local stack")
        stack.stop()
    if json:
        as_json({"stopped": stopped})
    else:
        note(f"stopped: {', '.join(stopped)}" if stopped else f"no local stack is up in {home}")


def status(*, json: AsJson = False) -> None:
    """Show what runs, what is dead, who renders and what waits. Exit status 1: not all is well."""
    from fewstep.report import show_status
    from fewstep.stack_summary import status_now

    facts = status_now()
    as_json(facts) if json else show_status(facts)
    if not facts["ok"]:
        raise typer.Exit(1)


def doctor(*, json: AsJson = False) -> None:
    """Check this machine and all servers; each line says what to do. Exit status 1: it fails."""
    from fewstep.doctor import examine
    from fewstep.report import show_findings

    findings = examine()
    failed = any(finding.level == "fail" for finding in findings)
    if json:
        as_json({"ok": not failed, "checks": [finding.as_dict() for finding in findings]})
    else:
        show_findings(findings)
    if failed:
        raise typer.Exit(1)


def renderers_wanted(asked: int | None) -> int:
    """As asked, else as FEWSTEP_MAX_RENDERERS says, else what suits the machine."""
    from fewstep.configuration import read_settings
    from fewstep.devices import default_renderers
    from jobs.errors import InvalidInput

    if asked is not None:
        if not 1 <= asked <= 1024:
            raise InvalidInput(
                f"{asked} renderers will not do", where="--renderers", remedy="1 to 1024"
            )
        return asked
    settings = read_settings()
    if "max_renderers" in settings.model_fields_set:
        return settings.max_renderers
    return default_renderers()


def restore(*, json: AsJson = False) -> None:
    """Rebuild the queue from the store, after Redis has lost its memory.

    Jobs that had not ended go on where their last shard was committed.
    """
    from fewstep.configuration import current_settings
    from jobs.recover import recover_jobs
    from jobs.redis_client import check_server, control_client
    from jobs.shard_queue import ShardQueue
    from jobs.store import Store

    settings = current_settings()
    client = control_client(settings.redis_url.get_secret_value())
    check_server(client)
    store, queue = Store.connect(settings), ShardQueue(client, keep_ms=settings.keep_ms)
    back, life = [], queue.life()
    for job_id in recover_jobs(store, queue, settings.s3_prefix):
        note(f"{job_id} is back")
        back.append(job_id)
    queue.note_restored(life)
    if json:
        as_json({"restored": back})
    else:
        note(f"{len(back)} jobs were restored")


def sweep(*, json: AsJson = False) -> None:
    """Remove what deaths left in the store a day ago: staged files, cut uploads.

    The scheduler does so by itself every six hours.
    """
    import time

    from fewstep.configuration import current_settings
    from jobs.store import Store
    from jobs.sweep import sweep as sweep_store

    settings = current_settings()
    store = Store.connect(settings)
    swept = sweep_store(store, settings.s3_prefix, time.time_ns() // 1_000_000)
    if json:
        as_json(swept.model_dump())
    else:
        note(f"{swept.objects} objects and {swept.uploads} uploads were removed")
