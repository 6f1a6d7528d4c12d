"""Cycles: how many claim + renew + done one Redis takes from 1,000 renderers that only sleep."""

import hashlib
import heapq
import json
import random
import selectors
import socket
import time
from collections.abc import Callable
from itertools import chain
from typing import Any

import redis

from benchmarks.fleet import ENGINES, RENDERERS, digest, fill
from benchmarks.goals import Goal
from benchmarks.servers import SECRET, running_redis, url_of
from jobs.queue_source import script_of, script_text
from jobs.queue_values import Lease
from jobs.redis_client import control_client
from jobs.shard_queue import ShardQueue

PART = "cycles"
RATE = 1_500.0
LEASE_MS = 60_000
#: Images of a unit, and device time that a done tells of.
IMAGES, DEVICE_MS = 100, 10_000
NAMES = [digest("engine", number) for number in range(ENGINES)]
STEPS = ("claim", "renew", "done")


def run(quick: bool) -> list[Goal]:
    """As fast as it goes; then at the wanted rate, every renderer on a connection of its own."""
    seconds, jobs = (1.0, 100) if quick else (10.0, 1_000)
    with running_redis() as port:
        client = control_client(url_of(port))
        queue = ShardQueue(client)
        fill(queue, NAMES, jobs, images=1_000_000, shard_images=IMAGES)
        before = _processor(client)
        full = Fleet(port, client, 64).drive(seconds, rate=None)
        between, calls = _processor(client), sum(map(len, full.took.values()))
        per_cycle = (between - before) / calls * len(STEPS) * 1e6
        paced = Fleet(port, client, RENDERERS).drive(seconds, rate=RATE)
        used = (_processor(client) - between) / paced.seconds
    real = (
        "real Redis with its append-only file, real scripts, ShardQueue's own words; shards sleep"
    )
    return [
        Goal(
            PART,
            "claim + renew + done through one Redis",
            "cycles/s",
            full.rate,
            least=RATE,
            how=f"64 connections that never wait, one process; {jobs} open jobs; a cycle is "
            f"{per_cycle:.0f} µs of Redis's core; {real}",
            seen={"redis_us_a_cycle": per_cycle},
        ),
        Goal(
            PART,
            f"p99 of a call at {RATE:,.0f} cycles/s",
            "ms",
            paced.percentile(99),
            most=5.0,
            how=f"{RENDERERS:,} connections, {paced.rate:,.0f} cycles/s kept; p50 "
            f"{paced.percentile(50):.2f}, p99.9 {paced.percentile(99.9):.2f} ms as the caller sees "
            f"it; Redis used {used:.0%} of a core",
            seen={
                "redis_core": used,
                "p99_ms": {name: paced.percentile(99, name) for name in STEPS},
                "p50_ms": {name: paced.percentile(50, name) for name in STEPS},
            },
        ),
    ]


def _processor(client: redis.Redis) -> float:
    told: Any = client.info("cpu")
    return float(told["used_cpu_user"]) + float(told["used_cpu_sys"])


class _Scribe:
    """Stands where ShardQueue has its client, and keeps the words that it would send."""

    decode_responses = True
    words: tuple[Any, ...] = ()

    def get_encoder(self) -> "_Scribe":
        return self

    def register_script(self, text: str) -> Callable[..., str]:
        sha = hashlib.sha1(text.encode()).hexdigest()

        def run(*, keys: list[Any], args: list[Any]) -> str:
            self.words = ("EVALSHA", sha, len(keys), *keys, *args)
            return "[]"

        return run


