"""What the shard queue holds, read without changing anything: jobs, backlog, leases."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from jobs.limits import Limits
from jobs.queue_script import QueueScript
from jobs.queue_values import (
    EngineBacklog,
    JobPage,
    LeaseRecord,
    Pieces,
    QueueJob,
)
from jobs.redis_client import explained

#: Of a job's hash, what `_job` reads.
_FIELDS = (
    "tenant engine state outcome priority images shard_images shards cursor done failed dead units "
    "leased device_ms unit_cost sha256 restoring submitted_ms first_claim_ms last_progress_ms "
    "finished_ms max_attempts max_failed reason round discard timed cut max_device_ms deadline_ms "
    "before_ms limit wasted_ms"
).split()


class QueueViews(QueueScript):
    """The reading half of the queue. A view of many keys is not one instant's."""

    #: Open jobs as they were last read, each with the record that it was made of.
    _opened: Mapping[str, tuple[Mapping[str, str], QueueJob]] = MappingProxyType({})

    def job(self, job_id: str) -> QueueJob | None:
        """The job, until seven days after it was closed; None if there is none."""
        with explained():
            record = self._client.hgetall(self.key(f"job:{job_id}"))
        return _job(job_id, record) if record else None

    def jobs(
        self, tenant: str | None = None, *, limit: int = 100, cursor: str | None = None
    ) -> JobPage:
        """Jobs of a tenant (None: of all), newest first."""
        index = self.key("jobs" if tenant is None else f"jobs:{tenant}")
        top = "+inf" if cursor is None else f"({int(cursor)}"
        with explained():
            rows = self._client.zrevrangebyscore(
                index, top, "-inf", start=0, num=limit, withscores=True
            )
            found = self._jobs([job_id for job_id, _ in rows])
        full = len(rows) == limit
        return JobPage(found, str(int(rows[-1][1])) if full and rows else None)

    def _jobs(self, job_ids: list[str]) -> list[QueueJob]:
        pipe = self._client.pipeline(transaction=False)
        for job_id in job_ids:
            pipe.hgetall(self.key(f"job:{job_id}"))
        # The index may name a job whose own key has just expired.
        pairs = zip(job_ids, pipe.execute(), strict=True)
        return [_job(job_id, record) for job_id, record in pairs if record]

    def open_jobs_of(self, tenant: str) -> int:
        """How many jobs of a tenant are not closed."""
        with explained():
            return int(self._client.hget(self.key("tenant_jobs"), tenant) or 0)

    def spent_shards(self, tenant: str) -> int:
        """The shards that a tenant may have in flight, where it has them all; else 0."""
        with explained():
            found = self._client.hmget(self.key(f"tenant:{tenant}"), "cap", "units")
        cap, held = (int(text or 0) for text in found)
        return cap if 0 < cap <= held else 0

    def open_jobs(self) -> list[QueueJob]:
        """Every job that is not closed, oldest first."""
        with explained():
            names: list[str] = self._client.zrange(self.key("open"), 0, -1)
        records = self._records([f"job:{name}" for name in names], _FIELDS)
        known, seen = self._opened, {}
        for name, record in zip(names, records, strict=True):
            if record:
                # Most have not changed since they were last asked for, twice a second.
                before = known.get(name)
                same = before is not None and before[0] == record
                seen[name] = before if before and same else (record, _job(name, record))
        self._opened = seen
        return [job for _, job in seen.values()]

    def backlog(self) -> list[EngineBacklog]:
        """What waits for each engine that has open jobs, by engine key."""
        engines: dict[str, list[QueueJob]] = {}
        for job in self.open_jobs():
            engines.setdefault(job.engine_key, []).append(job)
        return [_backlog(engine_key, engines[engine_key]) for engine_key in sorted(engines)]

    def tenant_weights(self) -> dict[str, float]:
        """The share of every tenant with open jobs, as the last job of each was submitted with."""
        found = self._tenants("weight").items()
        return {tenant: float(weight) for tenant, weight in found}

    def tenant_caps(self) -> dict[str, int]:
        """The units that tenants with open jobs may hold at once, of those who may not hold any
        number."""
        return {tenant: int(cap) for tenant, cap in self._tenants("cap").items() if int(cap)}

    def _tenants(self, name: str) -> dict[str, str]:
        """A field of every tenant with open jobs."""
        with explained():
            tenants: list[str] = self._client.hkeys(self.key("tenant_jobs"))
        records = self._records([f"tenant:{tenant}" for tenant in tenants], [name])
        pairs = zip(tenants, records, strict=True)
        return {tenant: record[name] for tenant, record in pairs if record}

    def states(self, job_ids: Sequence[str]) -> list[str]:
        """The state of each job, "" for one that the queue does not know: one cheap question."""
        with explained():
            pipe = self._client.pipeline(transaction=False)
            for job_id in job_ids:
                pipe.hget(self.key(f"job:{job_id}"), "state")
            return [state or "" for state in pipe.execute()]

    def parts_waiting(self, job_ids: Sequence[str]) -> dict[str, int]:
        """Job -> units of it that wait beside the shards that nobody had yet: parts, retries."""
        if not job_ids:
            return {}
        with explained():
            pipe = self._client.pipeline(transaction=False)
            for job_id in job_ids:
                pipe.zcard(self.key(f"retry:{job_id}"))
            return dict(zip(job_ids, map(int, pipe.execute()), strict=True))

    def finishing(self, limit: int = 1000) -> list[str]:
        """Jobs that await the scheduler's last word: all accounted for, or cancelled and idle."""
        with explained():
            return list(self._client.zrange(self.key("finishing"), 0, limit - 1))

    def pieces(self, job_id: str) -> Pieces:
        """How the job's shards were split, and which images were given up."""
        with explained():
            pipe = self._client.pipeline(transaction=False)
            pipe.hgetall(self.key(f"split:{job_id}"))
            pipe.smembers(self.key(f"parts:{job_id}"))
            pipe.hgetall(self.key(f"dead:{job_id}"))
            split, parts, dead = pipe.execute()
        return Pieces(
            {int(shard): max(0, int(left)) for shard, left in split.items()},
            frozenset(parts),
            dict(dead),
        )

    def settled_shards(self, job_id: str, shards: Sequence[int]) -> set[int]:
        """Which of these shards are done, every part of them, as long as the job is open."""
        with explained():
            pipe = self._client.pipeline(transaction=False)
            for shard in shards:
                pipe.getbit(self.key(f"bits:{job_id}"), shard)
            return {shard for shard, bit in zip(shards, pipe.execute(), strict=True) if bit}

    def leases(self, limit: int = 10_000) -> list[LeaseRecord]:
        """Units in flight, the next to run out first."""
        with explained():
            rows = self._client.zrange(self.key("leases"), 0, limit - 1, withscores=True)
            names = [name for name, _ in rows]
            owners = self._client.hmget(self.key("owners"), names) if names else []
        pairs = zip(rows, owners, strict=True)
        return [_lease(name, int(at), owner) for (name, at), owner in pairs if owner]


