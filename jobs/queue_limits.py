"""Limits of a job in the queue: stopping it there, and letting it go on."""

from typing import cast

from jobs.limits import Limit, Limits
from jobs.queue_script import QueueScript


class QueueLimits(QueueScript):
    """Stopping a job at its limit, and letting it go on."""

    def stop(self, job_id: str, limit: Limit) -> str:
        """Hand out no more of a job that reached a limit; the state it is in now, or "unknown".

        Units in flight are given back at their next batch; then it waits to be finished.
        """
        return cast(str, self._op("stop", job_id, limit))

    def limit(self, job_id: str, images: int, limits: Limits, max_failed: int | None = None) -> str:
        """Set the limits of a job that goes on; `images` may only rise.

        `max_failed`: images that may fail from then on; None: as many as before.

        The state it is in, "restoring" while it is read back, or "unknown": only `run` and `pause`
        have taken it.
        """
        most = "" if max_failed is None else max_failed
        return cast(str, self._op("limit", job_id, images, int(limits.cut), *limits.words, most))

    def forget(self, job_id: str) -> str:
        """Forget a job that is closed, so that it may be restored and go on; the state it was in.

        One that is not closed stays as it is.
        """
        return cast(str, self._op("forget", job_id))
