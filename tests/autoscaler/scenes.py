"""What happens on the site, in order: a backlog, a small job from none, notices, a node lost."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from jobs.events import EventFeed
from jobs.job import Job
from jobs.queue_values import LeaseRecord, RendererRecord
from tests.autoscaler.removals import NodeNote, all_events, claims_of, read_notes, removed_under
from tests.autoscaler.site import NODES, AutoscaledSite
from tests.chaos.examine import Verdict, examine, read_dataset
from tests.chaos.world import request
from tests.servers import wait_until

#: Images of a job of the backlog, and of the small one that comes alone.
IMAGES, FEW = 320, 16
#: Images of a unit: one that a renderer ends in a second or two, one that takes a dozen.
SHORT_UNIT, LONG_UNIT = 8, 80
#: Seconds until a node goes: enough for the short unit, not for the long one.
NOTICE_S, SHORT_NOTICE_S = 60, 8
#: Longest waits for nodes and jobs, on a machine that others use too.
WAIT_S = 400.0


@dataclass
class Measured:
    """One line of the table: what was looked at, and what came of it."""

    what: str
    came: str


@dataclass
class Scenes:
    """Plays them on one site, and remembers what was measured and whose nodes were struck."""

    site: AutoscaledSite
    say: Callable[[str], None]
    rows: list[Measured] = field(default_factory=list)
    #: Nodes that a scene took away: their renderers were meant to be there.
    struck: set[str] = field(default_factory=set)
    #: Jobs whose pictures are compared with nobody's.
    alone: list[Job] = field(default_factory=list)

    def play(self) -> None:
        """All of them."""
        self._note("nodes before the first job", str(self.nodes()))
        self._backlog()
        self._small()
        self._withdrawn()
        self._choosy()
        self._notice(NOTICE_S, SHORT_UNIT)
        self._notice(SHORT_NOTICE_S, LONG_UNIT)
        self._loss()
        self._shared()

    # ---- scenes ----

    def _backlog(self) -> None:
        # Until then nobody asks for anything.
        wait_until(lambda: bool(self.site.queue.pool()), "the scheduler", WAIT_S)
        since = time.monotonic()
        jobs = [self.site.submit(IMAGES) for _ in range(2)]
        wait_until(self.some_nodes, "the first node", WAIT_S)
        self._note("a backlog comes: until the first node is asked for", self._since(since))
        wait_until(self._all_render, "every renderer", WAIT_S)
        self._note(
            f"until {NODES} renderers on {NODES} nodes have their engine", self._since(since)
        )
        self._until_over(jobs)
        self._until_none("the backlog is done: until the last node is gone")
        self.site.pictures = read_dataset(self.site.store, self.site.layout(jobs[0])).pictures

    def _small(self) -> None:
        since = time.monotonic()
        job = self.site.submit(FEW, request(shard_images=FEW))
        wait_until(lambda: bool(self.site.loaded()), "a renderer", WAIT_S)
        what = f"{FEW} images come where no node is"
        self._note(f"{what}: until a renderer has its engine", self._since(since))
        self._until_over([job])
        self._note("until they are a dataset", self._since(since))
        self._note("nodes that were made for them", str(len(self._made(since))))
        self._until_none("until its node is gone")

    def _withdrawn(self) -> None:
        began = time.monotonic()
        job = self.site.submit(IMAGES)
        wait_until(self._asked_for, "renderers to be asked for", WAIT_S)
        self.site.queue.state(job.id, "cancel")
        self.site.outcomes[job.id] = "cancelled"
        since = time.monotonic()
        self._until_over([job])
        wait_until(lambda: not self._asked_for(), "the scheduler to withdraw them", WAIT_S)
        what = "a job is cancelled before its nodes are there"
        self._note(f"{what}: until nobody waits for one", self._since(since))
        wait_until(self.site.settled, "Ray to make nodes no more", WAIT_S)
        self._note(f"{what}: nodes that were made all the same", str(len(self._made(began))))
        self._note(f"{what}: until the last of them is gone", self._since(since))

    def _choosy(self) -> None:
        """Its pictures name its model, so that they are like no other job's."""
        wanted = request(shard_images=FEW)
        recipe = wanted.recipe.model_copy(update={"model": "choosy", "steps": 4})
        since = time.monotonic()
        job = self.site.submit(FEW, wanted.model_copy(update={"recipe": recipe}))
        self._until_over([job])
        made = [one.kind for one in self._made(since)]
        what = "a model that wants an A100 and memory: kinds of nodes made, of `plain` and `choice`"
        self._note(what, ", ".join(made))
        self._until_none("until its node is gone")
        self.site.jobs.remove(job)
        self.alone.append(job)

    def _asked_for(self) -> bool:
        return self.site.queue.pool().get("renderers", 0) > 0

    def _notice(self, seconds: int, unit: int) -> None:
        jobs, one, held = self._at_work(unit)
        since = time.monotonic()
        self.site.give_notice(one.info["ray_node"], seconds)
        what = f"a node goes in {seconds} s, units of {unit} images"
        self._follow(what, one, held, since)
        self._until_over(jobs)

    def _loss(self) -> None:
        jobs, one, held = self._at_work(LONG_UNIT)
        self.struck.add(one.info["ray_node"])
        since = time.monotonic()
        self.site.lose(one)
        self._follow(f"a node is lost, units of {LONG_UNIT} images", one, held, since)
        self._until_over(jobs)
        self._until_none("all is done: until the last node is gone")

    def _shared(self) -> None:
        """Another scheduler, which lets two renderers share a device."""
        os.environ["FEWSTEP_RENDERERS_ON_A_DEVICE"] = "2"
        self.site.kill_scheduler()
        self.site.ray_scheduler()
        jobs = [self.site.submit(IMAGES, request(shard_images=IMAGES))]
        wait_until(self._measured, "a renderer to tell its memory", WAIT_S)
        jobs += [self.site.submit(IMAGES, request(shard_images=LONG_UNIT)) for _ in range(2)]
        # One has a whole device, as nothing was measured before it, and half a one stays free.
        wait_until(lambda: len(self.site.loaded()) == NODES + 1, "two on a device", WAIT_S)
        shares = sorted(one.info["share"] for one in self.site.loaded())
        what = f"devices that two may share: what the renderers on {self.nodes()} nodes have"
        self._note(what, ", ".join(shares))
        self._until_over(jobs)
        self._until_none("until the last node is gone")

    def _measured(self) -> bool:
        return any(one.info.get("peak") for one in self.site.loaded())

    # ---- the end ----

    def verdict(self) -> Verdict:
        """What is wrong with the jobs, and with how nodes and renderers went."""
        site = self.site
        wrong = site.leave()
        events = all_events(EventFeed(site.client))
        notes = [one for one in read_notes(site.notes) if one.node not in self.struck]
        verdict = examine(site, site.pictures, site.jobs)
        for job in self.alone:
            examine(site, read_dataset(site.store, site.layout(job)).pictures, [job], verdict)
        site.jobs += self.alone
        verdict.otherwise += wrong
        under = removed_under(notes, site.stays.seen, claims_of(events))
        verdict.otherwise += under
        bad = [one for one in events if one.type in ("fail", "split", "dead")]
        verdict.otherwise += [f"{one.type} of {one.unit}: {one.fields}" for one in bad]
        for job in site.jobs:
            deaths = sum(one.attempt for one in site.manifests(job))
            verdict.otherwise += [f"{deaths} deaths counted in {job.id}"] if deaths else []
        verdict.left_over += site.left_processes()
        ended = [one for one in notes if one.what == "ended"]
        claims = sum(event.type == "claimed" for event in events)
        images = sum(job.images for job in site.jobs)
        self._note("jobs, images, claims in all", f"{len(site.jobs)}, {images}, {claims}")
        what = "nodes that Ray removed, and of them with a renderer or a unit in its hands"
        self._note(what, f"{len(ended)}, {len(under)}")
        self._note("renderers' deaths counted against units", str(len(bad)))
        return verdict

    # ---- parts ----

    def nodes(self) -> int:
        """Nodes that the provider has made and not ended."""
        notes = read_notes(self.site.notes)
        return sum(1 if one.what == "made" else -1 for one in notes)

    def some_nodes(self) -> bool:
        """Whether there is one."""
        return self.nodes() > 0

    def _at_work(self, unit: int) -> tuple[list[Job], RendererRecord, list[LeaseRecord]]:
        """New jobs in units of that many images, one of those who are at them, and its leases."""
        jobs = [self.site.submit(IMAGES, request(shard_images=unit)) for _ in range(2)]
        wait_until(lambda: len(self.site.loaded()) == NODES, "every renderer", WAIT_S)
        wait_until(lambda: self._holders() == NODES, "every renderer at work", WAIT_S)
        one = self.site.busy()
        return jobs, one, self.site.recovery.held_by(one.info["actor"])

    def _follow(
        self, what: str, one: RendererRecord, held: list[LeaseRecord], since: float
    ) -> None:
        """When a renderer's units were free, when they were another's, and when it was replaced."""
        recovery, came = self.site.recovery, dict[str, str]()
        looks: dict[str, Callable[[], bool]] = {
            "until it holds nothing": lambda: not recovery.held_by(one.info["actor"]),
            f"until its {len(held)} units are done or another's": lambda: recovery.taken_over(held),
            "until it is no longer there": lambda: one.worker not in self._living(),
            "until another has its engine": lambda: self._all_render(one.worker),
        }

        def all_came() -> bool:
            for name, met in looks.items():
                if name not in came and met():
                    came[name] = self._since(since)
            return len(came) == len(looks)

        wait_until(all_came, what, WAIT_S)
        for name, seconds in came.items():
            self._note(f"{what}: {name}", seconds)

    def _holders(self) -> int:
        return len({lease.worker for lease in self.site.queue.leases()})

    def _all_render(self, without: str = "") -> bool:
        return len({one.worker for one in self.site.loaded()} - {without}) == NODES

    def _until_over(self, jobs: list[Job]) -> None:
        for job in jobs:
            self.site.wait_for_end(job, WAIT_S)

    def _until_none(self, what: str) -> None:
        since = time.monotonic()
        wait_until(lambda: self.nodes() == 0, "every node to go", WAIT_S)
        self._note(what, self._since(since))

    def _living(self) -> set[str]:
        return {one.worker for one in self.site.queue.renderers()}

    def _made(self, since: float) -> list[NodeNote]:
        from_ms = (time.time() - (time.monotonic() - since)) * 1e3
        notes = read_notes(self.site.notes)
        return [one for one in notes if one.what == "made" and one.at_ms >= from_ms]

    def _since(self, since: float) -> str:
        return f"{time.monotonic() - since:.1f} s"

    def _note(self, what: str, came: str) -> None:
        self.rows.append(Measured(what, came))
        self.say(f"{what}: {came}")
