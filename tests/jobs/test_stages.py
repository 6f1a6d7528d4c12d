"""Where the time of a running job goes: its latest shards, and nothing before there are any."""

import httpx

from jobs.client import Client
from jobs.stages import LATEST
from tests.api_calls import submit
from tests.api_renderer import finish_dataset, render_shards
from tests.api_servers import RunningApi

BODY = {"job": {"shard_images": 1}, "prompts": ["a"] * (LATEST + 4)}


def test_the_stages_of_the_latest_shards(http: httpx.Client, api: RunningApi) -> None:
    job_id = submit(http, BODY)
    with Client(api.url) as client:
        assert client.stages(job_id) == {
            "id": job_id,
            "images": 0,
            "stages": {},
            "bottleneck": None,
        }
        render_shards(api, job_id, shards=3)
        early = client.stages(job_id)
        render_shards(api, job_id)
        late = client.stages(job_id)
        finish_dataset(api, job_id)
        ended = client.stages(job_id)
        timing = client.timing(job_id)

    assert (early["images"], late["images"]) == (3, LATEST)
    assert ended == late
    assert late["stages"].keys() == timing["stages"].keys()
    assert late["stages"]["denoising"]["count"] == LATEST
    assert late["bottleneck"]["stage"] == timing["bottleneck"]["stage"]


def test_the_stages_of_a_retry_are_its_own(http: httpx.Client, api: RunningApi) -> None:
    job_id = submit(http, {"prompts": ["a"] * 6, "job": {"shard_images": 2}})
    render_shards(api, job_id, failed=[1, 2])
    finish_dataset(api, job_id)
    again = http.post(f"/v1/jobs/{job_id}/retry-failed").json()["id"]

    assert http.get(f"/v1/jobs/{again}/stages").json()["images"] == 0
    assert http.get(f"/v1/jobs/{'a' * 26}/stages").status_code == 404
