"""The commands about the API itself: `health`, `cluster`, and its webhooks."""

from typing import Annotated

import typer

from fewstep.cli_jobs import client_here
from fewstep.options import AsJson
from fewstep.report import as_json, clock, note, show_pairs, show_table

HookId = Annotated[str, typer.Argument(metavar="ID", help="The webhook's id.")]
State = Annotated[
    str | None,
    typer.Option(
        help="waiting, delivered or dead.",
        autocompletion=lambda: ["waiting", "delivered", "dead"],
    ),
]
Events = Annotated[
    list[str] | None,
    typer.Option("--event", help="job.started, job.completed, ...; repeatable. Default: of jobs."),
]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (health, cluster):
        app.command()(command)
    hooks = typer.Typer(no_args_is_help=True, help="Who is told of what happens to your jobs.")
    for name, hook_command in (
        ("add", add_hook),
        ("list", list_hooks),
        ("delete", delete_hook),
        ("deliveries", deliveries),
    ):
        hooks.command(name)(hook_command)
    app.add_typer(hooks, name="webhooks")


def health(*, json: AsJson = False) -> None:
    """Ask the API whether Redis and the store answer. Exit status 3: one does not."""
    with client_here() as client:
        found = client.health()
        where = client.url
    as_json(found) if json else show_pairs(where, found["checks"])


def cluster(*, json: AsJson = False) -> None:
    """Show who renders, what waits for each engine, and whether a scheduler lives.

    Takes a key with the scope admin, because it shows all tenants' work.
    """
    with client_here() as client:
        found = client.cluster()
        where = client.url
    if json:
        as_json(found)
        return
    age = found["scheduler_age_ms"]
    show_pairs(where, {"scheduler seen": "never" if age is None else f"{age / 1000:.1f} s ago"})
    columns = ("engine_key", "state", "device", "node", "images")
    rows = [[one["info"].get(name, "") for name in columns] for one in found["renderers"]]
    show_table(("engine", *columns[1:]), rows)
    waits = ("engine_key", "jobs", "images_waiting", "shards_running")
    rows = [[str(one[name]) for name in waits] for one in found["backlog"]]
    show_table(("engine", "jobs", "images waiting", "shards running"), rows)


def add_hook(
    url: Annotated[str, typer.Argument(help="Where to send: https, and no private address.")],
    event: Events = None,
    *,
    json: AsJson = False,
) -> None:
    """Add a webhook and print its secret: this is the only time that it can be read."""
    with client_here() as client:
        hook = client.add_webhook(url, event or ())
    if json:
        as_json(hook)
    else:
        note(f"webhook {hook['id']}; keep its secret, it is not shown again:")
        print(hook["secret"])


def list_hooks(*, json: AsJson = False) -> None:
    """List webhooks, oldest first; their secrets are nowhere to be read."""
    with client_here() as client:
        found = client.webhooks()
    if json:
        as_json({"webhooks": found})
        return
    rows = [(one["id"], one["url"], " ".join(one["events"])) for one in found]
    show_table(("id", "url", "events"), rows)


def delete_hook(webhook_id: HookId, *, json: AsJson = False) -> None:
    """Send nothing more there."""
    with client_here() as client:
        hook = client.delete_webhook(webhook_id)
    as_json(hook) if json else note(f"{webhook_id} is deleted")


def deliveries(
    state: State = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many at most.")] = 100,
    *,
    json: AsJson = False,
) -> None:
    """List the messages of the last seven days, newest first, and what became of each."""
    with client_here() as client:
        found = client.deliveries(state=state, limit=limit)
    if json:
        as_json({"deliveries": found})
        return
    columns = ("made", "hook", "kind", "state", "attempts", "news")
    rows = [[clock(one["made_ms"]), *(str(one[name]) for name in columns[1:])] for one in found]
    show_table(columns, rows)
