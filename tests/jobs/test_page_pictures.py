"""Pictures of the page: made few at a time and kept in bounds; a retry's tabs show the retry."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from jobs import pictures, thumbnails
from jobs.api.house import MAKERS
from jobs.discard import discard_job
from jobs.kept import KEEP_S, KeptFiles
from jobs.pictures import PictureFile
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from tests.api_calls import layout_of, submit
from tests.api_renderer import render_shards
from tests.api_servers import RunningApi
from tests.jobs.test_api_retry import render
from tests.rendered_jobs import Workshop


def test_small_pictures_are_made_few_at_a_time_and_once(
    http: httpx.Client, api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(http, {"job": {"shard_images": 12}, "prompts": ["a"] * 12})
    render_shards(api, job_id)
    real, lock, enough = thumbnails._small, threading.Lock(), threading.Event()
    now = most = made = 0

    def watched(found: PictureFile) -> PictureFile:
        nonlocal now, most, made
        with lock:
            now, made = now + 1, made + 1
            most = max(most, now)
            if now > MAKERS or made == 12:
                enough.set()
        # Long enough for all to come in, were they let in.
        enough.wait(0.3)
        with lock:
            now -= 1
        return real(found)

    monkeypatch.setattr(thumbnails, "_small", watched)
    paths = [f"/jobs/{job_id}/pictures/{image}/thumb" for image in range(12)]
    with ThreadPoolExecutor(12) as browsers:
        first = list(browsers.map(http.get, paths))
    assert {reply.status_code for reply in first} == {200}
    assert (most, made) == (MAKERS, 12)
    assert [http.get(path).content for path in paths] == [reply.content for reply in first]
    assert made == 12


def test_a_shard_that_was_written_anew_is_found(http: httpx.Client, api: RunningApi) -> None:
    job_id = submit(http, {"job": {"shard_images": 4}, "prompts": ["a"] * 4})
    render_shards(api, job_id)
    picture, sheet = f"/v1/jobs/{job_id}/items/2/picture", f"/jobs/{job_id}/shards/0/sheet"
    before = http.get(picture)
    folder = layout_of(api, job_id).shards
    assert before.status_code == http.get(f"/jobs/{job_id}/pictures/1/thumb").status_code == 200
    for end in (".tar", ".parquet", "_stats.json"):
        data = api.store.get(f"{folder}00000{end}")
        if end == "_stats.json":
            data = data.replace(b'"00000.', b'"00000-0000-0003.')
        api.store.put(f"{folder}00000-0000-0003{end}", data)
        api.store.delete([f"{folder}00000{end}"])
    assert http.get(picture).content == before.content
    assert http.get(sheet).headers["content-type"] == "image/jpeg"


def test_what_is_kept_is_bounded_in_bytes_and_time() -> None:
    now = 0.0
    kept, made = KeptFiles(100, lambda: now), list[int]()

    def get(number: int) -> PictureFile:
        def make() -> PictureFile:
            made.append(number)
            return PictureFile(b"x" * 40, "image/png", f"{number}")

        return kept.get(number, make)

    for number in (0, 1, 0, 2, 0, 1):
        assert get(number).sha256 == f"{number}"
    assert made == [0, 1, 2, 1], "the one that was used last stays"
    now = KEEP_S
    get(1), get(1)
    assert made == [0, 1, 2, 1, 1], "what may have been deleted is not shown for ever"
    assert kept._bytes == 80


def test_a_deleted_dataset_shows_nothing_that_was_kept(
    http: httpx.Client, api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither from the API's memory, nor from that of a browser, which asks with a tag."""
    monkeypatch.setattr(pictures, "SEEN_S", 0.0)
    job_id = submit(http, {"job": {"shard_images": 2}, "prompts": ["a"] * 4})
    render_shards(api, job_id)
    paths = [f"/jobs/{job_id}/{rest}" for rest in ("cover", "pictures/3/thumb", "shards/1/sheet")]
    paths += [f"/jobs/{job_id}/pictures/3/file"]
    tags = {}
    for path in paths:
        tags[path] = {"If-None-Match": http.get(path).headers["etag"]}
        assert http.get(path, headers=tags[path]).status_code == 304
        assert http.get(path, headers={"If-None-Match": f'"{"0" * 64}"'}).status_code == 200
    discard_job(api.store, layout_of(api, job_id))
    for path in paths:
        for headers in ({}, tags[path]):
            gone = http.get(path, headers=headers)
            nothing = (
                (404, "text/html; charset=utf-8") if "file" in path else (200, "image/svg+xml")
            )
            assert (gone.status_code, gone.headers["content-type"]) == nothing, path
    assert http.get(f"/v1/jobs/{job_id}/items/3/picture").status_code == 404


