"""The commands of the operator: keys of the API, and what each tenant may use."""

import time
from typing import Annotated

import typer

from fewstep.options import AsJson
from fewstep.report import as_json, note

Tenant = Annotated[str, typer.Option(help="Whose jobs the key sees and makes.")]
Scopes = Annotated[
    list[str] | None,
    typer.Option("--scope", help="submit, read or admin; repeatable. Default: submit and read."),
]
Title = Annotated[str, typer.Option("--name", help="A name for people to know the key by.")]
Days = Annotated[int | None, typer.Option(min=1, help="Opens nothing after so many days.")]
Rate = Annotated[int, typer.Option(min=1, help="Requests a minute.")]
KeyId = Annotated[str, typer.Argument(metavar="ID", help="The key's id: its middle part.")]
_DAY_MS = 86_400_000
SCOPE_HELP = "submit, read or admin"


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    keys = typer.Typer(no_args_is_help=True, help="API keys: make, list, revoke.")
    for name, command in (("create", create), ("list", list_keys), ("revoke", revoke)):
        keys.command(name)(command)
    app.add_typer(keys, name="keys")
    tenants = typer.Typer(no_args_is_help=True, help="What each tenant may use.")
    tenants.command("set")(set_quota)
    tenants.command("list")(list_quotas)
    app.add_typer(tenants, name="tenants")


def create(
    tenant: Tenant = "default",
    scope: Scopes = None,
    name: Title = "",
    days: Days = None,
    requests_a_minute: Rate = 600,
    *,
    json: AsJson = False,
) -> None:
    """Make a key and print it: this is the only time that it can be read."""
    from fewstep.operator_store import key_store
    from fewstep.options import checked
    from jobs.errors import InvalidInput
    from jobs.keys import SCOPES, make_key

    for one in scope or ():
        if one not in SCOPES:
            raise InvalidInput(
                f"there is no scope {one[:40]!r}", where="--scope", remedy=SCOPE_HELP
            )
    now = time.time_ns() // 1_000_000
    key, text = checked(
        make_key,
        tenant=tenant,
        scopes=tuple(scope or ("submit", "read")),
        name=name,
        now_ms=now,
        expires_ms=None if days is None else now + days * _DAY_MS,
        requests_a_minute=requests_a_minute,
    )
    with key_store() as store:
        store.add(key)
    if json:
        as_json({"key": text} | key.model_dump(exclude={"sha256"}))
    else:
        note(f"a key of tenant {tenant}, id {key.id}; keep it, it is not shown again:")
        print(text)


def list_keys(*, json: AsJson = False) -> None:
    """List keys, oldest first; their secrets are nowhere to be read."""
    from fewstep.operator_store import key_store
    from fewstep.report import show_keys

    with key_store() as store:
        found = sorted(store.keys().values(), key=lambda key: key.created_ms)
    if json:
        as_json({"keys": [key.model_dump(exclude={"sha256"}) for key in found]})
    else:
        show_keys(found)


def revoke(key_id: KeyId, *, json: AsJson = False) -> None:
    """Let a key open nothing any more, within five seconds. May be repeated."""
    from fewstep.operator_store import key_store

    with key_store() as store:
        key = store.revoke(key_id, time.time_ns() // 1_000_000)
    as_json(key.model_dump(exclude={"sha256"})) if json else note(f"{key_id} is revoked")


def set_quota(
    tenant: Annotated[str, typer.Argument(help="The tenant.")],
    open_jobs: Annotated[int, typer.Option(help="Jobs that have not ended.")] = 1_000,
    images_a_day: Annotated[
        int | None, typer.Option(help="From midnight to midnight (UTC). Default: any number.")
    ] = None,
    shards_in_flight: Annotated[int, typer.Option(help="At once; 0: any number.")] = 0,
    weight: Annotated[float, typer.Option(help="Its share of the devices, beside others'.")] = 1.0,
    *,
    json: AsJson = False,
) -> None:
    """Set what a tenant may use; share and shards in flight hold from its next job on."""
    from fewstep.operator_store import key_store
    from jobs.key_store import checked_quota

    quota = checked_quota(
        open_jobs=open_jobs,
        images_a_day=images_a_day,
        shards_in_flight=shards_in_flight,
        weight=weight,
    )
    with key_store() as store:
        store.set_quota(tenant, quota)
    as_json({"tenant": tenant} | quota.model_dump()) if json else note(f"set for {tenant}")


def list_quotas(*, json: AsJson = False) -> None:
    """List the quotas that were set; every other tenant has the defaults."""
    from fewstep.operator_store import key_store
    from fewstep.report import show_pairs

    with key_store() as store:
        found = {tenant: quota.model_dump() for tenant, quota in store.quotas().items()}
    if json:
        as_json({"tenants": found})
    else:
        show_pairs("Quotas", {name: _line(quota) for name, quota in found.items()})


def _line(quota: dict[str, object]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in quota.items())
