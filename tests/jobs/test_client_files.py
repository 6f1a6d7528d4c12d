"""The client's items, pictures and downloads, its tables of prompts, and the client for asyncio."""

import asyncio
import hashlib
import inspect
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import client_download
from jobs.client import Client
from jobs.client_async import AsyncClient
from jobs.client_download import Copying
from jobs.errors import Conflict, FewstepError, InvalidInput, NotFound, TooManyRequests, Unreachable
from jobs.job import JobRequest
from jobs.sources.reading import Reading
from tests.api_keys import KeyedApi
from tests.api_renderer import finish_dataset, render_shards, rendering
from tests.api_servers import RunningApi, serving
from tests.servers import free_port

REQUEST = JobRequest(repeats=2, shard_images=2)
PROMPTS = ["a red circle", {"prompt": "b", "label": "x"}]


@pytest.fixture
def fewstep(api: RunningApi) -> Iterator[Client]:
    with Client(api.url) as client:
        yield client


def done_job(client: Client, api: RunningApi) -> str:
    """A job whose dataset is finished."""
    job_id = client.submit(REQUEST, PROMPTS).id
    render_shards(api, job_id, failed=[3])
    finish_dataset(api, job_id)
    return job_id


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): digest_of(path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


# ---- one by one ----


def test_items_and_pictures(fewstep: Client, api: RunningApi) -> None:
    job_id = done_job(fewstep, api)

    items = list(fewstep.items(job_id))

    assert [item["status"] for item in items] == ["ok", "ok", "ok", "failed"]
    assert [item["image"] for item in fewstep.items(job_id, first=2)] == [2, 3]
    picture = fewstep.picture(job_id, 0)
    assert hashlib.sha256(picture).hexdigest() == items[0]["sha256"]
    with pytest.raises(NotFound):
        fewstep.picture(job_id, 3)


def test_a_table_is_a_prompt_file(fewstep: Client, api: RunningApi, tmp_path: Path) -> None:
    table = pa.table({"prompt": ["a", "b"], "seed": [7, None], "topic": ["x", None]})
    pq.write_table(table, tmp_path / "rows.parquet")

    job_id = fewstep.submit(JobRequest(), tmp_path / "rows.parquet").id

    assert [item["prompt"] for item in fewstep.items(job_id)] == ["a", "b"]
    assert next(fewstep.items(job_id))["seed"] == 7


@pytest.mark.parametrize("content", [None, b"", b"PAR1nonsense"])
def test_a_table_that_is_none_is_named(
    fewstep: Client, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "rows.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"rows\.parquet"):
        fewstep.submit(JobRequest(), path)


def test_a_row_that_json_cannot_hold_is_a_bad_row_as_any_other(
    fewstep: Client, tmp_path: Path
) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"prompt": ["a", "b"], "score": [0.5, float("nan")]}), path)

    with pytest.raises(InvalidInput, match=r"rows\.parquet, row 2"):
        fewstep.submit(JobRequest(), path)
    found = fewstep.submit(JobRequest(source=Reading(bad_rows="quarantine")), path)
    assert found.images == 1
    assert "1 rows cannot be rendered" in found.warnings[0]


def test_a_dry_run_says_what_it_would_cost(fewstep: Client) -> None:
    found = fewstep.dry_run(REQUEST, PROMPTS)

    assert (found.images, found.estimate.seconds) == (4, None)
    assert "would be started" in found.estimate.where


# ---- downloads ----


def test_a_dataset_is_copied_once(fewstep: Client, api: RunningApi, tmp_path: Path) -> None:
    job_id = done_job(fewstep, api)
    seen: list[tuple[int, int]] = []

    first = fewstep.download(job_id, tmp_path, lambda there, total: seen.append((there, total)))
    again = fewstep.download(job_id, tmp_path)

    assert (first, again) == (len(fewstep.results(job_id)["files"]), 0)
    assert seen[-1][0] == seen[-1][1] > 0
    assert {"_SUCCESS", "train/00000.tar", "job.json"} <= set(digests(tmp_path))


