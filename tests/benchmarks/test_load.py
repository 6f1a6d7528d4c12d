"""The load proof in small: clients, streams and a file at once, without an error."""

import asyncio
import os

from benchmarks.load import SMALL, Asker, Memory, drive, upload
from jobs.client import Client
from tests.api_renderer import rendering
from tests.api_servers import RunningApi


def test_a_small_load_while_somebody_renders(api: RunningApi) -> None:
    with Client(api.url) as client:
        watched = client.submit(SMALL, ["a"]).id
    with rendering(api), Asker(api.url, watched) as asker:
        seen = asyncio.run(drive(api.url, jobs=40, clients=8, streams=16))

    assert seen.errors == asker.errors == []
    assert seen.submitted == 40
    assert seen.streams_told >= 16
    assert 1 < seen.streams_at_once <= 16
    assert asker.figures()["asked"] > 0


def test_errors_are_counted(api: RunningApi) -> None:
    with Asker(api.url, "a" * 26) as asker:
        seen = asyncio.run(drive(f"{api.url}/nowhere", jobs=2, clients=1, streams=0))
    assert seen.submitted == 0
    assert len(seen.errors) == 2
    assert all("404" in error for error in asker.errors)


def test_an_upload_is_measured_and_taken_back(api: RunningApi) -> None:
    found = upload(api.url, os.getpid(), 3_000)
    assert (found["images"], found["errors"]) == (3_000, [])
    assert found["api_peak_mb"] >= Memory(os.getpid()).now() * 0.5
