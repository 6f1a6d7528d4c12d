"""The commands about failures and control, against a running API, a real queue and a real store."""

import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner, Result

from fewstep.cli import app
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from tests.api_servers import RunningApi
from tests.rendered_jobs import Workshop

PROMPTS = "a red circle\na blue star\na green ring\n"


@pytest.fixture
def shop(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    """What renders and finishes the jobs of the API that the commands talk to."""
    settings = api.settings
    assert settings.s3_access_key is not None
    assert settings.s3_secret_key is not None
    for name, value in {
        "API_URL": api.url,
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "S3_ENDPOINT": settings.s3_endpoint,
        "S3_BUCKET": settings.s3_bucket,
        "S3_ACCESS_KEY": settings.s3_access_key.get_secret_value(),
        "S3_SECRET_KEY": settings.s3_secret_key.get_secret_value(),
    }.items():
        monkeypatch.setenv(f"FEWSTEP_{name}", str(value))
    assert Settings().s3_bucket == settings.s3_bucket
    store = Store.connect(settings)
    yield Workshop(ShardQueue(api.redis), store)
    store.close()


def run(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def told(*arguments: str, stdin: str = "") -> dict[str, object]:
    """What a command says as JSON; it must succeed."""
    done = run(*arguments, "--json", stdin=stdin)
    assert done.exit_code == 0, done.output
    found: dict[str, object] = json.loads(done.stdout)
    return found


def submitted(shop: Workshop, *options: str) -> str:
    return str(told("submit", "-", "--shard-images", "2", *options, stdin=PROMPTS)["id"])


def render(shop: Workshop, queue_id: str, broken: set[int]) -> None:
    shop.broken = broken
    engine = shop.record(queue_id).engine_key
    for number in range(9):
        for lease in shop.queue.claim("w", f"{queue_id}{number}", engine, 1, 60_000):
            shop.say_done(lease, shop.commit(lease))
    shop.finish()


def test_what_failed_is_listed_and_retried(shop: Workshop) -> None:
    job_id = submitted(shop)
    assert "no image failed" in run("failed", job_id).stdout
    render(shop, job_id, {1})

    listed = run("failed", job_id)
    assert "not a number" in listed.stdout
    assert "a blue star" in listed.stdout
    [one] = told("failed", job_id)["failed"]  # type: ignore[misc]
    assert (one["image"], one["error_kind"]) == (1, "nan")

    asked = run("retry-failed", job_id)
    assert asked.exit_code == 0
    assert asked.stdout.strip() == f"{job_id}-r1"
    assert told("retry-failed", job_id)["created"] is False
    render(shop, f"{job_id}-r1", set())

    assert told("show", f"{job_id}-r1")["state"] == "done"
    assert f"{job_id}-r1" in run("show", job_id).stdout
    assert told("show", job_id)["failed"] == 0
    nothing = run("retry-failed", job_id)
    assert nothing.exit_code == 4
    assert "no image of the job failed" in nothing.stderr


def test_a_stopped_job_says_why(shop: Workshop) -> None:
    job_id = submitted(shop, "--max-failed-rows", "0")
    assert "stops beyond 0" in run("show", job_id).stdout

    render(shop, job_id, {0})

    watched = run("watch", job_id)
    assert watched.exit_code == 1
    assert "1 of 3 images failed, more than the 0 that" in " ".join(watched.stdout.split())
    assert told("retry-failed", job_id, "--unfinished")["images"] == 2


def test_a_job_is_steered(shop: Workshop) -> None:
    job_id = submitted(shop)
    assert told("priority", job_id, "9")["priority"] == 9
    assert told("pause", job_id)["state"] == "paused"
    shop.queue._client.flushall()

    assert told("restore") == {"restored": [job_id]}
    assert told("restore") == {"restored": []}

    view = told("show", job_id)
    assert (view["state"], view["priority"]) == ("paused", 9)
    assert told("cancel", job_id, "--delete")["state"] == "cancelling"
    shop.finish()
    assert "was deleted" in str(told("show", job_id)["reason"])
    assert told("sweep") == {"objects": 0, "uploads": 0}
