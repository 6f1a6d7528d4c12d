"""What the API tells of a job that has ended, while the queue knows it and after."""

import httpx
import pytest

from tests.api_calls import finish, render, show, submit
from tests.api_servers import RunningApi


@pytest.mark.parametrize("part", ["results", "timing"])
def test_an_unfinished_job_has_no_results(http: httpx.Client, part: str) -> None:
    reply = http.get(f"/v1/jobs/{submit(http)}/{part}")

    assert reply.status_code == 409
    assert reply.json()["detail"] == "the job is waiting: 0 of 4 images so far"


def test_results_and_timing_of_a_finished_job(http: httpx.Client, api: RunningApi) -> None:
    job_id = submit(http)
    render(api, job_id)
    assert show(http, job_id)["state"] == "finishing"
    finish(api, job_id)

    results = http.get(f"/v1/jobs/{job_id}/results").json()
    page = http.get(f"/v1/jobs/{job_id}/results?first=1&limit=2").json()
    files = {file["name"]: file for file in results["files"]}

    assert show(http, job_id)["state"] == "done"
    assert (results["complete"], results["next"], page["next"]) == (True, None, 3)
    assert results["uri"] == f"s3://{api.settings.s3_bucket}/{results['prefix']}"
    assert files["train/00000.tar"]["sha256"] == "ab" * 32
    assert files["train/00000.parquet"]["sha256"] == "cd" * 32
    assert httpx.get(files["train/00000.tar"]["link"], trust_env=False).content == b"tar"
    assert page["files"][0]["name"] == results["files"][1]["name"]
    assert http.get(f"/v1/jobs/{job_id}/timing").json()["unet_calls"] == 16


def test_a_job_that_the_queue_forgot_is_shown_from_the_store(
    http: httpx.Client, api: RunningApi
) -> None:
    job_id = submit(http)
    render(api, job_id)
    finish(api, job_id)
    api.redis.flushall()

    view = show(http, job_id)

    assert (view["state"], view["done"], view["images_per_second"]) == ("done", 4, 2.0)
    assert http.get(f"/v1/jobs/{job_id}/timing").status_code == 200


def test_a_job_that_never_reached_the_queue_says_so(http: httpx.Client, api: RunningApi) -> None:
    job_id = submit(http)
    api.redis.flushall()

    assert "send the submission again" in show(http, job_id)["reason"]
