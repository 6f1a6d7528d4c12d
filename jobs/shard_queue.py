"""The queue of shards in Redis: one typed method per op of its Lua (`shard_queue.lua` and others).

Every method may be called again with the same arguments when its reply was lost: the second call
changes nothing. All raise Unreachable when Redis does not answer or refuses writes.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, cast

import redis

from jobs.errors import InvalidInput
from jobs.queue_limits import QueueLimits
from jobs.queue_placement import QueuePlacement
from jobs.queue_presence import QueuePresence
from jobs.queue_speeds import QueueSpeeds
from jobs.queue_values import (
    MAX_IMAGES,
    MAX_LEASE_MS,
    Arbiter,
    DoneAnswer,
    DoneUnit,
    FailAnswer,
    FinishAnswer,
    Lease,
    Outcome,
    RenewAnswer,
    SubmitReply,
    SubmitRequest,
    WantedState,
    checked_name,
    checked_range,
    checked_unit,
)
from jobs.queue_views import QueueViews
from jobs.restoring import restore_plan

WEEK_MS = 7 * 24 * 3600 * 1000
#: Units per restore call: keeps the script short, so that other clients are not held up.
RESTORE_CHUNK = 500
#: Letters of a reason that the queue keeps.
REASON_MAX = 1_000


class ShardQueue(QueueViews, QueueLimits, QueuePresence, QueuePlacement, QueueSpeeds):
    """Jobs, leases and fairness. Views (`job`, `backlog`, ...) are in `QueueViews`, heartbeats and
    events in `QueuePresence`.

    `client` must decode replies (`jobs.redis_client` makes such clients). `clock` returns
    milliseconds and overrides the server's clock: for tests.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        prefix: str = "{fewstep}",
        max_open_jobs: int = 10_000,
        max_tenant_jobs: int = 1_000,
        keep_ms: int = WEEK_MS,
        clock: Callable[[], int] | None = None,
    ) -> None:
        super().__init__(client, prefix, clock)
        self._limits = (max_open_jobs, max_tenant_jobs)
        self._keep_ms = keep_ms

    # ---- jobs ----

    def submit(self, request: SubmitRequest, *, restoring: bool = False) -> SubmitReply:
        """Accept a job; costs the same for a hundred images and for a hundred million.

        `conflict`: the id or key belongs to a job with another digest. `full`: too many open
        jobs. `restoring` accepts it even so, and holds it until `restore` has ended.
        """
        key = request.idempotency_key
        hashed = hashlib.sha256(key.encode()).hexdigest() if key is not None else ""
        open_max, tenant_max = self._limits
        outcome, job_id = self._op(
            "submit",
            request.job_id,
            request.tenant,
            request.engine_key,
            request.priority,
            request.images,
            request.shard_images,
            request.max_attempts,
            hashed,
            request.spec_sha256,
            request.unit_cost,
            request.batch_images,
            request.tenant_weight,
            request.tenant_cap,
            int(restoring),
            open_max,
            tenant_max if request.tenant_jobs is None else request.tenant_jobs,
            self._keep_ms,
            "" if request.max_failed is None else request.max_failed,
            int(request.limits.cut),
            *request.limits.words,
            request.limits.before_ms,
        )
        return SubmitReply(outcome, job_id)

    def state(self, job_id: str, wanted: WantedState, *, discard: bool = False) -> str:
        """Let a job run, pause it or cancel it; the state it is in now, or "unknown".

        Cancelling is final; `discard`: what is done of it is not kept. Renderers learn of it
        when they renew, and give their units up.
        """
        return cast(str, self._op("state", job_id, wanted, int(discard)))

    def set_priority(self, job_id: str, priority: int) -> bool:
        """Serve the job with this priority from now on; False if there is no such job."""
        checked_range(priority, 0, 9, "priority")
        return bool(self._op("priority", job_id, priority) == "ok")

    def finish(
        self,
        job_id: str,
        outcome: Outcome,
        reason: str = "",
        *,
        counts: tuple[int, int] | None = None,
    ) -> FinishAnswer:
        """Close a job, after its last word is in the store; its keys expire after seven days.

        `done` and `stopped` need state fin, or a limit that stopped it and no lease; `cancelled` a
        cancelled job without leases (else "not_ready"); `failed` ends a job in any state.
        `counts`: pictures made and images failed, where the store knows better than the queue.
        """
        ok, failed = counts if counts is not None else ("", "")
        words = (reason[:REASON_MAX], ok, failed)
        return cast(FinishAnswer, self._op("finish", job_id, outcome, self._keep_ms, *words))

    def amend(
        self,
        job_id: str,
        number: int,
        outcome: Outcome | None = None,
        reason: str = "",
        counts: tuple[int, int] = (0, 0),
    ) -> bool:
        """Note that a closed job has a later round `number`, and how it stands after it.

        `counts`: pictures made and images failed in all rounds. False: the queue does not hold the
        job as closed (it may have forgotten it), and the store alone tells.
        """
        words = (outcome or "", reason[:REASON_MAX], *counts)
        return bool(self._op("amend", job_id, number, *words) == "ok")

    def restore(
        self,
        job_id: str,
        done_units: Iterable[DoneUnit],
        *,
        dead: Mapping[str, str] | None = None,
        then: Literal["run", "pause"] = "run",
    ) -> str:
        """Book what the store holds of a job submitted again with `restoring=True`.

        `dead`: unit -> why. May be repeated from its start after a crash. "ignored": the job
        does not wait for a restore. Raises InvalidInput for units that are not of this job.
        """
        job = self.job(job_id)
        if job is None or not job.restoring:
            return "ignored"
        plan = restore_plan(job, done_units, dead or {})
        last = max(0, len(plan) - 1) // RESTORE_CHUNK
        answer = "ignored"
        for number in range(last + 1):
            chunk = plan[number * RESTORE_CHUNK : (number + 1) * RESTORE_CHUNK]
            flat = [word for step in chunk for word in step]
            answer = self._op("restore", job_id, then if number == last else "", *flat)
        return answer

    # ---- shards ----

    def claim(
        self,
        worker: str,
        nonce: str,
        engine_key: str,
        want: int,
        lease_ms: int,
        images: int | None = None,
        *,
        ahead: bool = False,
    ) -> list[Lease]:
        """Lease up to `want` units (1 to 64) of an engine, for `lease_ms` each.

        With `images` no more once they are so many together, and none after one on which a
        process died: whoever renders that should hold nothing else.

        By priority, then the tenant with the least device-seconds over weight, then the oldest
        job. The same nonce again gets the same leases; take a new one for each new claim. `ahead`:
        work on them begins later, and a death before a renewal tells of progress is not theirs.
        """
        checked_name(worker, "worker")
        checked_range(want, 1, 64, "want")
        checked_range(lease_ms, 1, MAX_LEASE_MS, "lease_ms")
        room = "" if images is None else images
        news = "-" if ahead else ""
        reply = self._op("claim", worker, nonce, engine_key, want, lease_ms, news, room)
        return [
            Lease(
                row["job"],
                row["unit"],
                int(row["first"]),
                int(row["stop"]),
                row["token"],
                int(row["attempt"]),
                sound=row.get("sound", ":" not in row["unit"]),
            )
            for row in json.loads(reply)
        ]

    def renew(
        self,
        worker: str,
        leases: Sequence[Lease],
        lease_ms: int,
        progress: Sequence[int | None] = (),
        device_ms: Sequence[int] = (),
    ) -> list[RenewAnswer]:
        """Hold leases for `lease_ms` more; one answer each, in order.

        `progress` is the first unfinished image of each, where known; `device_ms` what the device
        spent on each so far: should its process die, that counts. `lost`: the lease is over, drop
        the work. `cancel`: its job is ending, stop and give the unit up (`fail`, or `done` where it
        was committed already). `pause`: finish or release it.
        """
        checked_range(lease_ms, 1, MAX_LEASE_MS, "lease_ms")
        news = list(progress) or [None] * len(leases)
        spent = list(device_ms) or [0] * len(leases)
        if not len(news) == len(spent) == len(leases):
            raise InvalidInput(f"{len(news)} progress values for {len(leases)} leases")
        flat: list[str | int] = []
        for lease, index, ms in zip(leases, news, spent, strict=True):
            flat += [lease.job_id, lease.unit, lease.token, "" if index is None else index, ms]
        return cast(list[RenewAnswer], self._op("renew", worker, lease_ms, *flat))

    def win(self, job_id: str, unit: str, token: str) -> str:
        """Decide whose output counts, for stores that ignore `If-None-Match`.

        The winner's token: ours, or that of who won before (adopt its output). "": the token is
        stale and nobody won; drop the work.
        """
        return cast(str, self._op("win", job_id, checked_unit(unit), token))

    def done(
        self,
        job_id: str,
        unit: str,
        token: str,
        failed: int = 0,
        device_ms: int = 0,
        *,
        arbiter: Arbiter = "s3",
    ) -> DoneAnswer:
        """Say that a unit's output is in the store; the last word of a commit.

        `failed` of its images are rows without a picture. With arbiter `s3` a stale token may
        finish too ("late"): the store let only one output through. With `redis` it is "fenced".
        """
        checked_range(failed, 0, MAX_IMAGES, "failed")
        checked_range(device_ms, 0, MAX_IMAGES, "device_ms")
        answer = self._op("done", job_id, checked_unit(unit), token, arbiter, failed, device_ms)
        return cast(DoneAnswer, answer)

    def fail(
        self,
        job_id: str,
        unit: str,
        token: str,
        kind: Literal["release", "crash"],
        reason: str = "",
        *,
        progress: int | None = None,
        device_ms: int = 0,
    ) -> FailAnswer:
        """Give a lease up. `lost`: the token is stale (or this was said before).

        `device_ms`: what the device spent on it; at least what a renewal told counts.

        `release` (drain, pause): offered again at once; counts as a crash from the 21st time.
        `crash`: a process died on it, `progress` being its first unfinished image; it is offered
        again later, after too many crashes in parts, and a single image never again. Without
        `progress` the last renewal tells where the process was: one that had not begun the unit,
        or had finished rendering it, died of something else, and the unit is released.
        """
        checked_range(device_ms, 0, MAX_IMAGES, "device_ms")
        news = "" if progress is None else progress
        args = (job_id, checked_unit(unit), token, kind, reason[:200], news, device_ms)
        return cast(FailAnswer, self._op("fail", *args))

    def reap(self, limit: int = 100) -> int:
        """End leases that ran out, wake retries that are due; how many leases ended."""
        return int(self._op("reap", limit))
