"""Estimates, prompt files by reference, filters and metrics."""

from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from jobs.api.queue_metrics import ENGINES_MAX, PAIRS_MAX
from jobs.queue_speeds import Speed
from jobs.queue_values import SubmitRequest
from jobs.row_checks import device_seconds
from jobs.settings import Settings
from tests.api_calls import BODY, submit
from tests.api_keys import KeyedApi
from tests.api_renderer import finish_dataset, job_of, render_shards
from tests.api_servers import RunningApi, serving
from tests.made_shards import MAKER
from tests.s3_servers import settings_for
from tests.servers import free_port, wait_until


def estimate(http: httpx.Client) -> dict[str, object]:
    reply = http.post("/v1/jobs?dry_run=true", json=BODY)
    assert reply.status_code == 200, reply.text
    return dict(reply.json()["estimate"])


# ---- estimates ----


def test_an_estimate_is_unknown_until_a_job_has_measured_it(
    http: httpx.Client, api: RunningApi
) -> None:
    before = estimate(http)
    job_id = submit(http)
    engine = job_of(api, job_id).recipe.engine_key
    api.queue.heartbeat(MAKER.worker, {"engine_key": engine, "device": "cpu", "state": "idle"})
    render_shards(api, job_id)
    finish_dataset(api, job_id)
    after = estimate(http)

    assert before["where"] == "no renderer lives: one would be started"
    assert [before[name] for name in ("device", "device_seconds", "seconds", "price")] == [None] * 4
    assert after["where"] == "1 renderer holds this engine (cpu)"
    # Two shards of 640 ms each for four images, and as many images again.
    assert (after["device"], after["device_seconds"], after["measured_images"]) == ("cpu", 1.28, 4)
    assert after["price"] is None


def test_an_estimate_scales_and_has_a_price(api: RunningApi) -> None:
    settings = api.settings.model_copy(update={"device_hour_price": 3.6})
    with serving(settings) as url, httpx.Client(base_url=url, trust_env=False) as http:
        job_id = submit(http)
        recipe = job_of(api, job_id).recipe
        api.queue.note_speed(recipe.batch_key, Speed("H100", 1_000, 50.0, 80.0))
        for worker in ("a", "b"):
            api.queue.heartbeat(worker, {"engine_key": recipe.engine_key, "device": "H100"})
        found = estimate(http)

    assert (found["renderers"], found["where"]) == (2, "2 renderers hold this engine (H100)")
    assert (found["device_seconds"], found["seconds"]) == (0.2, 0.16)
    assert found["price"] == pytest.approx(0.2 / 3600 * 3.6)


def test_newer_jobs_count_more(api: RunningApi) -> None:
    api.queue.note_speed("key", Speed("cpu", 100, 100.0, 100.0))
    api.queue.note_speed("key", Speed("cpu", 100, 40.0, 50.0))

    (known,) = api.queue.speeds("key")
    assert known == Speed("cpu", 150.0, 90.0, 100.0)
    assert api.redis.ttl(api.queue.key("speed:key")) > 0


# ---- prompt files by reference ----


@pytest.fixture
def places(api: RunningApi) -> Iterator[tuple[httpx.Client, Settings]]:
    """An API that reads prompt files from `inbox/{tenant}/` of its bucket."""
    bucket = api.settings.s3_bucket
    # The last as no setting can be written: without its slash.
    allowed = f"s3://{bucket}/inbox/{{tenant}}/ s3://{bucket}/datasets/ s3://{bucket}/of/{{tenant}}"
    settings = api.settings.model_copy(update={"prompt_sources": allowed})
    with (
        serving(settings) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=20) as http,
    ):
        yield http, settings


def named(settings: Settings, key: str, **more: object) -> dict[str, object]:
    return {"prompts_from": {"uri": f"s3://{settings.s3_bucket}/{key}", **more}}


def test_a_prompt_file_is_named_instead_of_sent(
    api: RunningApi, places: tuple[httpx.Client, Settings]
) -> None:
    http, settings = places
    put = api.store.put("inbox/default/rows.jsonl", b'{"prompt": "a"}\n{"prompt": "b", "seed": 7}')
    body = named(settings, "inbox/default/rows.jsonl", etag=put.etag)

    first = http.post("/v1/jobs", json=body, headers={"Idempotency-Key": "k"})
    again = http.post("/v1/jobs", json=body, headers={"Idempotency-Key": "k"})

    assert (first.status_code, first.json()["images"]) == (202, 2)
    assert again.json() == first.json() | {"created": False}


