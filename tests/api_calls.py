"""Calls that tests of the API share: submit, render like a renderer, finish like the scheduler."""

from typing import Any

import httpx

from jobs.dataset_index import DatasetIndex, IndexFile, IndexShard
from jobs.layout import JobLayout
from jobs.timing import Timing
from tests.api_servers import RunningApi

BODY = {"job": {"repeats": 2, "shard_images": 2}, "prompts": ["a red circle", {"prompt": "b"}]}


def submit(http: httpx.Client, body: dict[str, Any] = BODY, **headers: str) -> str:
    """Submit four images in two shards, or as the test says; the job's id."""
    reply = http.post("/v1/jobs", json=body, headers=headers)
    assert reply.status_code == 202, reply.text
    return str(reply.json()["id"])


def show(http: httpx.Client, job_id: str) -> dict[str, Any]:
    reply = http.get(f"/v1/jobs/{job_id}")
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def engine_of(api: RunningApi, job_id: str) -> str:
    record = api.queue.job(job_id)
    assert record is not None
    return record.engine_key


def layout_of(api: RunningApi, job_id: str) -> JobLayout:
    return JobLayout(prefix=api.settings.s3_prefix, tenant=api.settings.tenant, job_id=job_id)


def render(api: RunningApi, job_id: str, *, failed: int = 0) -> None:
    """Do what a renderer does for every shard, as far as the queue sees it."""
    leases = api.queue.claim("w", "nonce", engine_of(api, job_id), 64, 60_000)
    for lease in leases:
        api.queue.done(lease.job_id, lease.unit, lease.token, failed=failed, device_ms=10)


def finish(api: RunningApi, job_id: str) -> None:
    """Write what the scheduler writes when all shards are done, and close the job."""
    layout = layout_of(api, job_id)
    tar = IndexFile(name="train/00000.tar", bytes=3, sha256="ab" * 32)
    table = IndexFile(name="train/00000.parquet", bytes=5, sha256="cd" * 32)
    shard = IndexShard(**tar.model_dump(), first=0, stop=4, count=4, ok=4, failed=0, parquet=table)
    index = DatasetIndex(job=job_id, images=4, ok=4, failed=0, shards=(shard,))
    files = {
        f"{layout.root}train/00000.tar": b"tar",
        f"{layout.root}train/00000.parquet": b"table",
        layout.index: index.model_dump_json().encode(),
        layout.timing: timing(job_id).model_dump_json().encode(),
        layout.success: b"",
    }
    for key, data in files.items():
        api.store.put(key, data)
    assert api.queue.finish(job_id, "done") == "ok"


def timing(job_id: str) -> Timing:
    return Timing(
        job=job_id,
        images=4,
        ok=4,
        failed=0,
        submitted="2026-01-01T00:00:00.000Z",
        started="2026-01-01T00:00:01.000Z",
        finished="2026-01-01T00:00:03.000Z",
        submitted_ms=1_767_225_600_000,
        started_ms=1_767_225_601_000,
        finished_ms=1_767_225_603_000,
        wall_s=2.0,
        waited_s=1.0,
        images_per_second=2.0,
        device_seconds=1.5,
        steps=4,
        unet_calls_per_step=1,
        unet_calls=16,
        tokens_lost=0,
        retries=0,
        adopted=0,
        renderers={"w": 4},
    )
