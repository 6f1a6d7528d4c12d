"""What every fault needs: a job that is under way, and time for the fault to last."""

import threading

from tests.chaos.bench import up
from tests.chaos.one_site import Site


def last(seconds: float) -> None:
    """A fault takes its time."""
    threading.Event().wait(seconds)


def begun(site: Site, *, restart: bool = False) -> None:
    """Everyone is at work and the first shard is done."""
    up(site, restart=restart)
    site.wait_for_progress()
