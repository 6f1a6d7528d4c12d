"""`make load`: many clients, many open streams and one huge file against one API, while it renders.

python -m benchmarks.load [--jobs 1000] [--clients 50] [--streams 200] [--rows 1000000]
"""

import argparse
import asyncio
import json
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from fewstep.local import Stack
from jobs.client import Client
from jobs.client_async import AsyncClient
from jobs.errors import FewstepError
from jobs.job import JobRequest
from jobs.recipe import RecipeRequest

OUT = Path(__file__).resolve().parent / "results" / "load.json"
#: One step, two images: the load is on the API, and rendering goes on all the time.
SMALL = JobRequest(recipe=RecipeRequest(steps=1))
PROMPTS = ["a red circle", "a blue star"]
#: Between two questions of the one who measures.
POLL_S = 0.02
MEGABYTE = 1e6
#: After the last submission every stream must have told something within this time.
TOLD_S = 60.0
#: What a client may raise; anything else is a fault of this file's own.
FAULTS = (FewstepError, httpx.HTTPError)


@dataclass
class Driven:
    """What the clients saw."""

    submitted: int = 0
    errors: list[str] = field(default_factory=list)
    #: Streams that were open at once at most, and those that brought at least one view.
    streams_at_once: int = 0
    streams_told: int = 0
    seconds: float = 0.0


class Crowd:
    """Clients that submit, and streams that follow what was submitted."""

    def __init__(self, url: str, clients: int) -> None:
        self.seen = Driven()
        self._each = [AsyncClient(url) for _ in range(clients)]
        self._fresh: asyncio.Queue[str] = asyncio.Queue()
        self._open = 0

    async def run(self, jobs: int, streams: int) -> None:
        """Submit so many jobs in all, and end when every stream has told something."""
        numbers, count = iter(range(jobs)), len(self._each)
        following = [
            asyncio.create_task(self._follow(self._each[n % count])) for n in range(streams)
        ]
        await asyncio.gather(*(self._submit(one, numbers) for one in self._each))
        end = time.perf_counter() + TOLD_S
        while self.seen.streams_told < min(streams, self.seen.submitted):
            if time.perf_counter() > end:
                self.seen.errors.append("not every stream has told a view")
                break
            await asyncio.sleep(0.1)
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
        for client in self._each:
            await client.close()

    async def _submit(self, client: AsyncClient, numbers: Iterator[int]) -> None:
        for _ in numbers:
            try:
                done = await client.submit(SMALL, PROMPTS)
            except FAULTS as error:
                self.seen.errors.append(f"submit: {error!r}"[:300])
                continue
            self.seen.submitted += 1
            self._fresh.put_nowait(done.id)

    async def _follow(self, client: AsyncClient) -> None:
        """One stream; when its job has ended it takes the next one."""
        while True:
            job_id = await self._fresh.get()
            self._open += 1
            self.seen.streams_at_once = max(self.seen.streams_at_once, self._open)
            try:
                await self._read(client, job_id)
            except FAULTS as error:
                self.seen.errors.append(f"stream: {error!r}"[:300])
            self._open -= 1

    async def _read(self, client: AsyncClient, job_id: str) -> None:
        told = False
        async for event in client.events(job_id):
            self.seen.streams_told += not told and event["data"]["id"] == job_id
            told = True


async def drive(url: str, *, jobs: int, clients: int, streams: int) -> Driven:
    """Submit `jobs` by `clients` while `streams` follow them; what they saw."""
    crowd, began = Crowd(url, clients), time.perf_counter()
    await crowd.run(jobs, streams)
    crowd.seen.seconds = round(time.perf_counter() - began, 2)
    return crowd.seen


class Asker:
    """Asks for one job over and over, and notes how long each answer took, in milliseconds."""

    def __init__(self, url: str, job_id: str) -> None:
        self.times: list[float] = []
        self.errors: list[str] = []
        self._url, self._path, self._stop = url, f"/v1/jobs/{job_id}", threading.Event()
        self._thread = threading.Thread(target=self._ask, name="asker")

    def __enter__(self) -> "Asker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, trust_env=False, timeout=30) as http:
            while not self._stop.wait(POLL_S):
                began = time.perf_counter()
                try:
                    http.get(self._path).raise_for_status()
                except httpx.HTTPError as error:
                    self.errors.append(repr(error)[:300])
                self.times.append((time.perf_counter() - began) * 1e3)

    def figures(self) -> dict[str, float]:
        """How many, and the quantiles."""
        ordered = sorted(self.times)
        quantiles = {name: ordered[round(q * (len(ordered) - 1))] for name, q in _QUANTILES.items()}
        return {"asked": len(ordered)} | {name: round(ms, 1) for name, ms in quantiles.items()}


