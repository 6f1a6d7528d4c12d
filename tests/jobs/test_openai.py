"""OpenAI's own Python client against a running server: images, files, batches, errors."""

import base64
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from jobs.facade.shelf import Shelf
from jobs.facade.values import BatchRecord
from tests.api_keys import KeyedApi
from tests.api_renderer import rendering
from tests.api_servers import RunningApi, serving
from tests.servers import wait_until


def connect(url: str, key: str = "none") -> openai.OpenAI:
    http = httpx.Client(trust_env=False, timeout=30)
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, http_client=http, max_retries=0)


@pytest.fixture
def client(api: RunningApi) -> Iterator[openai.OpenAI]:
    """The client, and somebody who renders."""
    with rendering(api), connect(api.url) as made:
        yield made


def request(custom_id: str, prompt: str = "a red circle", **body: Any) -> dict[str, Any]:
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": "/v1/images/generations",
        "body": {"model": "tiny", "prompt": prompt, **body},
    }


def jsonl(*lines: Any) -> bytes:
    return b"".join(
        (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines
    )


def start(client: openai.OpenAI, *lines: Any) -> Any:
    made = client.files.create(file=("input.jsonl", jsonl(*lines)), purpose="batch")
    return client.batches.create(
        input_file_id=made.id,
        endpoint="/v1/images/generations",
        completion_window="24h",
        metadata={"run": "one"},
    )


def ended(client: openai.OpenAI, batch_id: str) -> Any:
    last = client.batches.retrieve(batch_id)

    def over() -> bool:
        nonlocal last
        last = client.batches.retrieve(batch_id)
        return last.status in ("completed", "failed", "cancelled")

    wait_until(over, "the batch", 30)
    return last


def answers(client: openai.OpenAI, file_id: str) -> dict[str, Any]:
    text = client.files.content(file_id).text
    return {line["custom_id"]: line for line in map(json.loads, text.splitlines())}


# ---- images ----


def test_a_picture_comes_as_a_link(client: openai.OpenAI) -> None:
    reply = client.images.generate(model="tiny", prompt="a red circle", size="64x64")

    assert reply.data is not None
    assert reply.data[0].url is not None
    picture = httpx.get(reply.data[0].url, trust_env=False)
    assert Image.open(io.BytesIO(picture.content)).size == (64, 64)
    assert (reply.size, reply.output_format, reply.data[0].b64_json) == ("64x64", "png", None)


def test_pictures_come_as_bytes_with_their_seeds(client: openai.OpenAI) -> None:
    reply = client.images.generate(
        model="tiny",
        prompt="a red circle",
        n=3,
        response_format="b64_json",
        extra_body={
            "seed": 7,
            "num_inference_steps": 2,
            "guidance_scale": 1.5,
            "negative_prompt": "blue",
        },
    )

    data = reply.model_dump()["data"]
    assert len(data) == 3
    assert data[0]["seed"] == 7
    assert len({one["seed"] for one in data}) == 3
    for one in data:
        assert hashlib.sha256(base64.b64decode(one["b64_json"])).hexdigest() == one["sha256"]


def test_the_job_goes_first_and_has_what_was_asked(client: openai.OpenAI, api: RunningApi) -> None:
    client.images.generate(
        model="tiny", prompt="a", size="128x64", extra_body={"num_inference_steps": 2}
    )
    with httpx.Client(base_url=api.url, trust_env=False) as http:
        (job,) = http.get("/v1/jobs").json()["jobs"]

    assert (job["priority"], job["images"]) == (9, 1)
    recipe = job["recipe"]
    assert (recipe["width"], recipe["height"], recipe["steps"]) == (128, 64, 2)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"extra_body": {"steps": 4}}, "steps"),
        ({"quality": "hd"}, "quality"),
        ({"n": 11}, "n"),
        ({"size": "65x64"}, "size"),
        ({"size": "big"}, "size"),
        ({"model": "dall-e-3"}, "model"),
        ({"prompt": " "}, "body"),
        ({"extra_body": {"num_inference_steps": 99}}, "num_inference_steps"),
        ({"extra_body": {"guidance_scale": 9}}, "guidance_scale"),
        ({"extra_body": {"seed": 2**32}}, "seed"),
        ({"extra_body": {"seed": "7"}}, "seed"),
    ],
)
def test_what_cannot_be_made_is_refused_in_their_form(
    client: openai.OpenAI, api: RunningApi, body: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.images.generate(**({"model": "tiny", "prompt": "a"} | body))

    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"
    assert api.queue.open_jobs() == []


def test_a_picture_that_fails_says_why(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError, match="not a number"):
        client.images.generate(model="tiny", prompt="poison")


def test_nobody_renders_and_no_job_stays(api: RunningApi) -> None:
    settings = api.settings.model_copy(update={"images_wait_s": 0.2})
    with serving(settings) as url, connect(url) as client:
        with pytest.raises(openai.InternalServerError, match=r"not made within 0\.2 s") as caught:
            client.images.generate(model="tiny", prompt="a")

    assert caught.value.status_code == 503
    assert int(caught.value.response.headers["retry-after"]) > 0
    assert [job.state for job in api.queue.open_jobs()] == ["cancel"]


def test_the_same_key_after_a_503_is_tried_again(api: RunningApi) -> None:
    settings = api.settings.model_copy(update={"images_wait_s": 0.2})
    mine: dict[str, Any] = {"extra_headers": {"Idempotency-Key": "mine"}}
    with serving(settings) as url, connect(url) as client:
        for _ in range(2):
            with pytest.raises(openai.APIStatusError) as caught:
                client.images.generate(model="tiny", prompt="a", **mine)
            assert caught.value.status_code == 503
    with rendering(api), connect(api.url) as client:
        first, second = (client.images.generate(model="tiny", prompt="a", **mine) for _ in "ab")
        with pytest.raises(openai.ConflictError):
            client.images.generate(model="tiny", prompt="b", **mine)
    assert first.model_dump()["data"][0]["sha256"] == second.model_dump()["data"][0]["sha256"]
    with httpx.Client(base_url=api.url, trust_env=False) as http:
        assert len(http.get("/v1/jobs").json()["jobs"]) == 3


# ---- batches ----


def test_a_batch_of_several_sizes_and_numbers(client: openai.OpenAI, api: RunningApi) -> None:
    started = start(
        client,
        request("one", "a red circle", seed=7),
        request("two", "a blue star", n=2),
        request("three", "a wide star", size="128x64"),
        request("four", "a green circle", seed=8),
        request("five", "poison"),
    )
    batch = ended(client, started.id)

    assert started.status == "in_progress"
    assert batch.status == "completed"
    assert batch.metadata == {"run": "one"}
    assert batch.request_counts.model_dump() == {"total": 5, "completed": 4, "failed": 1}
    good, bad = answers(client, batch.output_file_id), answers(client, batch.error_file_id)
    assert set(good) == {"one", "two", "three", "four"}
    assert set(bad) == {"five"}
    assert good["one"]["response"]["status_code"] == 200
    assert good["one"]["response"]["body"]["data"][0]["seed"] == 7
    assert len(good["two"]["response"]["body"]["data"]) == 2
    assert good["three"]["response"]["body"]["size"] == "128x64"
    assert "not a number" in bad["five"]["response"]["body"]["error"]["message"]
    for answer in good.values():
        for picture in answer["response"]["body"]["data"]:
            shown = httpx.get(picture["url"], trust_env=False).content
            assert hashlib.sha256(shown).hexdigest() == picture["sha256"]
    with httpx.Client(base_url=api.url, trust_env=False) as http:
        assert len(http.get("/v1/jobs").json()["jobs"]) == 3, "a job for each distinct recipe"


BAD: list[tuple[bytes | dict[str, Any], str, str]] = [
    (request("one"), "duplicate_custom_id", "used twice"),
    (b"{", "invalid_input", "not JSON"),
    (b"[1]", "invalid_input", "an object"),
    (request("x") | {"method": "GET"}, "invalid_input", "POST"),
    (request("x") | {"url": "/v1/chat/completions"}, "invalid_input", "generations"),
    (request("x") | {"more": 1}, "invalid_input", "no field 'more'"),
    (request("x", steps=4), "invalid_input", "no field 'body.steps'"),
    (request("x", num_inference_steps=99), "invalid_input", "choose 1 to 8"),
    (request("x", response_format="b64_json"), "invalid_input", "urls"),
    (request("x", prompt=" "), "empty", "blank"),
    (request("x", model="no-such"), "invalid_input", "no-such"),
    (request(""), "invalid_input", "at least 1"),
    (b'{"custom_id": "x", "custom_id": "y"}', "invalid_input", "twice"),
    (b'{"custom_id": "\xff"}', "invalid_input", "not JSON"),
]


@pytest.mark.parametrize(("line", "code", "says"), BAD, ids=range(len(BAD)))
def test_a_batch_with_a_mistake_makes_nothing(
    client: openai.OpenAI, api: RunningApi, line: Any, code: str, says: str
) -> None:
    batch = start(client, request("one"), line)

    assert batch.status == "failed"
    assert batch.errors is not None
    (fault,) = batch.errors.data
    assert (fault.code, fault.line) == (code, 2)
    assert says in fault.message
    assert not [found for found in api.store.list("") if found.key.endswith("job.json")]


def test_an_empty_file_is_a_failed_batch(client: openai.OpenAI) -> None:
    batch = start(client)

    assert (batch.status, batch.errors.data[0].code) == ("failed", "empty_file")


def test_a_batch_is_cancelled(api: RunningApi) -> None:
    with connect(api.url) as client:
        started = start(client, request("one"), request("two", size="128x64"))
        cancelling = client.batches.cancel(started.id)
        with rendering(api):
            batch = ended(client, started.id)
        with pytest.raises(openai.ConflictError, match="the batch is cancelled"):
            client.batches.cancel(started.id)
        left = answers(client, batch.error_file_id)

    assert cancelling.status == "cancelling"
    assert (batch.status, batch.output_file_id) == ("cancelled", None)
    assert batch.request_counts.failed == 2
    assert {line["error"]["code"] for line in left.values()} == {"batch_cancelled"}


def test_a_damaged_job_hides_no_other_batch(api: RunningApi) -> None:
    with connect(api.url) as client:
        good = start(client, request("one", prompt="another"))
        bad = start(client, request("one"))
        shelf = Shelf(api.store, api.settings.s3_prefix, "default")
        (job,) = shelf.batch(bad.id).jobs
        key = next(one.key for one in api.store.list("") if one.key.endswith(f"{job.id}/job.json"))
        api.store.put(key, b"{}")
        found = {one.id: one for one in client.batches.list().data}
        assert httpx.get(f"{api.url}/v1/jobs", trust_env=False).status_code == 200
    assert (found[good.id].status, found[bad.id].status) == ("in_progress", "failed")
    assert key in found[bad.id].errors.data[0].message


def test_a_batch_whose_maker_died_is_submitted_by_who_looks(api: RunningApi) -> None:
    with connect(api.url) as client:
        started = start(client, request("one"))
        shelf = Shelf(api.store, api.settings.s3_prefix, "default")
        record = shelf.batch(started.id)
        view = record.view.model_copy(update={"status": "validating"})
        shelf.put_batch(BatchRecord(view=view))

        assert client.batches.retrieve(started.id).status == "in_progress"
        assert shelf.batch(started.id).jobs == record.jobs


def test_a_batch_that_is_not_started_yet_is_cancelled_whole(api: RunningApi) -> None:
    with connect(api.url) as client:
        started = start(client, request("one"), request("two", size="128x64"))
        shelf = Shelf(api.store, api.settings.s3_prefix, "default")
        view = shelf.batch(started.id).view.model_copy(update={"status": "validating"})
        shelf.put_batch(BatchRecord(view=view))

        assert client.batches.cancel(started.id).status == "cancelling"
    assert [job.state for job in api.queue.open_jobs()] == ["cancel", "cancel"]


def test_a_batch_that_is_cancelled_while_it_starts_stays_cancelled(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, met = Shelf.opened, list[str]()

    def meets_a_cancel(self: Shelf, file_id: str) -> Any:
        if not met:
            met.append(file_id)
            with connect(api.url) as other:
                (batch,) = other.batches.list().data
                other.batches.cancel(batch.id)
        return real(self, file_id)

    monkeypatch.setattr(Shelf, "opened", meets_a_cancel)
    with connect(api.url) as client:
        started = start(client, request("one"))
        now = client.batches.retrieve(started.id)

    assert (started.status, now.status, len(met)) == ("cancelling", "cancelling", 1)
    assert [job.state for job in api.queue.open_jobs()] == ["cancel"]


def test_batches_and_files_are_listed_in_pages(client: openai.OpenAI) -> None:
    made = [start(client, request("one")).id for _ in range(3)]

    assert [one.id for one in client.batches.list(limit=2)] == made[::-1]
    assert [one.purpose for one in client.files.list(purpose="batch", limit=2)] == ["batch"] * 3
    inputs = client.files.list(purpose="batch").data
    assert client.files.retrieve(inputs[0].id) == inputs[0]
    assert client.files.delete(inputs[0].id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(inputs[0].id)


def test_a_batch_whose_parts_are_gone_has_failed_and_the_others_are_listed(
    api: RunningApi,
) -> None:
    with connect(api.url) as client:
        whole, jobless, unread = (start(client, request("one")) for _ in range(3))
        shelf = Shelf(api.store, api.settings.s3_prefix, "default")
        (job,) = shelf.batch(jobless.id).jobs
        api.store.delete([one.key for one in api.store.list("") if job.id in one.key])
        view = shelf.batch(unread.id).view.model_copy(update={"status": "validating"})
        shelf.put_batch(BatchRecord(view=view))
        client.files.delete(unread.input_file_id)
        for _ in range(2):
            found = client.batches.list().data
            assert [(one.id, one.status) for one in found] == [
                (unread.id, "failed"),
                (jobless.id, "failed"),
                (whole.id, "in_progress"),
            ]
            assert {one.errors.data[0].code for one in found[:2]} == {"gone"}


def test_a_damaged_record_hides_no_other(api: RunningApi) -> None:
    with connect(api.url) as client:
        made = [start(client, request("one")).id for _ in range(3)]
        key = next(one.key for one in api.store.list("") if f"batches/{made[1]}" in one.key)
        api.store.put(key, b'{"view": {}}')
        assert [one.id for one in client.batches.list().data] == [made[2], made[0]]
        with pytest.raises(openai.InternalServerError, match="does not read as one"):
            client.batches.retrieve(made[1])


def test_a_page_reads_its_own_records_alone(api: RunningApi) -> None:
    with connect(api.url) as client:
        made = [start(client, request("one")).id for _ in range(3)]
        shelf = Shelf(api.store, api.settings.s3_prefix, "default")
        batches = shelf.batches()
        assert next(batches).view.id == made[2]
        record = next(one.key for one in api.store.list("") if made[1] in one.key)
        broken = next(one.key for one in api.store.list("") if made[0] in one.key)
        api.store.put(broken, b"nobody reads this")
        assert [one.id for one in client.batches.list(limit=1).data] == [made[2]]
        api.store.put(broken, shelf.batch(made[2]).model_dump_json().encode())

        api.store.delete([record])
        assert next(batches).view.id == made[2], "one that was deleted meanwhile is left out"


def test_files_are_what_was_sent(client: openai.OpenAI) -> None:
    data = jsonl(request("one", "«é»"))
    made = client.files.create(file=("in put\n.jsonl", data), purpose="batch")

    assert (made.bytes, made.object) == (len(data), "file")
    assert client.files.content(made.id).read() == data
    with pytest.raises(openai.UnprocessableEntityError, match="purpose"):
        client.files.create(file=("a.jsonl", data), purpose="assistants")


# ---- keys ----


def test_keys_quotas_and_tenants_hold_here_too(keyed: KeyedApi) -> None:
    keyed.grant("bob", open_jobs=0)
    ann, bob = keyed.make("ann"), keyed.make("bob")
    with connect(keyed.url, ann) as hers, connect(keyed.url, bob) as his:
        batch = start(hers, request("one"))
        file = hers.files.list().data[0]
        refused: list[Callable[[], object]] = [
            lambda: his.batches.retrieve(batch.id),
            lambda: his.batches.cancel(batch.id),
            lambda: his.files.retrieve(file.id),
            lambda: his.files.content(file.id),
            lambda: his.files.delete(file.id),
            lambda: his.batches.create(
                input_file_id=file.id,
                endpoint="/v1/images/generations",
                completion_window="24h",
            ),
        ]
        for call in refused:
            with pytest.raises(openai.NotFoundError):
                call()
        assert his.batches.list().data == his.files.list().data == []
        over = start(his, request("one"))
        assert (over.status, over.errors.data[0].code) == ("failed", "quota_exceeded")
        with pytest.raises(openai.RateLimitError, match="jobs of yours"):
            his.images.generate(model="tiny", prompt="a")
    with connect(keyed.url) as nobody, pytest.raises(openai.AuthenticationError) as caught:
        nobody.files.list()
    assert caught.value.code == "unauthorized"
