"""Images of later rounds: shown as a retry left them, with its pictures, and by themselves."""

import hashlib
from collections.abc import Iterator

import httpx
import pytest
import redis

from jobs import items, pictures
from jobs.errors import NotFound
from jobs.items import item_page, manifest_keys
from jobs.layout import JobLayout
from jobs.pictures import Pictures
from jobs.retry import retry_failed
from jobs.rows import Row
from jobs.shard_queue import ShardQueue
from jobs.store import ObjectInfo, Store
from tests.api_calls import submit
from tests.api_renderer import finish_dataset, render_shards
from tests.api_servers import RunningApi
from tests.rendered_jobs import PREFIX, TENANT, Workshop


@pytest.fixture
def shop(client: redis.Redis, store: Store) -> Workshop:
    """A queue and a store."""
    return Workshop(ShardQueue(client), store)


@pytest.mark.parametrize("first", [0, 16_998, 99_998, 99_999, 169_999])
def test_manifests_of_many_shards_cost_one_listing(
    store: Store, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    """Names sort as numbers among those of one length: 17000, 170000, 17001."""
    layout = JobLayout(prefix=PREFIX, tenant=TENANT, job_id="a" * 26)
    shards = [0, 1, 2, 16_998, 16_999, 17_000, 17_001, 99_998, 99_999, 100_000, 100_001]
    shards += [169_999, 170_000, 170_001, 170_009]
    names = [f"{shard:05d}{end}" for shard in shards for end in ("_stats.json", ".tar")]
    for name in [*names, "17000-170000-170009_stats.json"]:
        store.put(layout.shards + name, b"")
    listed: list[str] = []
    whole = store.list

    def counted(prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        listed.append(prefix)
        return whole(prefix, after=after)

    monkeypatch.setattr(store, "list", counted)
    found = [
        key.removeprefix(layout.shards)
        for key in manifest_keys(store, layout, range(first, first + 4))
    ]

    wanted = [f"{shard:05d}_stats.json" for shard in shards if first <= shard < first + 4]
    parts = ["17000-170000-170009_stats.json"] if first == 16_998 else []
    assert sorted(found) == sorted(wanted + parts)
    assert len(listed) == (2 if first in (99_998, 99_999) else 1)


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


def test_a_round_lists_its_own_images(http: httpx.Client, api: RunningApi) -> None:
    prompts = [f"number {number}" for number in range(8)]
    job_id = submit(http, {"job": {"shard_images": 2}, "prompts": prompts})
    render_shards(api, job_id, failed=[1, 2, 5, 6])
    finish_dataset(api, job_id)

    def look(round_id: str, **params: object) -> tuple[dict[int, str], int | None]:
        reply = http.get(f"/v1/jobs/{round_id}/items", params=params)  # type: ignore[arg-type]
        assert reply.status_code == 200, reply.text
        found = reply.json()
        return {one["image"]: one["status"] for one in found["items"]}, found["next"]

    retry_id = http.post(f"/v1/jobs/{job_id}/retry-failed").json()["id"]
    assert look(retry_id) == (dict.fromkeys([1, 2, 5, 6], "failed"), None)
    assert look(retry_id, limit=3) == (dict.fromkeys([1, 2, 5], "failed"), 3)
    render_shards(api, retry_id)
    finish_dataset(api, retry_id)
    # Its list is gone by now.
    assert look(retry_id, first=2) == ({5: "ok", 6: "ok"}, None)
    assert look(retry_id, prompt="NUMBER 5", limit=1) == ({5: "ok"}, None)
    assert look(retry_id, prompt="number", limit=2) == ({1: "ok", 2: "ok"}, 2)
    assert len(look(job_id)[0]) == 8

    added = http.post(f"/v1/jobs/{job_id}/extend", json={"repeats": 1}).json()["id"]
    assert look(added, first=6, limit=5) == ({14: "pending", 15: "pending"}, None)
    render_shards(api, added)
    finish_dataset(api, added)
    asked = {"where": "image = 5 or image = 9"}
    assert http.post(f"/v1/jobs/{job_id}/drop", json=asked).json()["dropped"] == 2
    assert look(retry_id)[0] == {1: "ok", 2: "ok", 5: "dropped", 6: "ok"}
    assert look(added, limit=3) == ({8: "ok", 9: "dropped", 10: "ok"}, 3)
    refused = http.get(f"/v1/jobs/{job_id}-r3/items")
    assert refused.status_code == 422
    assert f"ask for those of its job, {job_id}" in refused.text
    assert http.get(f"/v1/jobs/{job_id}-r4/items").status_code == 404


@pytest.mark.parametrize("s3_settings", ["rclone"], indirect=True)
def test_of_a_large_retry_few_shards_are_read(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(items, "FEW", 4)
    job = shop.submit([Row(prompt=f"prompt {n}") for n in range(32)], shard_images=2)
    shop.broken = set(range(32))
    shop.render(job)
    shop.finish()
    asked = {"prefix": PREFIX, "tenant": TENANT, "job_id": job.id, "now_ms": 1_700_000_100_000}
    retry_failed(shop.store, shop.queue, **asked, idempotency_key="key")
    shop.broken = {8, 17, 31}
    # Some of it is committed, with gaps.
    leases = shop.claim(job, 12)
    for lease in leases[::-2]:
        shop.say_done(lease, shop.commit(lease))
    layout, read, get = shop.layout(job), list[str](), shop.store.get

    def states(first: int, limit: int) -> list[str]:
        page = item_page(shop.store, layout, job, first=first, limit=limit)
        return [item.status for item in page.items]

    for first, limit in ((0, 32), (0, 1), (3, 1), (6, 9), (16, 2), (23, 1), (31, 1)):
        made = {n for n in range(24) if n // 2 % 2} - shop.broken
        wanted = ["ok" if n in made else "failed" for n in range(first, first + limit)]
        assert states(first, limit) == wanted
    for lease in leases[::2]:
        shop.say_done(lease, shop.commit(lease))
    shop.render(job)

    monkeypatch.setattr(shop.store, "get", lambda key: (read.append(key), get(key))[1])
    assert states(16, 2) == ["ok", "failed"]
    assert len(read) < 25
    read.clear()
    monkeypatch.setattr(pictures, "RETRIED_KEPT", 4)
    shown = Pictures(shop.store)
    found = shown.read(layout, job, 16)
    assert found.sha256 == item_page(shop.store, layout, job, first=16, limit=1).items[0].sha256
    with pytest.raises(NotFound):
        shown.read(layout, job, 17)
    names = {key.rpartition("/")[2] for key in read if key.endswith("_stats.json")}
    assert len([name for name in names if int(name[:5]) >= 16]) < 16