_QUANTILES = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}


class Memory:
    """The resident set of one process, and its peak since `forget`, in megabytes."""

    def __init__(self, pid: int) -> None:
        self._pid, self._process = pid, psutil.Process(pid)

    def now(self) -> float:
        """As it is."""
        return round(self._process.memory_info().rss / MEGABYTE, 1)

    def forget(self) -> None:
        """Begin the peak anew (Linux, proc(5), clear_refs)."""
        Path(f"/proc/{self._pid}/clear_refs").write_text("5", "ascii")

    def peak(self) -> float:
        """The most since then."""
        lines = Path(f"/proc/{self._pid}/status").read_text("ascii").splitlines()
        words = next(line for line in lines if line.startswith("VmHWM:")).split()
        return round(int(words[1]) * 1024 / MEGABYTE, 1)


def _drive(url: str, sizes: dict[str, int], results: Any) -> None:
    """The clients' process, so that they do not share Python's lock with who measures."""
    results.put(asdict(asyncio.run(drive(url, **sizes))))


def driven(url: str, sizes: dict[str, int]) -> dict[str, Any]:
    """What `drive` saw, in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    clients = spawn.Process(target=_drive, args=(url, sizes, results))
    clients.start()
    found: dict[str, Any] = results.get(timeout=1_800)
    clients.join()
    return found


@contextmanager
def _prompt_file(rows: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fewstep-load-") as folder:
        path = Path(folder) / "prompts.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for n in range(rows):
                row = {"prompt": f"a red circle number {n} on a white background", "label": n}
                file.write(json.dumps(row) + "\n")
        yield path


def load(url: str, api_pid: int, *, jobs: int, clients: int, streams: int) -> dict[str, Any]:
    """The same load twice: what it leaves in memory the second time is a leak."""
    memory, halves = Memory(api_pid), []
    with Client(url) as client:
        watched = client.submit(SMALL, PROMPTS * 500).id
    sizes = {"jobs": jobs // 2, "clients": clients, "streams": streams}
    for _ in range(2):
        memory.forget()
        with Asker(url, watched) as asker:
            seen = driven(url, sizes)
        halves.append(
            {
                "clients": seen,
                "get_job": asker.figures(),
                "errors": seen["errors"] + asker.errors,
                "api_mb": memory.now(),
                "api_peak_mb": memory.peak(),
            }
        )
    with Client(url) as client:
        rendered = client.job(watched).done
    return {"halves": halves, "rendered_meanwhile": rendered}


def upload(url: str, api_pid: int, rows: int) -> dict[str, Any]:
    """One file of so many rows, while somebody asks for another job."""
    memory = Memory(api_pid)
    with Client(url) as client, _prompt_file(rows) as path:
        other = client.submit(SMALL, PROMPTS).id
        memory.forget()
        before = memory.now()
        began = time.perf_counter()
        with Asker(url, other) as asker:
            done = client.submit(JobRequest(shard_images=1_000), path)
        seconds = time.perf_counter() - began
        facts = {
            "images": done.images,
            "file_mb": round(path.stat().st_size / MEGABYTE, 1),
            "seconds": round(seconds, 1),
            "api_before_mb": before,
            "api_peak_mb": memory.peak(),
            "get_job": asker.figures(),
            "errors": asker.errors,
        }
        client.cancel(done.id, delete=True)
    return facts


def main(words: list[str]) -> int:
    """Run both, print and write what was found; 1 where anything erred."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    for name, usual in (("jobs", 1_000), ("clients", 50), ("streams", 200), ("rows", 1_000_000)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args(words)
    from benchmarks.load_table import report

    sizes = {"jobs": asked.jobs, "clients": asked.clients, "streams": asked.streams}
    with tempfile.TemporaryDirectory(prefix="fewstep-load-") as home:
        with Stack.start(Path(home), 1, lambda text: print(text, file=sys.stderr)) as stack:
            url, pid = stack.state.api_url, stack.state.processes["api"].pid
            sent = upload(url, pid, asked.rows)
            found = load(url, pid, **sizes)
    return report(sizes | {"rows": asked.rows}, sent, found, asked.out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