def test_a_tar_is_looked_for_once_for_a_page_of_pictures(
    http: httpx.Client, api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "SEEN_S", 600.0)
    job_id = submit(http, {"job": {"shard_images": 6}, "prompts": ["a"] * 6})
    render_shards(api, job_id)
    paths = [f"/jobs/{job_id}/pictures/{image}/thumb" for image in range(6)]
    tags = [{"If-None-Match": http.get(path).headers["etag"]} for path in paths]
    asked, real = list[str](), Store._read

    def counted(store: Store, key: str, *some: Any) -> Any:
        asked.append(key)
        return real(store, key, *some)

    monkeypatch.setattr(Store, "_read", counted)
    for path, tag in zip(paths, tags, strict=True):
        assert http.get(path, headers=tag).status_code == 304
    assert [key for key in asked if "/train/" in key] == []


@pytest.fixture
def shop(api: RunningApi) -> Workshop:
    return Workshop(ShardQueue(api.redis), api.store)


@pytest.fixture
def retried(http: httpx.Client, shop: Workshop) -> str:
    """A job of eight images, of which a retry made four; the retry's id."""
    prompts = [f"number {number}" for number in range(8)]
    job_id = submit(http, {"job": {"name": "mended", "shard_images": 2}, "prompts": prompts})
    render(shop, job_id, {1, 2, 5, 6})
    retry_id = str(http.post(f"/v1/jobs/{job_id}/retry-failed").json()["id"])
    render(shop, retry_id, set())
    return retry_id