def test_a_prompt_file_of_another_version_is_refused(
    api: RunningApi, places: tuple[httpx.Client, Settings]
) -> None:
    http, settings = places
    old = api.store.put("inbox/default/rows.txt", b"a").etag
    api.store.put("inbox/default/rows.txt", b"b")

    reply = http.post("/v1/jobs", json=named(settings, "inbox/default/rows.txt", etag=old))

    assert (reply.status_code, reply.json()["where"]) == (409, "prompts_from")


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("inbox/default/none.txt", "no such file"),
        ("inbox/bob/rows.txt", "not read from there"),
        ("of/defaults/rows.txt", "not read from there"),
        ("inbox/default/../bob/rows.txt", "names no file"),
        ("inbox/default//rows.txt", "names no file"),
        ("datasets/default/x/job.txt", "not read from there"),
        ("inbox/default/rows.xls", "no known kind"),
        ("", "names no file"),
    ],
)
def test_what_may_not_be_read_is_refused(
    api: RunningApi, places: tuple[httpx.Client, Settings], key: str, says: str
) -> None:
    http, settings = places
    for there in ("inbox/bob/rows.txt", "datasets/default/x/job.txt"):
        api.store.put(there, b"a")

    reply = http.post("/v1/jobs", json=named(settings, key))

    assert (reply.status_code, reply.json()["where"]) == (422, "prompts_from")
    assert says in reply.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {"prompts_from": "s3://a/b.txt"},
        {"prompts_from": {"uri": 1}},
        {"prompts_from": {"uri": "s3://a/b.txt", "key": "x"}},
        {"prompts_from": {"uri": "file:///etc/passwd.txt"}},
        {"prompts_from": {"uri": "http://169.254.169.254/latest.txt"}},
        {"prompts_from": {"uri": "s3://a/b.txt"}, "prompts": ["a"]},
    ],
)
def test_a_reference_that_is_none_is_refused(http: httpx.Client, body: dict[str, object]) -> None:
    assert http.post("/v1/jobs", json=body).status_code == 422


# ---- filters and metrics ----


def test_jobs_are_found_by_name_and_model(http: httpx.Client) -> None:
    def made(name: str) -> str:
        return submit(http, {"job": {"name": name}, "prompts": ["a"]})

    first, second = made("Red Shapes"), made("blue")

    def found(query: str) -> list[str]:
        return [job["id"] for job in http.get(f"/v1/jobs?{query}").json()["jobs"]]

    assert found("name=shapes") == [first]
    assert found("model=tiny") == [second, first]
    assert found("model=sdxl") == []


