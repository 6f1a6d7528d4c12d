"""The client: typed verbs, errors as the server means them, and replies that may be lost."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from jobs.client import Client
from jobs.errors import Conflict, FewstepError, InvalidInput, NotFound, TooLarge, Unreachable
from jobs.job import JobRequest
from jobs.recipe import RecipeRequest
from tests.api_renderer import render_shards
from tests.api_servers import RunningApi, serving
from tests.servers import free_port

PROMPTS = ["a red circle", {"prompt": "a blue star", "seed": 7}]


@pytest.fixture
def fewstep(api: RunningApi) -> Iterator[Client]:
    with Client(api.url) as client:
        yield client


class LossyTransport(httpx.BaseTransport):
    """Carries every request out, and loses the first replies."""

    def __init__(self, losses: int) -> None:
        self.losses = losses
        self._inner = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        reply = self._inner.handle_request(request)
        if self.losses:
            self.losses -= 1
            reply.close()
            raise httpx.ReadTimeout("the reply was lost", request=request)
        return reply

    def close(self) -> None:
        self._inner.close()


def end(api: RunningApi, job_id: str) -> None:
    api.queue.state(job_id, "cancel")
    assert api.queue.finish(job_id, "cancelled") == "ok"


def test_prompts_and_files_are_submitted(fewstep: Client, tmp_path: Path) -> None:
    text = tmp_path / "prompts.txt"
    text.write_text("a red circle\na blue star\n", "utf-8")
    request = JobRequest(name="x", recipe=RecipeRequest(steps=2), repeats=2)

    inline = fewstep.submit(request, PROMPTS)
    from_file = fewstep.submit(request, text)

    assert (inline.created, inline.images, from_file.images) == (True, 4, 4)
    assert inline.id != from_file.id
    view = fewstep.job(inline.id)
    assert (view.name, view.state, view.recipe["steps"]) == ("x", "waiting", 2)


def test_many_prompts_need_no_file_of_their_own(fewstep: Client) -> None:
    assert fewstep.submit(JobRequest(), ["a red circle"] * 12_000).images == 12_000


def test_a_dry_run_names_no_job(fewstep: Client, api: RunningApi) -> None:
    assert fewstep.dry_run(JobRequest(repeats=5), PROMPTS).images == 10
    assert api.written() == set()


def test_a_lost_reply_makes_no_second_job(api: RunningApi) -> None:
    with Client(api.url, transport=LossyTransport(2)) as lossy:
        done = lossy.submit(JobRequest(), PROMPTS)

        assert done.created is False
        assert [view.id for view in lossy.jobs()] == [done.id]


def test_a_picture_whose_reply_was_lost_is_read_again(api: RunningApi) -> None:
    with Client(api.url) as client:
        job_id = client.submit(JobRequest(), PROMPTS).id
    render_shards(api, job_id)
    with Client(api.url, transport=LossyTransport(2)) as lossy:
        assert lossy.picture(job_id, 0)


def test_the_same_key_is_the_same_job(fewstep: Client) -> None:
    first = fewstep.submit(JobRequest(), PROMPTS, idempotency_key="k")
    again = fewstep.submit(JobRequest(), PROMPTS, idempotency_key="k")

    assert (again.id, again.created) == (first.id, False)
    with pytest.raises(Conflict, match=first.id):
        fewstep.submit(JobRequest(), ["another"], idempotency_key="k")


def test_orders_answer_with_the_view(fewstep: Client) -> None:
    job_id = fewstep.submit(JobRequest(), PROMPTS).id

    assert fewstep.pause(job_id).state == "paused"
    assert fewstep.resume(job_id).state == "waiting"
    assert fewstep.set_priority(job_id, 9).priority == 9
    assert fewstep.cancel(job_id).state == "cancelling"


def test_lists_go_over_pages(fewstep: Client) -> None:
    ids = [fewstep.submit(JobRequest(), PROMPTS).id for _ in range(3)]
    fewstep.pause(ids[1])

    assert [view.id for view in fewstep.jobs(limit=2)] == [ids[2], ids[1]]
    assert [view.id for view in fewstep.jobs(state="paused")] == [ids[1]]


def test_the_house_answers(fewstep: Client) -> None:
    assert fewstep.health()["status"] == "ok"
    assert fewstep.cluster()["scheduler_age_ms"] is None
    assert "tiny" in fewstep.models()
    assert "lcm-tiny" in fewstep.accelerators()
    assert "outline" in fewstep.styles()


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda client: client.job("a" * 26), NotFound, "no such job"),
        (lambda client: client.job("../x"), FewstepError, ""),
        (lambda client: client.submit(JobRequest(), []), InvalidInput, "no prompt"),
        (lambda client: client.submit(JobRequest(), [" "]), InvalidInput, "line 1"),
        (lambda client: client.submit(JobRequest(), [{"a": {1}}]), InvalidInput, "row 1"),
        (lambda client: client.submit(JobRequest(), [{"x": float("nan")}]), InvalidInput, "row 1"),
        (lambda client: client.submit(JobRequest(), ["a" * 1_000_001]), TooLarge, "line 1"),
        (
            lambda client: client.submit(JobRequest(), ["a"], idempotency_key="a b"),
            InvalidInput,
            "Idempotency-Key",
        ),
        (
            lambda client: client.submit(JobRequest(recipe=RecipeRequest(steps=99)), ["a"]),
            InvalidInput,
            "choose 1 to 8",
        ),
    ],
)
def test_errors_come_back_as_the_server_means_them(
    fewstep: Client, call: Callable[[Client], object], error: type[FewstepError], says: str
) -> None:
    with pytest.raises(error) as caught:
        call(fewstep)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("rows.txt", None, "No such file"),
        ("rows.xls", b"a", r"\.txt.*\.jsonl"),
        ("rows.txt", b"", "no prompt"),
        ("rows.jsonl", b'{"prompt": "a"}\n{', "rows.jsonl, line 2"),
    ],
)
def test_a_bad_file_is_named(
    fewstep: Client, tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(InvalidInput, match=says):
        fewstep.submit(JobRequest(), path)


def test_a_conflict_keeps_the_reason(fewstep: Client) -> None:
    job_id = fewstep.submit(JobRequest(), PROMPTS).id

    with pytest.raises(Conflict, match="the job is waiting"):
        fewstep.results(job_id)
    with pytest.raises(Conflict, match="the job is waiting"):
        fewstep.timing(job_id)


def test_nothing_there_is_said_with_the_remedy() -> None:
    with Client(f"http://127.0.0.1:{free_port()}") as client, pytest.raises(Unreachable) as caught:
        client.health()

    assert caught.value.where == client.url
    assert caught.value.remedy is not None
    assert "fewstep up" in caught.value.remedy


def test_a_stranger_is_not_taken_for_the_api(moto_url: str) -> None:
    with Client(moto_url) as client, pytest.raises(Unreachable, match="not the API of fewstep"):
        client.health()


def test_watching_shows_each_change_once_until_the_end(fewstep: Client, api: RunningApi) -> None:
    job_id = fewstep.submit(JobRequest(), PROMPTS).id
    views = fewstep.watch(job_id)

    seen = [next(views)]
    fewstep.pause(job_id)
    seen.append(next(views))
    end(api, job_id)
    seen += views

    assert [view.state for view in seen][:2] == ["waiting", "paused"]
    assert seen[-1].state == "cancelled"
    assert all(one != two for one, two in pairwise(seen))


def test_events_can_be_resumed(fewstep: Client, api: RunningApi) -> None:
    job_id = fewstep.submit(JobRequest(), PROMPTS).id
    end(api, job_id)

    every = [event for event in fewstep.events(job_id, after="0-1") if event["type"] != "progress"]
    rest = [
        event
        for event in fewstep.events(job_id, after=every[0]["id"])
        if event["type"] != "progress"
    ]

    assert [event["type"] for event in every] == ["submit", "state", "finished"]
    assert rest == every[1:]
    assert every[1]["data"]["state"] == "cancel"


def test_watching_goes_on_when_the_api_comes_back(api: RunningApi) -> None:
    port = free_port()
    with Client(f"http://127.0.0.1:{port}") as client:
        with serving(api.settings, port):
            job_id = client.submit(JobRequest(), PROMPTS).id
            views = client.watch(job_id)
            assert next(views).state == "waiting"
        end(api, job_id)
        with serving(api.settings, port):
            assert [view.state for view in views] == ["cancelled"]


def test_watching_an_unknown_job_says_so(fewstep: Client) -> None:
    with pytest.raises(NotFound):
        next(fewstep.watch("a" * 26))


def test_one_text_is_not_taken_for_a_list_of_letters(fewstep: Client, api: RunningApi) -> None:
    with pytest.raises(InvalidInput, match=r"Path\("):
        fewstep.submit(JobRequest(), "prompts.txt")
    assert api.written() == set()


@pytest.mark.parametrize("job_id", ["", "?", "a/../..", "a?shards=delete", "#", "ä ", "a" * 26])
def test_no_id_reaches_another_route(fewstep: Client, job_id: str) -> None:
    kept = fewstep.submit(JobRequest(), PROMPTS).id
    calls = (fewstep.job, fewstep.cancel, fewstep.timing, lambda one: next(fewstep.events(one)))
    for call in calls:
        with pytest.raises((InvalidInput, NotFound)):
            call(job_id)
    assert fewstep.job(kept).state == "waiting"


def test_what_must_not_run_twice_is_sent_once(api: RunningApi) -> None:
    settings = api.settings.model_copy(update={"webhooks": "loopback"})
    with serving(settings) as url, Client(url, transport=LossyTransport(1)) as lossy:
        with pytest.raises(Unreachable):
            lossy.add_webhook("http://127.0.0.1:9/hook")
        assert len(lossy.webhooks()) == 1