def test_pictures_of_a_retry_read_its_manifests_once(
    http: httpx.Client, retried: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, asked = retried.partition("-")[0], list[str]()
    real = pictures.retried_manifests

    def counted(*some: Any) -> Any:
        asked.append("later")
        return real(*some)

    monkeypatch.setattr(pictures, "retried_manifests", counted)
    for image in (1, 2, 5, 6):
        reply = http.get(f"/jobs/{job_id}/pictures/{image}/thumb")
        assert reply.headers["content-type"] == "image/png"
    assert asked == ["later"]


def test_a_retry_shows_its_own_pictures_and_times(http: httpx.Client, retried: str) -> None:
    assert http.get(f"/jobs/{retried}").text.count("cell is-made") == 4
    grid = http.get(f"/jobs/{retried}/pictures").text
    assert re.findall(r'aria-label="Picture (\d+):', grid) == ["1", "2", "5", "6"]
    assert "0 – 3 of 4" in grid
    found = http.get(f"/jobs/{retried}/pictures", params={"prompt": "NUMBER 5"}).text
    assert re.findall(r'aria-label="Picture (\d+):', found) == ["5"]
    for shown, images in ((retried, 4), (retried.partition("-")[0], 8)):
        text = http.get(f"/jobs/{shown}/timing").text
        assert re.search(r"<dt>Pictures</dt><dd>(\d+)</dd>", text)[1] == f"{images}"  # type: ignore[index]


def test_the_coverage_of_a_retry_is_that_of_the_whole_job(http: httpx.Client, retried: str) -> None:
    for shown in (retried, retried.partition("-")[0]):
        found = http.get(f"/v1/jobs/{shown}/coverage").json()
        assert (found["made"], found["images"], found["errors"]) == (8, 8, {})
        page = http.get(f"/jobs/{shown}/coverage").text
        assert '<span id="made">8</span> of 8' in page
        shards = http.get(f"/jobs/{shown}/shards").text
        assert len(re.findall(r"Contact sheet of shard \d", shards)) == 6


def test_the_coverage_of_a_dataset_that_grows(http: httpx.Client, shop: Workshop) -> None:
    rows = [{"prompt": "a", "label": label} for label in ("star", "star", "ring")]
    job_id = submit(http, {"job": {"name": "grown", "shard_images": 2}, "prompts": rows})
    render(shop, job_id, {2})

    def labels() -> dict[str, tuple[int, int]]:
        (column,) = http.get(f"/v1/jobs/{job_id}/coverage").json()["columns"]
        return {one["value"]: (one["made"], one["expected"]) for one in column["values"]}

    assert labels() == {"star": (2, 2), "ring": (0, 1)}
    added = http.post(f"/v1/jobs/{job_id}/extend", json={"repeats": 2}).json()["id"]
    assert labels() == {"star": (2, 6), "ring": (0, 3)}
    render(shop, added, set())
    assert labels() == {"star": (6, 6), "ring": (2, 3)}
    for path in (f"/jobs/{added}", f"/jobs/{added}/pictures", f"/jobs/{added}/timing"):
        assert http.get(path).status_code == 200
    assert http.get(f"/jobs/{job_id}/pictures/8/thumb").headers["content-type"] == "image/png"


def test_what_is_dropped_is_gone_from_pictures_shards_and_coverage(
    http: httpx.Client, shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "SEEN_S", 0.0)
    rows = [{"prompt": "a", "label": label} for label in ("star", "ring", "star", "ring")]
    job_id = submit(http, {"job": {"name": "dropped", "shard_images": 2}, "prompts": rows})
    render(shop, job_id, set())
    paths = [f"/v1/jobs/{job_id}/items/{image}/picture" for image in range(4)]
    before = [http.get(path).content for path in paths]
    small = [f"/jobs/{job_id}/pictures/{image}/thumb" for image in range(4)]
    tags = [{"If-None-Match": http.get(path).headers["etag"]} for path in small]

    def labels() -> dict[str, int]:
        (column,) = http.get(f"/v1/jobs/{job_id}/coverage").json()["columns"]
        return {one["value"]: one["made"] for one in column["values"]}

    assert labels() == {"ring": 2, "star": 2}
    asked = {"where": "label = 'star' and image > 0"}
    assert http.post(f"/v1/jobs/{job_id}/drop", json=asked).json()["dropped"] == 1
    assert labels() == {"ring": 2, "star": 1}
    after = [http.get(path) for path in paths]
    assert [reply.status_code for reply in after] == [200, 200, 404, 200]
    assert [after[n].content for n in (0, 1, 3)] == [before[n] for n in (0, 1, 3)]
    kept = [http.get(path, headers=tag) for path, tag in zip(small, tags, strict=True)]
    assert [reply.status_code for reply in kept] == [304, 304, 200, 304]
    assert kept[2].headers["content-type"] == "image/svg+xml"
    shards = http.get(f"/v1/jobs/{job_id}/shards").json()["shards"]
    assert [(one["shard"], one["ok"]) for one in shards] == [(0, 2), (1, 1)]
    for rest in ("coverage", "shards", "pictures", "shards/1/sheet"):
        assert http.get(f"/jobs/{job_id}/{rest}").status_code == 200
    assert http.post(f"/v1/jobs/{job_id}/undo-drop").status_code == 200
    assert labels() == {"ring": 2, "star": 2}
    assert [http.get(path).content for path in paths] == before
