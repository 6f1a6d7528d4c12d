"""A site: Redis and S3 behind proxies, renderers and a scheduler as processes."""

import io
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGTERM
from typing import Any

from pydantic import SecretStr

from jobs.job import Job, JobRequest
from jobs.layout import JobLayout, layout_of
from jobs.manifest import Manifest
from jobs.queue_values import QueueJob
from jobs.redis_client import control_client
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from jobs.sources.reading import read_rows
from jobs.specs import read_job
from jobs.store import Store
from jobs.submit import submit_job
from tests.chaos.inject import Trap, as_variable
from tests.chaos.processes import Child, Zygote
from tests.chaos.proxy import Proxy, close_proxy, open_proxy
from tests.chaos.recovery import Recovery
from tests.chaos.seats import RedisSeat, StoreSeat
from tests.chaos.world import IMAGES, RECIPE, TENANT, Whole, chaos_catalog, prompts, request
from tests.s3_servers import ACCESS, SECRET, settings_for
from tests.servers import wait_until

#: Short, so that a run need not wait; a production lease is 60 s.
LEASE_MS, RENEW_MS = 3_000, 300
#: What a batch takes at least: the tiny model alone is done before a fault can strike.
PACE_S = 0.4
#: Of the store's client, in the same proportion to the lease as in production.
READ_TIMEOUT_S = 3.0


@dataclass
class Line:
    """How one process reaches the servers: its own pair of proxies."""

    redis: Proxy
    s3: Proxy


