"""How the ops of the queue's Lua script are called."""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import redis

from jobs.errors import BadConfiguration
from jobs.queue_source import script_of, script_text
from jobs.redis_client import explained

#: Part of every key, so that two releases with different records do not read each other's.
KEY_FORMAT = "q1"
#: Hashes in one answer of `_records`: a millisecond of the server, so that nobody waits for it.
RECORDS = 100


def key_prefix(prefix: str = "{fewstep}") -> str:
    """What every key of the queue begins with; the braces keep them in one slot."""
    return f"{prefix}:{KEY_FORMAT}"


class QueueScript:
    """A Redis client with the queue's scripts; loads one where the server lacks it."""

    def __init__(
        self, client: redis.Redis, prefix: str, clock: Callable[[], int] | None = None
    ) -> None:
        self._client: Any = client
        if not self._client.get_encoder().decode_responses:
            raise BadConfiguration(
                "the queue's Redis client must decode replies",
                remedy="take one from jobs.redis_client, or pass decode_responses=True",
            )
        self._prefix = key_prefix(prefix)
        self._source = script_text()
        self._scripts: dict[str, Any] = {}
        self._clock = clock

    @property
    def script_sha(self) -> str:
        """Identifies the source of the scripts that run, for health reports."""
        return hashlib.sha256(self._source.encode()).hexdigest()

    def key(self, name: str) -> str:
        """The full key of a name, such as `job:J` or `events`."""
        return f"{self._prefix}:{name}"

    def _op(self, op: str, *args: str | int | float) -> Any:
        if op not in self._scripts:
            self._scripts[op] = self._client.register_script(script_of(self._source, op))
        now = self._clock() if self._clock else 0
        with explained():
            return self._scripts[op](keys=[self._prefix], args=[op, now, *args])

    def _records(self, names: Sequence[str], fields: Sequence[str]) -> list[dict[str, str]]:
        """These fields of many hashes, {} for one that is not there.

        As JSON: redis-py takes ten times as long for as many replies of their own.
        """
        found: list[dict[str, str]] = []
        for start in range(0, len(names), RECORDS):
            reply = self._op("fields", len(fields), *fields, *names[start : start + RECORDS])
            found += [
                {name: value for name, value in zip(fields, row, strict=True) if value is not False}
                for row in json.loads(reply)
            ]
        return found
