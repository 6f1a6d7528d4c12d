"""What a key and a tenant have used of what they may, counted in Redis."""

import math
import time
from collections.abc import Callable
from typing import Any

import redis

from jobs.errors import QuotaExceeded, TooManyRequests
from jobs.queue_script import key_prefix
from jobs.redis_client import explained

DAY_S = 86_400
#: A key that was idle may send this share of a minute's requests at once.
BURST = 1 / 6

# The generic cell rate algorithm: one number says when the bucket would be full again
# (ITU-T I.371, the virtual scheduling form). Answers the milliseconds to wait; 0: go on.
_TAKE = """
local now = tonumber(ARGV[3])
if now == 0 then local t = redis.call('TIME'); now = t[1] * 1000 + math.floor(t[2] / 1000) end
local gap, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local full = math.max(now, tonumber(redis.call('GET', KEYS[1]) or 0))
local wait = full + gap - now - burst * gap
if wait > 0 then return math.ceil(wait) end
redis.call('SET', KEYS[1], string.format('%.3f', full + gap), 'PX', math.ceil(full + gap - now) + 1)
return 0
"""

# A hash of job -> images, so that a job sent twice counts once; '|sum' is no job's id.
_SPEND = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return -1 end
local sum = tonumber(redis.call('HGET', KEYS[1], '|sum') or 0)
if sum + tonumber(ARGV[2]) > tonumber(ARGV[3]) then return sum end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HINCRBY', KEYS[1], '|sum', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return -1
"""


class Allowance:
    """Counts requests by key and images by tenant and day. Losing Redis forgives what was used."""

    def __init__(
        self,
        client: redis.Redis,
        *,
        prefix: str = "{fewstep}",
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._prefix = key_prefix(prefix)
        self._clock = clock
        self._take: Any = client.register_script(_TAKE)
        self._spend: Any = client.register_script(_SPEND)

    def take_request(self, key_id: str, a_minute: int) -> None:
        """Count one request of a key; raises TooManyRequests saying when to come again."""
        gap = 60_000 / a_minute
        burst = max(1, math.floor(a_minute * BURST))
        now = round(self._clock() * 1000) if self._clock else 0
        with explained():
            wait = int(self._take(keys=[f"{self._prefix}:rate:{key_id}"], args=[gap, burst, now]))
        if wait:
            raise TooManyRequests(
                f"this key may send {a_minute} requests a minute",
                where="Authorization",
                remedy="wait as Retry-After says, or ask for a higher limit",
                retry_after_s=math.ceil(wait / 1000),
            )

    def spend_images(self, tenant: str, job_id: str, images: int, a_day: int) -> None:
        """Count a job's images towards its tenant's day, once; raises QuotaExceeded."""
        now = self._clock() if self._clock else time.time()
        day = int(now // DAY_S)
        key = f"{self._prefix}:day:{day}:{tenant}"
        with explained():
            used = int(self._spend(keys=[key], args=[job_id, images, a_day, 2 * DAY_S]))
        if used >= 0:
            raise QuotaExceeded(
                f"{images} images are more than what is left of today's {a_day}: {a_day - used}",
                where="images_a_day",
                remedy="send fewer, or send it again after midnight (UTC)",
                retry_after_s=math.ceil((day + 1) * DAY_S - now),
            )