@dataclass
class Site:
    """Everything that one fault is struck into, and what it measured."""

    folder: Path
    zygote: Zygote
    redis: RedisSeat
    s3: StoreSeat
    lease_ms: int = LEASE_MS
    lines: dict[str, Line] = field(default_factory=dict)
    children: dict[str, Child] = field(default_factory=dict)
    #: Renderers that a fault was meant to end, or that the test ended itself.
    expected_dead: set[str] = field(default_factory=set)
    jobs: list[Job] = field(default_factory=list)
    #: How the job is to end, and how many of its images are to end in quarantine.
    outcome: str = "done"
    given_up: int = 0
    #: Of several jobs, how each is to end.
    outcomes: dict[str, str] = field(default_factory=dict)
    #: Of jobs that had later rounds, what there is to be.
    wholes: dict[str, Whole] = field(default_factory=dict)
    #: What a batch takes at least, for whoever starts from now on.
    pace_s: float = PACE_S
    #: Whether its folder is to stay, for somebody to look at.
    keep: bool = False

    def __post_init__(self) -> None:
        self.bucket = f"chaos-{uuid.uuid4().hex[:12]}"
        self.direct = settings_for(self.s3.url, self.bucket)
        self.store = Store.connect(self.direct, create_bucket=True)
        self.client = control_client(f"redis://127.0.0.1:{self.redis.port}/0")
        self.queue = ShardQueue(self.client)
        self.recovery = Recovery(self.queue, self.client)
        self.moved_to: list[RedisSeat] = []
        self.catalog = chaos_catalog()
        self.recipe = self.catalog.resolve(RECIPE)

    # ---- who takes part ----

    def line(self, name: str) -> Line:
        """The proxies of one process, opened when first asked for."""
        if name not in self.lines:
            self.lines[name] = Line(open_proxy(self.redis.port), open_proxy(self.s3.port))
        return self.lines[name]

    def redis_proxies(self) -> list[Proxy]:
        """Every way to Redis."""
        return [line.redis for line in self.lines.values()]

    def s3_proxies(self) -> list[Proxy]:
        """Every way to the store."""
        return [line.s3 for line in self.lines.values()]

    def heal(self) -> None:
        """Every way is as it should be."""
        for proxy in (*self.redis_proxies(), *self.s3_proxies()):
            proxy.heal()

    def move_redis(self, seat: RedisSeat) -> None:
        """Look at another Redis from now on: it has taken the place of the first."""
        self.client.close()
        self.redis = seat
        self.moved_to.append(seat)
        self._look_at_redis()

    def _look_at_redis(self) -> None:
        self.client = control_client(f"redis://127.0.0.1:{self.redis.port}/0")
        self.queue = ShardQueue(self.client)
        self.recovery.queue, self.recovery.client = self.queue, self.client

    def settings(self, name: str) -> Settings:
        """Settings of a process that goes through its own proxies."""
        line = self.line(name)
        return self.direct.model_copy(
            update={
                "redis_url": SecretStr(f"redis://127.0.0.1:{line.redis.port}/0"),
                "s3_endpoint": f"http://127.0.0.1:{line.s3.port}",
            }
        )

    def _order(self, role: str, name: str, env: dict[str, str], **more: Any) -> dict[str, Any]:
        settings = self.settings(name)
        tmp = self.tmp(name)
        tmp.mkdir(parents=True, exist_ok=True)
        known = {
            "FEWSTEP_REDIS_URL": settings.redis_url.get_secret_value(),
            "FEWSTEP_S3_ENDPOINT": settings.s3_endpoint,
            "FEWSTEP_S3_BUCKET": self.bucket,
            "FEWSTEP_S3_ACCESS_KEY": ACCESS,
            "FEWSTEP_S3_SECRET_KEY": SECRET,
            "FEWSTEP_LEASE_MS": str(self.lease_ms),
            "FEWSTEP_RENEW_MS": str(RENEW_MS),
            "FEWSTEP_CHAOS_READ_TIMEOUT_S": str(READ_TIMEOUT_S),
            "FEWSTEP_CHAOS_PACE_S": str(self.pace_s),
            "TMPDIR": str(tmp),
        }
        log = str(self.folder / f"{name}.log")
        return {"role": role, "name": name, "log": log, "env": {**known, **env}, **more}

    def tmp(self, name: str) -> Path:
        """A process's folder for temporary files."""
        return self.folder / "tmp" / name

    def trap(self, point: str, act: str, times: int = 1, prompt: str = "") -> Trap:
        """A trap for renderers of this site."""
        folder = self.folder / f"trap-{uuid.uuid4().hex[:8]}"
        folder.mkdir()
        return Trap(point, act, str(folder), times, prompt)

    def renderer(
        self,
        name: str,
        *traps: Trap,
        restart: bool = False,
        load: bool = False,
        env: dict[str, str] | None = None,
    ) -> Child:
        """Start a renderer; with `load` it loads its weights itself."""
        more = {**as_variable(traps), **(env or {})}
        recipe = self.recipe.model_dump_json()
        order = self._order("renderer", name, more, recipe=recipe, load=load)
        child = self.zygote.fork(name, order, restart=restart)
        self.children[name] = child
        return child

    def again(self, name: str) -> Child:
        """Start a renderer that left once more, as it was."""
        before = self.children[name]
        child = self.zygote.fork(name, dict(before.order), restart=before.restart)
        child.fallen += before.fallen
        self.children[name] = child
        return child

    def submitter(self, name: str, **order: Any) -> Child:
        """Start somebody who submits a job in a process of their own."""
        child = self.zygote.fork(name, self._order("submitter", name, {}, **order))
        self.children[name] = child
        if order.get("die"):
            self.expected_dead.add(name)
        return child

    def scheduler(self, *, restart: bool = False) -> Child:
        """Start a scheduler; with `restart` again whenever it ends badly, as its keeper does."""
        order = self._order("scheduler", "scheduler", {})
        child = self.zygote.fork("scheduler", order, restart=restart)
        self.children["scheduler"] = child
        return child

    # ---- the job ----

    def submit(
        self, images: int = IMAGES, wanted: JobRequest | None = None, key: str | None = None
    ) -> Job:
        """Submit the job, past every proxy."""
        done = submit_job(
            self.store,
            self.queue,
            self.catalog,
            prefix=self.direct.s3_prefix,
            tenant=TENANT,
            request=wanted or request(),
            rows=read_rows(prompts_file(images), "text", "prompts"),
            idempotency_key=key or uuid.uuid4().hex,
            now_ms=1_700_000_000_000,
        )
        return self.adopt(done.id)

    def adopt(self, job_id: str) -> Job:
        """Look at a job from now on."""
        job = read_job(self.store, self.direct.s3_prefix, TENANT, job_id)
        if job.id not in [one.id for one in self.jobs]:
            self.jobs.append(job)
        return job

    def manifests(self, job: Job | None = None) -> list[Manifest]:
        """What the job's committed shards say of themselves."""
        keys = [one.key for one in self.store.list(self.layout(job).shards)]
        stats = [key for key in keys if key.endswith("_stats.json")]
        return [Manifest.model_validate_json(self.store.get(key)) for key in stats]

    def most_deaths(self) -> int:
        """How many deaths were counted against the committed unit that has most of them."""
        return max(one.attempt for one in self.manifests())

    def crashed(self) -> bool:
        """Whether a committed unit had been counted as one that a process died on."""
        return self.most_deaths() > 0

    def layout(self, job: Job | None = None) -> JobLayout:
        """Where the job lies."""
        return layout_of(job or self.the_job, self.direct.s3_prefix)

    def job_number(self, number: int) -> Job:
        """One of several jobs, counted round."""
        return self.jobs[number % len(self.jobs)]

    @property
    def the_job(self) -> Job:
        """The job that was submitted, or the first of them."""
        return self.jobs[0]

    def record(self, job: Job | None = None) -> QueueJob:
        """The job as the queue holds it."""
        found = self.queue.job((job or self.the_job).id)
        assert found is not None, "the queue has forgotten the job"
        return found

    def progress(self) -> int:
        """Images of the job that are settled."""
        record = self.record()
        return record.done_images + record.failed_images + record.dead_images

    def wait_for_progress(self, images: int = 1) -> None:
        """Until that many images are settled."""
        wait_until(lambda: self.progress() >= images, f"{images} images", 180)

    def wait_for_end(self, job: Job | None = None, seconds: float = 300) -> None:
        """Until the scheduler has said its last word."""
        wait_until(lambda: self.record(job).state == "closed", "the job to end", seconds)

    def wait_for_trap(self, trap: Trap, times: int = 1) -> None:
        """Until a trap was met that often."""
        wait_until(lambda: trap.struck >= times, f"the trap at {trap.point}", 180)

    # ---- the end ----

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone."""
        child = self.children[name]
        child.restart = False
        self.expected_dead.add(name)
        child.signal(SIGKILL)
        child.wait()

    def stop(self) -> list[str]:
        """Drain every process; what is wrong with how they went."""
        wrong = []
        for child in self.children.values():
            child.restart = False
            # One that is just being started again is told once it is there.
            wait_until(child.is_something, child.name, 60)
            child.signal(SIGCONT)
            child.signal(SIGTERM)
        for name, child in self.children.items():
            code = child.wait()
            if code != 0 and name not in self.expected_dead:
                wrong.append(f"{name} ended with {code}")
        return wrong

    def close(self) -> None:
        """End everything, in whatever state it is."""
        for child in self.children.values():
            child.restart = False
            child.signal(SIGKILL)
            child.wait()
        for line in self.lines.values():
            close_proxy(line.redis)
            close_proxy(line.s3)
        for seat in self.moved_to:
            seat.kill()
        self.store.close()
        self.client.close()


def prompts_file(images: int) -> Any:
    """The first rows as a file."""
    return io.BytesIO(prompts(images).encode())