def samples(text: str) -> dict[str, float]:
    """Every sample of a metrics page, by name and labels."""
    return {
        one.name
        + "".join(f" {key}={value}" for key, value in sorted(one.labels.items())): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def test_metrics_tell_queue_renderers_stages_and_requests(
    http: httpx.Client, api: RunningApi
) -> None:
    done, waiting = submit(http), None
    engine = job_of(api, done).recipe.engine_key
    api.queue.heartbeat(MAKER.worker, {"engine_key": engine, "state": "rendering"})
    render_shards(api, done, failed=[3])
    finish_dataset(api, done)
    waiting = submit(http)
    before = samples(http.get("/metrics").text)
    http.get(f"/v1/jobs/{waiting}")
    http.get("/v1/nowhere/at/all")
    after = samples(http.get("/metrics").text)

    assert before["fewstep_jobs state=run"] == 1
    assert before["fewstep_images state=waiting"] == 4
    assert before[f"fewstep_queue_images engine={engine} tenant=default"] == 4
    cost = device_seconds(job_of(api, waiting).recipe)
    waits = before[f"fewstep_queue_device_seconds engine={engine} tenant=default"]
    assert waits == pytest.approx(4 * cost)
    assert 0 <= before["fewstep_queue_wait_seconds"] < 600
    assert before[f"fewstep_renderers engine={engine} state=rendering"] == 1
    assert before["fewstep_redis_up"] == 1
    assert before["fewstep_redis_memory_bytes"] > 0
    assert before["fewstep_store_requests_total operation=PutObject result=ok"] > 0
    assert before["fewstep_done_images_total state=ok"] == 3
    assert before["fewstep_done_images_total state=failed"] == 1
    assert before["fewstep_stage_seconds_total stage=denoising"] == pytest.approx(0.033, abs=0.01)
    shown = "fewstep_http_requests_total method=GET route=/v1/jobs/{job_id} status=200"
    assert after[shown] == before.get(shown, 0) + 1
    strange = "fewstep_http_requests_total method=any route=none status=404"
    assert after[strange] == before.get(strange, 0) + 1
    assert not any(waiting in name for name in after)


def test_what_renderers_and_the_scheduler_tell_is_shown(
    http: httpx.Client, api: RunningApi
) -> None:
    before = samples(http.get("/metrics").text)
    api.queue.note_totals(
        {"image:nan": 1, "work:denoise": 0.5, "stall:store": 0.25, "unit:late": 1}
    )
    api.queue.note_pool({"slots": 8, "renderers": 3, "draining": 1})
    after = samples(http.get("/metrics").text)

    for name, more in (
        ("fewstep_rendered_images_total status=nan", 1),
        ("fewstep_work_seconds_total stage=denoise", 0.5),
        ("fewstep_stall_seconds_total cause=store", 0.25),
        ("fewstep_units_total answer=late", 1),
    ):
        assert after[name] == before.get(name, 0) + more
    pool = [after[f"fewstep_pool_{name}"] for name in ("slots", "renderers", "draining")]
    assert pool == [8, 3, 1]
    assert api.redis.ttl(api.queue.key("pool")) > 0


def test_events_are_counted_as_they_pass(http: httpx.Client, api: RunningApi) -> None:
    name = "fewstep_events_total type=submit"
    before = samples(http.get("/metrics").text).get(name, 0)
    submit(http)

    wait_until(lambda: samples(http.get("/metrics").text).get(name, 0) > before, "the event")


def test_many_tenants_and_engines_are_few_labels(http: httpx.Client, api: RunningApi) -> None:
    for number in range(PAIRS_MAX + 5):
        api.queue.submit(
            SubmitRequest(
                job_id=f"j{number}",
                tenant=f"tenant{number}",
                engine_key=f"engine{number}",
                images=1_000 - number,
                shard_images=1_000,
                spec_sha256="0" * 64,
            )
        )
    for number in range(ENGINES_MAX + 5):
        info = {"engine_key": f"e{number}", "state": f"made up {number}"}
        api.queue.heartbeat(f"w{number}", info)
    found = samples(http.get("/metrics").text)
    queue = {name: value for name, value in found.items() if "fewstep_queue_images" in name}
    renderers = [name for name in found if name.startswith("fewstep_renderers ")]

    assert len(queue) == PAIRS_MAX + 1
    # The shallowest five together.
    rest = sum(1_000 - number for number in range(PAIRS_MAX, PAIRS_MAX + 5))
    assert queue["fewstep_queue_images engine=other tenant=other"] == rest
    assert len(renderers) == ENGINES_MAX + 1
    assert all("state=other" in name for name in renderers)


def test_without_redis_the_metrics_say_so(moto_url: str) -> None:
    url = SecretStr(f"redis://127.0.0.1:{free_port()}/0")
    settings = settings_for(moto_url).model_copy(update={"redis_url": url})
    with serving(settings) as api_url, httpx.Client(base_url=api_url, trust_env=False) as http:
        http.get("/healthz")
        reply = http.get("/metrics", timeout=20)
    found = samples(reply.text)

    assert (reply.status_code, found["fewstep_redis_up"]) == (200, 0)
    assert found["fewstep_http_requests_total method=GET route=/healthz status=200"] >= 1
    assert not any(name.startswith("fewstep_jobs") for name in found)


def test_a_made_up_method_is_no_label(http: httpx.Client) -> None:
    codes = {http.request(f"MADEUP{n}", "/v1/jobs").status_code for n in range(3)}
    after = samples(http.get("/metrics").text)

    assert codes == {405}
    assert after["fewstep_http_requests_total method=any route=/v1/jobs status=405"] == 3
    assert not any("MADEUP" in name for name in after)


def test_metrics_are_the_operators(keyed: KeyedApi) -> None:
    admin, reader = keyed.make("ops", ("admin",)), keyed.make("ann")
    with keyed.visit(admin) as rules, keyed.visit(reader) as reads, keyed.visit("") as nobody:
        codes = [one.get("/metrics").status_code for one in (rules, reads, nobody)]

    assert codes == [200, 403, 401]
