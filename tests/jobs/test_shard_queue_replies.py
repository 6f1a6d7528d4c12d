"""Lost replies: clients resend, so every op may run twice; and which keys an op may touch."""

import re
from collections.abc import Callable

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from jobs.queue_values import DoneUnit, Lease
from jobs.shard_queue import ShardQueue
from tests.jobs.conftest import Clock, Submit, request_for
from tests.servers import RedisServer, keys_and_digests


class Forgetful(redis.Connection):
    """A connection that loses replies: the server did the work, the client never hears."""

    #: Which reply from now on is lost.
    lose = 0

    def read_response(self, *args: object, **kwargs: object) -> object:
        reply = super().read_response(*args, **kwargs)
        Forgetful.lose -= 1
        if Forgetful.lose == 0:
            raise redis.ConnectionError("the reply was lost")
        return reply


@pytest.fixture
def lossy(redis_server: RedisServer, clock: Clock) -> ShardQueue:
    """A queue whose client resends at once when a reply is lost."""
    pool: redis.ConnectionPool = redis.ConnectionPool(
        connection_class=Forgetful,
        port=redis_server.port,
        decode_responses=True,
        retry=Retry(NoBackoff(), 2),
    )
    return ShardQueue(redis.Redis(connection_pool=pool), clock=clock)


#: Commands without a key. The script is called with the prefix of all its keys.
KEYLESS = frozenset("TIME FLUSHALL ECHO INFO EVALSHA SCRIPT PING CLIENT HELLO MULTI EXEC".split())
Op = Callable[[ShardQueue, Lease], object]
OPS: dict[str, tuple[Op, object]] = {
    "submit": (lambda q, _: q.submit(request_for("new")).outcome, "duplicate"),
    "renew": (lambda q, one: q.renew("w", [one], 5_000, [3]), ["ok"]),
    "win": (lambda q, one: q.win(one.job_id, one.unit, one.token) == one.token, True),
    "done": (lambda q, one: q.done(one.job_id, one.unit, one.token, 1, 9), "duplicate"),
    "release": (lambda q, one: q.fail(one.job_id, one.unit, one.token, "release"), "lost"),
    "crash": (lambda q, one: q.fail(one.job_id, one.unit, one.token, "crash"), "lost"),
    "pause": (lambda q, _: q.state("job", "pause"), "pause"),
    "cancel": (lambda q, _: q.state("job", "cancel"), "cancel"),
    "discard": (lambda q, _: q.state("job", "cancel", discard=True), "cancel"),
    "amend": (lambda q, _: q.amend("closed", 1, "done", "", (9, 1)), True),
    "spend": (lambda q, one: q.done(one.job_id, one.unit, one.token, 9), "duplicate"),
    "priority": (lambda q, _: q.set_priority("job", 9), True),
    "finish": (lambda q, _: q.finish("job", "failed"), "duplicate"),
    "restore": (lambda q, _: q.restore("lost", [DoneUnit("0")]), "ignored"),
    "claim": (lambda q, _: [one.unit for one in q.claim("v", "x", "engine", 1, 9)], ["1"]),
    "emit": (lambda q, _: q.emit("preview", "job", unit="0"), None),
    "heartbeat": (lambda q, _: q.heartbeat("w", {"gpu": "0"}), None),
    "leave": (lambda q, _: q.leave("w"), None),
    "scheduler_beat": (lambda q, _: q.scheduler_beat(), None),
    "reap": (lambda q, _: q.reap(), 0),
}


def a_busy_queue(queue: ShardQueue, **settings: object) -> Lease:
    """A job with a lease and a budget, one that is being restored, and one that has ended."""
    queue.submit(request_for("closed"))
    queue.finish("closed", "failed")
    queue.submit(request_for(max_failed=8, **settings))
    queue.submit(request_for("lost"), restoring=True)
    return queue.claim("w", "n", "engine", 1, 60_000)[0]


def look_at_all(queue: ShardQueue) -> None:
    """Every question that changes nothing, and what is noted without the script."""
    for job in (*queue.jobs().jobs, *queue.jobs("ann").jobs, *queue.open_jobs()):
        assert queue.job(job.job_id) == job
        queue.pieces(job.job_id)
    queue.states([job.job_id for job in queue.open_jobs()])
    queue.backlog()
    queue.finishing()
    queue.leases()
    queue.renderers()
    queue.scheduler_age_ms()
    queue.note_restored(queue.life())
    queue.restored_in()


@pytest.mark.parametrize("name", OPS)
def test_a_lost_reply_changes_nothing(
    client: redis.Redis, queue: ShardQueue, lossy: ShardQueue, name: str
) -> None:
    def prepare() -> Lease:
        client.flushall()
        return a_busy_queue(queue)

    op, answer = OPS[name]
    op(queue, prepare())
    once = keys_and_digests(client)
    lease = prepare()
    lossy.reap()
    # Restoring looks at the job first; what matters is its write.
    Forgetful.lose = 2 if name == "restore" else 1
    assert op(lossy, lease) == answer
    assert Forgetful.lose < 0
    assert forget_nonces(keys_and_digests(client)) == forget_nonces(once)


def forget_nonces(keys: dict[str, str]) -> dict[str, str]:
    return {re.sub(r"emitted:.*", "emitted", key): value for key, value in keys.items()}


def test_every_key_touched_is_in_the_one_slot(
    client: redis.Redis, redis_server: RedisServer, queue: ShardQueue
) -> None:
    touched: set[str] = set()
    with redis_server.client() as watcher, watcher.monitor() as monitor:
        for op, _ in OPS.values():
            client.flushall()
            op(queue, a_busy_queue(queue, max_attempts=1))
            look_at_all(queue)
        client.echo("over")
        while (seen := monitor.next_command())["command"] != "ECHO over":
            words = str(seen["command"]).split(" ")
            if words[0] == "XREAD":
                # An API that lives as long as the tests listens on the same server.
                touched.add(words[words.index("STREAMS") + 1])
            elif words[0] not in KEYLESS:
                touched.add(words[1])
    assert len(touched) > 50
    assert {key for key in touched if not key.startswith("{fewstep}:")} == set()


def test_a_claim_is_given_once_per_nonce(
    queue: ShardQueue, submit: Submit, client: redis.Redis
) -> None:
    submit()
    first = queue.claim("w", "n1", "engine", 2, 60_000)
    before = keys_and_digests(client)
    assert queue.claim("w", "n1", "engine", 2, 60_000) == first
    assert keys_and_digests(client) == before
    assert [one.unit for one in queue.claim("w", "n2", "engine", 2, 60_000)] == ["2"]
    assert queue.claim("w", "n3", "engine", 2, 60_000) == []
