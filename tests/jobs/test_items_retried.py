"""Images that a retry made: shown as the retry left them, with its pictures."""

import hashlib

import pytest
import redis

from jobs.items import item_page
from jobs.pictures import Pictures
from jobs.retry import retry_failed
from jobs.rows import Row
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from tests.rendered_jobs import PREFIX, TENANT, Workshop


@pytest.fixture
def shop(client: redis.Redis, store: Store) -> Workshop:
    """A queue and a store."""
    return Workshop(ShardQueue(client), store)


def test_a_retried_image_is_shown_as_it_came_out(shop: Workshop) -> None:
    job = shop.submit([Row(prompt=f"prompt {n}") for n in range(5)], repeats=2, shard_images=4)
    shop.broken = {1, 6}
    shop.render(job)
    shop.finish()
    layout = shop.layout(job)

    def states() -> list[str]:
        page = item_page(shop.store, layout, job, first=0, limit=100)
        return [item.status for item in page.items]

    before = states()
    shop.broken = {6}
    retry_failed(
        shop.store,
        shop.queue,
        prefix=PREFIX,
        tenant=TENANT,
        job_id=job.id,
        idempotency_key="key",
        now_ms=1_700_000_100_000,
    )
    shop.render(job)
    shop.finish()
    after = states()

    assert [n for n, state in enumerate(before) if state != "ok"] == [1, 6]
    assert [n for n, state in enumerate(after) if state != "ok"] == [6]
    item = item_page(shop.store, layout, job, first=1, limit=1).items[0]
    found = Pictures(shop.store).read(layout, job, 1)
    assert hashlib.sha256(found.data).hexdigest() == item.sha256
