"""Following one job from a command that waits for it: a bar, and an end where nothing can come."""

import time
from collections.abc import Callable

from fewstep.progress import job_bar
from jobs.client import Client
from jobs.errors import BadConfiguration
from jobs.job import JobView
from jobs.states import TERMINAL
from jobs.waiting import CANNOT_START

_POLL_S = 0.5


def follow(client: Client, job_id: str, check: Callable[[], None]) -> JobView:
    """Show the job at work until it has ended; its last view.

    `check` is called while waiting; it raises where a part of the stack has died. Raises
    BadConfiguration where no renderer can load the job's weights.
    """
    view = client.job(job_id)
    with job_bar(view.images, lambda: client.stages(job_id)) as bar:
        while view.state not in TERMINAL:
            bar(view)
            if view.reason.startswith(CANNOT_START):
                raise BadConfiguration(
                    view.reason,
                    where=str(view.recipe.get("model", "model")),
                    remedy="see `fewstep doctor`",
                )
            time.sleep(_POLL_S)
            check()
            view = client.job(job_id)
        bar(view)
    return view
