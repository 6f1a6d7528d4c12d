"""Small: how soon 16 images start while 10 million others wait."""

from benchmarks.fleet import RENDERERS
from benchmarks.goals import Goal
from benchmarks.servers import running_redis, url_of
from benchmarks.simulated_cluster import STEP_S, SimulatedCluster
from benchmarks.simulated_pool import LOAD_S

PART = "small"
BACKLOG, SMALL = 10_000_000, 16
#: The pool has filled by then.
WARM_S = 200.0


def run(quick: bool) -> list[Goal]:
    """Small jobs of others, for the engine that is at work and for ones that nobody holds."""
    size, backlog = (50, 200_000) if quick else (RENDERERS, BACKLOG)
    with running_redis() as port:
        cluster = SimulatedCluster(url_of(port), size)
        engine, others = cluster.recipes[0], cluster.recipes[1:6]
        cluster.submit("tenant-0", engine, backlog)
        cluster.run(WARM_S)
        same, cold = [], []
        for number in range(5):
            same.append(cluster.submit(f"tenant-{number + 1}", engine, SMALL))
            cluster.run(17.0)
        for number, other in enumerate(others):
            cold.append(cluster.submit(f"tenant-{number + 11}", other, SMALL))
            cluster.run(17.0)
        cluster.run(600.0)
        shard = 1_000 * cluster.cost[engine]
        started = cluster.ledger.started
    real = f"virtual time, the loop steps every {STEP_S:g} s; loading takes {LOAD_S:g} s"
    return [
        Goal(
            PART,
            f"start of {SMALL} images beside {backlog:,}, the same engine",
            "shards' time",
            max(started[name] for name in same) / shard,
            most=2.0,
            how=f"5 jobs, the slowest; a shard takes {shard:.0f} s; {size:,} renderers; {real}",
            seen={"seconds": [started[name] for name in same]},
        ),
        Goal(
            PART,
            f"start of {SMALL} images beside {backlog:,}, an engine that nobody holds",
            "shards' time",
            max(started.get(name, float("inf")) for name in cold) / shard,
            most=2.0,
            how=f"5 jobs and engines, the slowest, of the same priority; {real}",
            seen={"seconds": [started.get(name) for name in cold]},
        ),
    ]