class Rounds:
    """What a drive saw: milliseconds of every call, by step."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.took: dict[str, list[float]] = {name: [] for name in STEPS}

    @property
    def rate(self) -> float:
        """Whole cycles a second."""
        return len(self.took["done"]) / self.seconds

    def percentile(self, percent: float, step: str | None = None) -> float:
        """Milliseconds that so many of a hundred calls stayed under."""
        every = sorted(self.took[step] if step else chain.from_iterable(self.took.values()))
        return every[min(len(every) - 1, int(len(every) * percent / 100))]


class _Caller:
    """One renderer: a connection, and the step it is at."""

    def __init__(self, number: int, port: int, scribe: _Scribe) -> None:
        self.worker = f"renderer-{number}"
        self._engine = NAMES[number % ENGINES]
        self._scribe = scribe
        self._queue = ShardQueue(scribe)  # type: ignore[arg-type]
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(_packed(("AUTH", SECRET)))
        assert self.socket.recv(100) == b"+OK\r\n"
        self.socket.setblocking(False)
        self._lease: Lease | None = None
        self._count = 0
        self._heard = b""
        self.step = "claim"
        self.sent = 0.0

    def ask(self) -> None:
        """Send the next call of the cycle, in the words of the real queue."""
        if self._lease is None:
            self._count += 1
            nonce = f"{self.worker}-{self._count}"
            self._queue.claim(self.worker, nonce, self._engine, 32, LEASE_MS, IMAGES, ahead=True)
        elif self.step == "renew":
            self._queue.renew(self.worker, [self._lease], LEASE_MS, [self._lease.first])
        else:
            one = self._lease
            self._queue.done(one.job_id, one.unit, one.token, 0, DEVICE_MS)
        self.sent = time.perf_counter()
        self.socket.send(_packed(self._scribe.words))

    def hear(self) -> str | None:
        """The step that is through, None while the reply is not whole; raises on a wrong one."""
        self._heard += self.socket.recv(1 << 16)
        if not self._heard.endswith(b"\r\n"):
            return None
        words = self._heard.split(b"\r\n")
        # The last line of a reply; a claim's JSON has no line ends.
        told, step = words[-2].decode(), self.step
        if step == "claim":
            if words[0].startswith(b"$") and len(told) < int(words[0][1:]):
                return None
            [row] = json.loads(told)
            first, stop, attempt = int(row["first"]), int(row["stop"]), int(row["attempt"])
            self._lease = Lease(row["job"], row["unit"], first, stop, row["token"], attempt)
        elif told != "ok":
            raise RuntimeError(f"{step} was answered {told!r}")
        if step == "done":
            self._lease = None
        self._heard, self.step = b"", STEPS[(STEPS.index(step) + 1) % 3]
        return step


def _packed(words: tuple[Any, ...]) -> bytes:
    parts = [str(word).encode() for word in words]
    head = b"*%d\r\n" % len(parts)
    return head + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


class Fleet:
    """Renderers of one process, each with its own connection, driven by one loop."""

    def __init__(self, port: int, client: redis.Redis, size: int) -> None:
        scribe = _Scribe()
        self._callers = [_Caller(number, port, scribe) for number in range(size)]
        for step in STEPS:
            client.script_load(script_of(script_text(), step))
        self._random = random.Random(7)

    def drive(self, seconds: float, rate: float | None) -> Rounds:
        """Cycle for so long: at `rate` cycles a second together, None: as fast as answers come."""
        seen, selector = Rounds(), selectors.DefaultSelector()
        for caller in self._callers:
            selector.register(caller.socket, selectors.EVENT_READ, caller)
        pause = 0.0 if rate is None else len(self._callers) / rate / len(STEPS)
        started = time.perf_counter()
        starts = (started + self._random.uniform(0, pause * len(STEPS)) for _ in self._callers)
        waiting = [(at, number) for number, at in enumerate(starts)]
        heapq.heapify(waiting)
        while (now := time.perf_counter()) < started + seconds:
            while waiting and waiting[0][0] <= now:
                self._callers[heapq.heappop(waiting)[1]].ask()
            left = waiting[0][0] - time.perf_counter() if waiting else 0.05
            for key, _ in selector.select(max(0.0, min(left, 0.05))):
                caller = key.data
                if (step := caller.hear()) is None:
                    continue
                answered = time.perf_counter()
                seen.took[step].append((answered - caller.sent) * 1e3)
                wait = pause * self._random.uniform(0.5, 1.5)
                # From when it was sent: a slow answer is not allowed to slow the renderers.
                number = int(caller.worker.rpartition("-")[2])
                heapq.heappush(waiting, (max(answered, caller.sent + wait), number))
        seen.seconds = time.perf_counter() - started
        selector.close()
        for caller in self._callers:
            caller.socket.close()
        return seen
