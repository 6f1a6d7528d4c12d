"""What may be done about a job on its page: what can be done is done, what cannot says why."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from jobs.api import house, routes_drop
from jobs.drop import Dropped
from jobs.job import JobView
from jobs.page.deeds import Standing, reasons
from jobs.states import JobState
from tests.api_calls import show, submit
from tests.api_renderer import finish_dataset, render_shards
from tests.api_servers import RunningApi

ROWS = [{"prompt": "a", "label": label} for label in ("star", "ring", "star", "ring")]
DEEDS = ("limits", "rest", "retry", "extend", "drop", "undo", "delete", "priority")


def post(http: httpx.Client, path: str, **fields: str) -> httpx.Response:
    return http.post(path, data=fields, headers={"Origin": str(http.base_url).rstrip("/")})


def page_of(http: httpx.Client, job_id: str) -> dict[str, str]:
    """Each deed's part of the page."""
    text = http.get(f"/jobs/{job_id}/change").text
    parts = re.split(r'<section class="deed card" id="(\w+)"', text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def possible(http: httpx.Client, job_id: str) -> set[str]:
    """The deeds that can be done; every other one must say why not."""
    found = page_of(http, job_id)
    assert tuple(found) == DEEDS
    for name, part in found.items():
        assert ("<fieldset disabled" in part) == ("why-not" in part), name
    return {name for name, part in found.items() if "<fieldset disabled" not in part}


def rendered(api: RunningApi, http: httpx.Client, failed: tuple[int, ...] = (), **job: Any) -> str:
    """A job of four images in two shards that has ended."""
    body = {"job": {"name": "changed", "shard_images": 2, **job}, "prompts": ROWS}
    job_id = submit(http, body)
    render_shards(api, job_id, failed=failed)
    finish_dataset(api, job_id)
    return job_id


def test_a_job_that_stopped_goes_on_where_its_limit_is_raised(
    http: httpx.Client, api: RunningApi
) -> None:
    job_id = rendered(api, http, max_images=2)
    view = show(http, job_id)
    assert (view["state"], view["images"]) == ("stopped", 2)
    assert possible(http, job_id) == {"limits", "rest"}
    sheet = http.get(f"/jobs/{job_id}").text
    assert {'id="raise"', 'id="finish"'} <= {*re.findall(r'id="\w+"', sheet)}
    assert "2 of 2 images" in re.sub(r"\s+", " ", sheet)

    path = f"/jobs/{job_id}/course/limits"
    for fields, says in (
        ({"max_images": "2"}, "these are its limits already"),
        ({"max_images": "1"}, "2 images are let through already"),
        ({"max_images": "x"}, "this is not a whole number"),
        ({"max_images": "3", "deadline": "2020-01-01T00:00"}, "2020-01-01 00:00 UTC is over"),
    ):
        refused = post(http, path, **fields)
        assert refused.status_code == 422
        part = refused.text[refused.text.index('id="limits"') : refused.text.index('id="rest"')]
        assert says in part
        assert f'value="{fields["max_images"]}"' in part, "what was filled in is kept"
        assert show(http, job_id)["state"] == "stopped"
    raised = post(http, path, max_images="3", max_device_seconds="60")
    assert (raised.status_code, raised.headers["location"]) == (303, f"/jobs/{job_id}")
    view = show(http, job_id)
    seconds = view["budget"]["max_device_seconds"]
    assert (view["state"], view["images"], seconds) == ("waiting", 3, 60)
    assert possible(http, job_id) == {"limits", "delete", "priority"}
    part = page_of(http, job_id)["limits"]
    assert re.findall(r'value="(\w+)"', part) == ["3", "60"]


def test_the_rest_of_a_stopped_job_is_rendered_without_limits(
    http: httpx.Client, api: RunningApi
) -> None:
    job_id = rendered(api, http, max_images=2)
    rest = post(http, f"/jobs/{job_id}/course/rest")
    assert rest.headers["location"] == f"/jobs/{job_id}"
    render_shards(api, job_id)
    finish_dataset(api, job_id)
    view = show(http, job_id)
    assert (view["state"], view["done"], view["budget"]["max_images"]) == ("done", 4, None)


def test_a_stopped_job_that_was_retried_says_what_is_left(
    http: httpx.Client, api: RunningApi
) -> None:
    job_id = rendered(api, http, failed=(1,), max_images=2)
    assert possible(http, job_id) == {"limits", "rest", "retry"}
    assert "no longer be raised" in page_of(http, job_id)["retry"]
    retry = post(http, f"/jobs/{job_id}/course/retry").headers["location"]
    assert retry == f"/jobs/{job_id}-r1"
    assert possible(http, job_id) == set()
    assert "retry 1 has not ended" in page_of(http, job_id)["extend"]
    render_shards(api, f"{job_id}-r1")
    finish_dataset(api, f"{job_id}-r1")
    assert possible(http, job_id) == {"rest"}
    assert "closed its own shards" in page_of(http, job_id)["limits"]
    rest = post(http, f"/jobs/{job_id}/course/rest").headers["location"]
    assert rest == f"/jobs/{job_id}-r2"
    assert "The whole job" in http.get(rest).text


def test_a_dataset_is_extended_dropped_from_and_mended(http: httpx.Client, api: RunningApi) -> None:
    job_id = rendered(api, http)
    assert possible(http, job_id) == {"extend", "drop"}
    refused = post(http, f"/jobs/{job_id}/course/extend", repeats="0")
    assert (refused.status_code, "how many more" in refused.text) == (422, True)
    key = "ab" * 16
    first, again = (
        post(http, f"/jobs/{job_id}/course/extend", repeats="1", key=key) for _ in range(2)
    )
    assert first.headers["location"] == again.headers["location"] == f"/jobs/{job_id}-r1"
    render_shards(api, f"{job_id}-r1")
    finish_dataset(api, f"{job_id}-r1")
    assert show(http, job_id)["done"] == 8

    look, drop = f"/jobs/{job_id}/course/look", f"/jobs/{job_id}/course/drop"
    assert "No image matches" in post(http, look, where="label = 'moon'").text
    assert "there is no column" in post(http, look, where="colour = 'red'").text
    where = "label = 'star' and image < 4"
    shown = post(http, look, where=where).text
    assert re.search(r"<b>2</b> of 8 images would go; 2 shards are written anew", shown)
    assert re.findall(r'/pictures/(\d+)"><img', shown) == ["0", "2"]
    assert show(http, job_id)["done"] == 8, "nothing is done yet"
    form = dict(re.findall(r'name="(\w+)" value="([^"]*)"', shown))
    done = post(http, drop, where=where, key=form["key"])
    assert done.headers["location"] == f"/jobs/{job_id}/change#done"
    assert post(http, drop, where=where, key=form["key"]).status_code == 303, "sent twice is once"
    assert show(http, job_id)["done"] == 6
    assert possible(http, job_id) == {"extend", "drop", "undo"}
    assert "drop 2 <code>" in http.get(f"/jobs/{job_id}/change").text
    assert post(http, f"/jobs/{job_id}/course/undo").status_code == 303
    assert show(http, job_id)["done"] == 8
    assert "is no drop" in page_of(http, job_id)["undo"]
    every = post(http, drop, where="image >= 0")
    assert (every.status_code, "nothing would be left" in every.text) == (409, True)


def test_drops_of_the_page_wait_for_their_turn_without_a_thread(
    http: httpx.Client, api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(http, {"job": {"shard_images": 2}, "prompts": ROWS})
    begun, go_on = threading.Semaphore(0), threading.Event()

    def slow(*_: object) -> Dropped:
        begun.release()
        assert go_on.wait(60)
        return Dropped(images=4, dropped=0, shards=0)

    for name in ("dropped", "undone"):
        monkeypatch.setattr(routes_drop, name, slow)
    deeds = ("look", "drop", "undo") * 16
    with ThreadPoolExecutor(len(deeds)) as browsers:
        calls = [browsers.submit(post, http, f"/jobs/{job_id}/course/{deed}") for deed in deeds]
        try:
            for _ in range(house.CHANGERS):
                assert begun.acquire(timeout=60)
            assert show(http, job_id)["state"] == "waiting"
            assert not begun.acquire(blocking=False)
        finally:
            go_on.set()
        assert {call.result().status_code for call in calls} == {200, 303}


def test_a_job_is_deleted_while_it_renders(http: httpx.Client, api: RunningApi) -> None:
    job_id = submit(http, {"job": {"shard_images": 2}, "prompts": ROWS})
    assert possible(http, job_id) == {"limits", "delete", "priority"}
    assert post(http, f"/jobs/{job_id}/course/delete").headers["location"] == f"/jobs/{job_id}"
    record = api.queue.job(job_id)
    assert record is not None
    assert (record.state, record.discard) == ("cancel", True)


def test_of_a_deleted_job_nothing_can_be_done(http: httpx.Client, api: RunningApi) -> None:
    job_id = rendered(api, http)
    view = JobView.model_validate(show(http, job_id) | {"state": "cancelled"}, strict=False)
    gone = Standing(view, (), None, complete=False, deleted=True, can_undo=False)
    assert all(reasons(gone).values())


def test_every_state_says_what_can_be_done(http: httpx.Client, api: RunningApi) -> None:
    view = JobView.model_validate(show(http, rendered(api, http)) | {"failed": 1}, strict=False)
    can: dict[JobState, set[str]] = {}
    for state in JobState:
        now = view.model_copy(update={"state": state})
        standing = Standing(now, (), None, state == JobState.DONE, deleted=False, can_undo=False)
        can[state] = {deed for deed, why in reasons(standing).items() if not why}
    moving = {"limits", "delete", "priority"}
    assert can == {
        JobState.WAITING: moving,
        JobState.RUNNING: moving,
        JobState.PAUSED: moving,
        JobState.FINISHING: set(),
        JobState.CANCELLING: set(),
        JobState.STOPPING: set(),
        JobState.DONE: {"retry", "extend", "drop"},
        JobState.STOPPED: {"limits", "rest", "retry"},
        JobState.CANCELLED: {"rest", "retry"},
        JobState.FAILED: {"rest", "retry"},
    }


@pytest.mark.parametrize("deed", ["limits", "rest", "retry", "extend", "drop", "undo", "delete"])
def test_a_deed_that_cannot_be_done_is_refused_in_its_place(
    http: httpx.Client, api: RunningApi, deed: str
) -> None:
    """Whoever sends the form all the same, as another window may, reads the API's own words."""
    state = "done" if deed in ("limits", "rest", "retry", "undo", "delete") else "waiting"
    body = {"job": {"shard_images": 2}, "prompts": ROWS}
    job_id = rendered(api, http) if state == "done" else submit(http, body)
    fields = {"extend": {"repeats": "1"}, "drop": {"where": "image = 1"}}
    fields["limits"] = {"max_images": "9"}
    reply = post(http, f"/jobs/{job_id}/course/{deed}", **fields.get(deed, {}))
    assert reply.status_code in (409, 422)
    part = reply.text[reply.text.index(f'id="{deed}"') :]
    assert part.index('role="alert"') < part.index("</section>")