def test_a_download_goes_on_and_mends(fewstep: Client, api: RunningApi, tmp_path: Path) -> None:
    job_id = done_job(fewstep, api)
    fewstep.download(job_id, tmp_path)
    whole = digests(tmp_path)
    tar, other = tmp_path / "train/00000.tar", tmp_path / "train/00001.tar"
    data = tar.read_bytes()
    # One was cut half way, one has a wrong byte, one has a cut start that is wrong.
    tar.unlink()
    tar.with_name(".00000.tar.part").write_bytes(data[:700])
    flipped = bytearray(other.read_bytes())
    flipped[600] ^= 1
    other.write_bytes(flipped)
    table = tmp_path / "train/00000.parquet"
    table.unlink()
    table.with_name(".00000.parquet.part").write_bytes(b"wrong")

    assert fewstep.download(job_id, tmp_path) == 3
    assert digests(tmp_path) == whole


def test_what_was_written_anew_is_copied_whatever_its_size(
    fewstep: Client, api: RunningApi, tmp_path: Path
) -> None:
    """Of files about the dataset there is no digest; `_SUCCESS` has the same size for ever."""
    job_id = done_job(fewstep, api)
    fewstep.download(job_id, tmp_path)
    fewstep.drop(job_id, "image = 0")

    assert fewstep.download(job_id, tmp_path) > 0
    files = fewstep.results(job_id)["files"]
    there = {file["name"]: digest_of(api.store.get(file["key"])) for file in files}
    assert {name: digests(tmp_path)[name] for name in there} == there
    assert fewstep.download(job_id, tmp_path) == 0


def test_a_file_that_stays_wrong_is_named(fewstep: Client, api: RunningApi, tmp_path: Path) -> None:
    job_id = done_job(fewstep, api)
    files = fewstep.results(job_id)["files"]
    tar = next(file for file in files if file["name"] == "train/00000.tar")
    api.store.put(tar["key"], b"x" * tar["bytes"])

    with pytest.raises(FewstepError, match=r"train/00000\.tar"):
        fewstep.download(job_id, tmp_path)
    assert not (tmp_path / "train/00000.tar").exists()
    assert not (tmp_path / "_SUCCESS").exists()


def test_no_name_leaves_the_folder(tmp_path: Path) -> None:
    file = {"name": "../evil", "bytes": 1, "sha256": "", "link": "http://127.0.0.1:1/"}
    with pytest.raises(InvalidInput, match="outside"):
        Copying(tmp_path / "out", lambda *_: None, trust_env=False).take([file])


class Links(BaseHTTPRequestHandler):
    """A store whose old links are refused and whose new ones work."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        old = self.path.startswith("/old/")
        self.send_response(403 if old else 200)
        self.send_header("Content-Length", "0" if old else "3")
        self.end_headers()
        self.wfile.write(b"" if old else b"abc")

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""


@pytest.fixture
def links() -> Iterator[str]:
    """Where that store is."""
    Links.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Links) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def linked(base: str, *pairs: tuple[str, str]) -> list[dict[str, object]]:
    """Files by their names and the age of their links."""
    return [
        {"name": name, "bytes": 3, "sha256": "", "link": f"{base}/{age}/{name}"}
        for name, age in pairs
    ]


def _watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that are looked at, from now on."""
    seen: list[str] = []
    right = client_download._right

    def watched(path: Path, file: dict[str, Any]) -> bool:
        seen.append(path.name)
        return right(path, file)

    monkeypatch.setattr(client_download, "_right", watched)
    return seen


