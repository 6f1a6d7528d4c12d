"""What the API tells of a job that has ended, while the queue knows it and after."""

from collections.abc import Iterator

import httpx
import pytest

from jobs.results import results_of
from jobs.store import ObjectInfo
from tests.api_calls import finish, layout_of, render, show, submit
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


def test_a_later_page_of_results_costs_what_the_first_does(
    http: httpx.Client, api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files before it are not listed again, nor is the index read again."""
    job_id = submit(http)
    render(api, job_id)
    finish(api, job_id)
    names = [file["name"] for file in http.get(f"/v1/jobs/{job_id}/results").json()["files"]]
    path, found, after = f"/v1/jobs/{job_id}/results?limit=2", list[str](), ""
    while after is not None:
        page = http.get(f"{path}&after={after}").json()
        found, after = [*found, *(file["name"] for file in page["files"])], page["after"]
    assert found == names

    layout, read, listed = layout_of(api, job_id), list[str](), list[str]()
    get, whole = api.store.get, api.store.list

    def counted(prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        return (listed.append(one.key) or one for one in whole(prefix, after=after))

    monkeypatch.setattr(api.store, "get", lambda key: (read.append(key), get(key))[1])
    monkeypatch.setattr(api.store, "list", counted)
    for name in names[:-1]:
        listed.clear()
        page = results_of(api.store, layout, limit=1, after=name)
        assert page.complete
        assert len(listed) <= 2
    assert read == [layout.index]


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


def test_images_without_a_picture_are_listed(http: httpx.Client, api: RunningApi) -> None:
    job_id = submit(http)

    page = http.get(f"/v1/jobs/{job_id}/failed").json()

    assert page == {"failed": [], "ended": False, "cursor": None}
    assert http.get(f"/v1/jobs/{'a' * 26}/failed").status_code == 404
    wrong = http.get(f"/v1/jobs/{job_id}/failed?cursor=later")
    assert (wrong.status_code, wrong.json()["code"]) == (422, "bad_text")


def test_a_budget_is_shown_and_a_wrong_one_refused(http: httpx.Client) -> None:
    job = {"repeats": 10, "max_failed_rows": 0.25}
    job_id = submit(http, {"job": job, "prompts": ["a"]})

    wrong = http.post("/v1/jobs", json={"job": job | {"max_failed_rows": 1.5}, "prompts": ["a"]})

    assert show(http, job_id)["max_failed_rows"] == 2
    assert wrong.status_code == 422
    assert wrong.json()["where"] == "job.max_failed_rows"
    assert "a whole number of images, or a share" in wrong.json()["detail"]