def _job(job_id: str, record: Mapping[str, str]) -> QueueJob:
    def number(name: str) -> int:
        return int(record.get(name, 0))

    def moment(name: str) -> int | None:
        return int(record[name]) if name in record else None

    return QueueJob(
        job_id=job_id,
        tenant=record.get("tenant", ""),
        engine_key=record.get("engine", ""),
        state=record.get("state", ""),
        outcome=record.get("outcome", ""),
        priority=number("priority"),
        images=number("images"),
        shard_images=number("shard_images"),
        shards=number("shards"),
        cursor=number("cursor"),
        done_images=number("done"),
        failed_images=number("failed"),
        dead_images=number("dead"),
        units_in_flight=number("units"),
        images_in_flight=number("leased"),
        device_ms=number("device_ms"),
        wasted_ms=number("wasted_ms"),
        unit_cost=float(record.get("unit_cost", 1)),
        spec_sha256=record.get("sha256", ""),
        restoring=record.get("restoring") == "1",
        submitted_ms=number("submitted_ms"),
        first_claim_ms=moment("first_claim_ms"),
        last_progress_ms=moment("last_progress_ms"),
        finished_ms=moment("finished_ms"),
        max_attempts=number("max_attempts"),
        max_failed=moment("max_failed"),
        reason=record.get("reason", ""),
        round=number("round"),
        discard=record.get("discard") == "1",
        timed_images=number("timed"),
        limits=_limits(record),
        limit=record.get("limit", ""),
    )


def _limits(record: Mapping[str, str]) -> Limits:
    device, deadline = record.get("max_device_ms"), record.get("deadline_ms")
    return Limits(
        cut=record.get("cut") == "1",
        device_ms=int(device) if device else None,
        deadline_ms=int(deadline) if deadline else None,
        before_ms=int(record.get("before_ms", 0)),
    )


def _backlog(engine_key: str, jobs: list[QueueJob]) -> EngineBacklog:
    waiting = [job for job in jobs if job.state == "run" and job.images_waiting]
    return EngineBacklog(
        engine_key=engine_key,
        jobs=len(jobs),
        images_waiting=sum(job.images_waiting for job in waiting),
        units_in_flight=sum(job.units_in_flight for job in jobs),
        cost_waiting=sum(job.images_waiting * job.image_cost for job in waiting),
        priority=max((job.priority for job in waiting), default=-1),
    )


def _lease(name: str, deadline_ms: int, owner: str) -> LeaseRecord:
    job_id, unit = name.split("|")
    token, worker, progress = owner.split("|")[:3]
    seen = int(progress) if progress.isdigit() else None
    return LeaseRecord(job_id, unit, worker, token, deadline_ms, seen)