def test_links_that_ran_out_are_asked_for_again(
    links: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def files(first: str, second: str) -> list[dict[str, object]]:
        return linked(links, ("train/a", first), ("_SUCCESS", second))

    copying = Copying(tmp_path, lambda *_: None, trust_env=False)
    assert not copying.take(files("new", "old"))
    seen = _watched(monkeypatch)
    assert copying.take(files("new", "new"))
    assert copying.copied == 2
    # What is known to be right is not read again with each new set of links: of a large dataset
    # that takes longer than links work.
    assert "a" not in seen
    stuck = Copying(tmp_path / "b", lambda *_: None, trust_env=False)
    assert not stuck.take(files("old", "old"))
    with pytest.raises(FewstepError, match="refuses the links"):
        stuck.take(files("old", "old"))


def test_whose_dataset_it_is_is_copied_first(links: str, tmp_path: Path) -> None:
    """By it a folder that was cut short is known again, and goes on to be filled."""
    many = [(f"data/train-{number:05d}.parquet", "new") for number in range(9)]
    files = linked(links, *many, ("job.json", "new"), ("_SUCCESS", "new"))
    assert Copying(tmp_path, lambda *_: None, trust_env=False).take(files)
    assert (Links.asked[0], Links.asked[-1]) == ("/new/job.json", "/new/_SUCCESS")


def test_an_unfinished_dataset_is_not_copied(fewstep: Client, tmp_path: Path) -> None:
    job_id = fewstep.submit(REQUEST, PROMPTS).id
    with pytest.raises(Conflict, match="waiting"):
        fewstep.download(job_id, tmp_path)


# ---- too fast ----


def test_a_key_that_sends_too_fast_waits_by_itself(keyed: KeyedApi) -> None:
    quick, slow = keyed.make("ann", requests_a_minute=60), keyed.make("bob", requests_a_minute=6)
    with Client(keyed.url, key=quick) as client:
        for _ in range(11):
            client.models()
    with Client(keyed.url, key=slow) as client:
        client.models()
        with pytest.raises(TooManyRequests):
            client.models()


# ---- for asyncio ----


def test_both_clients_have_the_same_verbs() -> None:
    def verbs(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in vars(kind).items()
            if callable(method) and not name.startswith("__")
        }

    assert verbs(Client) == verbs(AsyncClient)


def test_a_job_from_submission_to_dataset_without_blocking(api: RunningApi, tmp_path: Path) -> None:
    async def run() -> None:
        async with AsyncClient(api.url) as client:
            assert (await client.dry_run(REQUEST, PROMPTS)).images == 4
            job = await client.submit(REQUEST, PROMPTS, idempotency_key="k")
            assert not (await client.submit(REQUEST, PROMPTS, idempotency_key="k")).created
            await client.pause(job.id)
            assert (await client.resume(job.id)).state == "waiting"
            assert (await client.set_priority(job.id, 9)).priority == 9
            with rendering(api):
                states = [view.state async for view in client.watch(job.id)]
            assert states[-1] == "done"
            items = [item async for item in client.items(job.id)]
            assert [item["status"] for item in items] == ["ok"] * 4
            picture = await client.picture(job.id, 1)
            assert hashlib.sha256(picture).hexdigest() == items[1]["sha256"]
            assert [one async for one in client.failed(job.id)] == []
            assert await client.download(job.id, tmp_path) > 5
            assert (await client.timing(job.id))["images"] == 4
            assert [view.id for view in await client.jobs(state="done")] == [job.id]
            assert (await client.health())["status"] == "ok"
            assert "tiny" in await client.models()

    asyncio.run(run())
    assert (tmp_path / "_SUCCESS").exists()


def test_its_errors_are_the_servers(api: RunningApi) -> None:
    async def run() -> None:
        async with AsyncClient(api.url) as client:
            with pytest.raises(NotFound):
                await client.job("a" * 26)
            with pytest.raises(NotFound):
                async for _ in client.events("a" * 26):
                    pass
            with pytest.raises(InvalidInput, match="line 1"):
                await client.submit(JobRequest(), [" "])
        async with AsyncClient(f"http://127.0.0.1:{free_port()}") as client:
            with pytest.raises(Unreachable, match="fewstep up"):
                await client.health()

    asyncio.run(run())


def test_a_lost_reply_makes_no_second_job_there_either(api: RunningApi) -> None:
    class Lossy(httpx.AsyncBaseTransport):
        losses = 2

        def __init__(self) -> None:
            self._inner = httpx.AsyncHTTPTransport()

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            reply = await self._inner.handle_async_request(request)
            if self.losses:
                self.losses -= 1
                await reply.aclose()
                raise httpx.ReadTimeout("the reply was lost", request=request)
            return reply

        async def aclose(self) -> None:
            await self._inner.aclose()

    async def run() -> None:
        async with AsyncClient(api.url, transport=Lossy()) as client:
            done = await client.submit(JobRequest(), PROMPTS)
            assert done.created is False
            assert [view.id for view in await client.jobs()] == [done.id]

    asyncio.run(run())


def test_it_bears_an_api_that_is_away_too(api: RunningApi) -> None:
    async def run() -> None:
        port = free_port()
        async with AsyncClient(f"http://127.0.0.1:{port}") as client:
            with serving(api.settings, port):
                job = await client.submit(JobRequest(), PROMPTS)
                views = client.watch(job.id)
                assert (await anext(views)).state == "waiting"
            api.queue.state(job.id, "cancel")
            assert api.queue.finish(job.id, "cancelled") == "ok"
            with serving(api.settings, port):
                assert [view.state async for view in views] == ["cancelled"]

    asyncio.run(run())
