"""`fewstep keys` and `fewstep tenants`, on a real store."""

import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner, Result

from fewstep.cli import app
from jobs.key_store import KeyStore
from jobs.keys import split_key
from jobs.store import Store
from tests.s3_servers import ACCESS, SECRET, settings_for


def run(*arguments: str) -> Result:
    """The command in this process."""
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def keys(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyStore]:
    """The keys in a bucket of our own, which the variables name."""
    settings = settings_for(moto_url)
    store = Store.connect(settings, create_bucket=True)
    for name, value in (
        ("ENDPOINT", moto_url),
        ("BUCKET", settings.s3_bucket),
        ("ACCESS_KEY", ACCESS),
        ("SECRET_KEY", SECRET),
    ):
        monkeypatch.setenv(f"FEWSTEP_S3_{name}", value)
    yield KeyStore(store, settings.s3_prefix)
    store.close()


def test_a_key_is_shown_once(keys: KeyStore) -> None:
    made = run("keys", "create", "--tenant", "ann", "--name", "laptop", "--days", "30")
    parts = split_key(made.stdout.strip())

    assert made.exit_code == 0
    assert parts is not None
    key = keys.keys()[parts[0]]
    assert key.opens_with(parts[1])
    assert (key.tenant, key.name, key.scopes) == ("ann", "laptop", ("submit", "read"))
    assert key.expires_ms == key.created_ms + 30 * 86_400_000
    listed = run("keys", "list")
    assert parts[0] in listed.stdout
    assert parts[1] not in listed.stdout + run("keys", "list", "--json").stdout


def test_a_key_is_revoked(keys: KeyStore) -> None:
    made = json.loads(run("keys", "create", "--scope", "admin", "--json").stdout)

    assert run("keys", "revoke", made["id"]).exit_code == 0
    assert "revoked" in run("keys", "list").stdout
    assert keys.keys()[made["id"]].revoked_ms is not None
    assert "sha256" not in made
    assert run("keys", "revoke", "a" * 12).exit_code == 4


def test_a_quota_is_set_and_listed(keys: KeyStore) -> None:
    assert run("tenants", "set", "ann", "--open-jobs", "3", "--weight", "2").exit_code == 0

    assert keys.quotas()["ann"].open_jobs == 3
    assert json.loads(run("tenants", "list", "--json").stdout)["tenants"]["ann"]["weight"] == 2.0


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ("keys create --tenant ../x", "--tenant"),
        ("keys create --scope root", "--scope"),
        ("tenants set ../x", "tenant"),
        ("tenants set ann --weight 0", "weight"),
    ],
)
def test_what_cannot_be_is_refused(keys: KeyStore, arguments: str, where: str) -> None:
    refused = run(*arguments.split())

    assert refused.exit_code == 2
    assert where in refused.stderr
    assert keys.keys() == {}
    assert keys.quotas() == {}
