"""Chores: what the scheduler does beside placing engines, on threads of their own."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ray.exceptions import RayError
from redis import RedisError

from jobs.catalog import Catalog
from jobs.errors import FewstepError
from jobs.recover import recover_jobs
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from jobs.sweep import sweep
from scheduler.finish import finish_ready

log = logging.getLogger(__name__)

#: How often is looked for leases that ran out, finished jobs, a lost memory of Redis, what deaths
#: left behind, and nodes that go.
REAP_S, FINISH_S, MEMORY_S, SWEEP_S, NODES_S = 0.5, 0.5, 5.0, 6 * 3600.0, 1.0
#: Leases that one call ends: Redis answers nobody else meanwhile.
REAPED = 100


@dataclass
class Chores:
    """Ends leases that ran out, finishes jobs, reads the queue back from the store where Redis
    lost it, and sweeps.

    Each may be done by two schedulers at once, and begun anew by the next one.
    """

    settings: Settings
    queue: ShardQueue
    store: Store
    catalog: Catalog

    def start(
        self, stop: threading.Event, look_at_nodes: Callable[[], None]
    ) -> list[threading.Thread]:
        """Begin; the threads end when told to stop, each after what it has in hand."""
        chores = (
            ("reap", self.reap, REAP_S),
            ("finish", self.finish, FINISH_S),
            ("memory", self.remember, MEMORY_S),
            ("sweep", self.sweep, SWEEP_S),
            ("nodes", look_at_nodes, NODES_S),
        )
        threads = [
            threading.Thread(target=_repeat, args=(do, pause, stop), name=name, daemon=True)
            for name, do, pause in chores
        ]
        for thread in threads:
            thread.start()
        return threads

    def reap(self) -> None:
        """End all leases that ran out: where a node died, thousands at once."""
        while self.queue.reap(REAPED) >= REAPED:
            pass

    def finish(self) -> None:
        """Finish every job that is accounted for."""
        finish_ready(self.queue, self.store, self.catalog, self.settings.s3_prefix)

    def remember(self) -> list[str]:
        """Where Redis was emptied, restarted or replaced: bring back what it may have lost.

        All of an emptied one; of one that went back by a second, the jobs accepted in it.
        """
        life = self.queue.life()
        if self.queue.restored_in() == life:
            return []
        back = []
        for job_id in recover_jobs(self.store, self.queue, self.settings.s3_prefix):
            log.warning("restored job=%s", job_id)
            back.append(job_id)
        self.queue.note_restored(life)
        return back

    def sweep(self) -> None:
        """Remove what deaths left behind in the store."""
        swept = sweep(self.store, self.settings.s3_prefix, time.time_ns() // 1_000_000)
        if swept.objects or swept.uploads:
            log.info("swept objects=%s uploads=%s", swept.objects, swept.uploads)


def _repeat(do: Callable[[], object], pause: float, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            do()
        except (FewstepError, RedisError, RayError) as error:
            log.warning("chore_failed chore=%s error=%s", do.__name__, error)
        except Exception:
            # A chore that ended with a bug would be missed by everybody.
            log.exception("chore_broke chore=%s", do.__name__)
        stop.wait(pause)
