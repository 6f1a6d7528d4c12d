"""`python -m scheduler`: decides where engines live and finishes jobs, until it is stopped."""

import logging
import signal
import sys
import threading
from types import FrameType

from jobs.catalog import load_catalog
from jobs.errors import FewstepError
from jobs.logs import start_logging
from jobs.redis_client import check_server, control_client
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from scheduler.loop import Scheduler
from scheduler.pool import Pool

log = logging.getLogger("scheduler")


def main() -> int:
    """Run until SIGTERM or SIGINT; renderers stay, and are adopted by the next scheduler."""
    settings = Settings()
    start_logging(settings.log)
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        log.info("stopping signal=%s", number)
        stop.set()

    try:
        client = control_client(settings.redis_url.get_secret_value())
        check_server(client)
        store = Store.connect(settings)
        catalog = load_catalog(settings.catalog)
    except FewstepError as error:
        print(f"scheduler: {error}", file=sys.stderr)
        return error.exit_code
    Pool.connect(settings.ray_address)
    # Ray sets a handler of its own when it connects, which ends the process at once.
    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    queue = ShardQueue(client, keep_ms=settings.keep_ms)
    pool = Pool(
        settings.max_renderers,
        settings.renderer_device,
        catalog.models,
        settings.renderers_on_a_device,
    )
    scheduler = Scheduler(settings, queue, store, catalog, pool)
    log.info("scheduling slots=%s", scheduler.pool.slots())
    scheduler.run(stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
