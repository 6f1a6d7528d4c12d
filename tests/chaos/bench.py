"""Runs one fault on one pair of servers: start, strike, wait for the end, look at what is left."""

import shutil
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from tests.chaos.apart import strike_apart
from tests.chaos.examine import Undisturbed, examine, read_dataset
from tests.chaos.fault import Fault, Result
from tests.chaos.one_site import Site
from tests.chaos.processes import Zygote
from tests.chaos.seats import OLD, RedisSeat, StoreSeat
from tests.s3_servers import WEAK


class Bench:
    """Keeps what is slow to start: the zygote, moto, and the pictures of an undisturbed run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.zygote = Zygote(folder / "zygote.log")
        self._moto: StoreSeat | None = None
        self._undisturbed: Undisturbed | None = None
        self._runs = 0

    def close(self) -> None:
        """End what it keeps."""
        self.zygote.close()
        if self._moto is not None:
            self._moto.kill()

    @contextmanager
    def _store(self, kind: str, folder: Path) -> Iterator[StoreSeat]:
        if kind == WEAK:
            seat = StoreSeat(folder / "objects", kind)
            seat.start()
            try:
                yield seat
            finally:
                seat.kill()
            return
        if self._moto is None or self._moto.process is None:
            self._moto = StoreSeat(self.folder / "moto", kind)
            self._moto.start()
        yield self._moto

    @contextmanager
    def site(
        self, redis: str, store: str, fault: Fault | None = None, name: str = "undisturbed"
    ) -> Iterator[Site]:
        """A site on fresh servers; all is ended on the way out, its folder stays after an error."""
        self._runs += 1
        folder = self.folder / f"{self._runs:03d}-{name}-{redis}-{store}"
        folder.mkdir()
        seat = RedisSeat(folder / "redis", redis, fault.redis_options if fault else ())
        with fault.room(seat) if fault else nullcontext(), self._store(store, folder) as s3:
            seat.start()
            try:
                site = Site(folder, self.zygote, seat, s3)
                try:
                    yield site
                finally:
                    site.close()
            finally:
                seat.kill()
        if not site.keep:
            shutil.rmtree(folder)

    def undisturbed(self) -> Undisturbed:
        """Picture digests of a run into which nothing is struck."""
        if self._undisturbed is None:
            with self.site(OLD, WEAK) as site:
                up(site)
                site.wait_for_end()
                assert not site.stop()
                found = read_dataset(site.store, site.layout())
                self._undisturbed = found.pictures
                verdict = examine(site, found.pictures, [site.the_job])
                assert verdict.clean, verdict
        return self._undisturbed

    def run(self, fault: Fault, redis: str, store: str) -> Result:
        """Strike once; never raises."""
        if fault.apart:
            return self._run_apart(fault, redis, store)
        wanted = self.undisturbed()
        result = Result(fault, redis, store)
        started = time.monotonic()
        try:
            with self.site(redis, store, fault, fault.row) as site:
                result.folder = str(site.folder)
                self._strike(site, fault, result, wanted)
        except Exception:
            result.error = traceback.format_exc()
        result.seconds = time.monotonic() - started
        return result

    def _run_apart(self, fault: Fault, redis: str, store: str) -> Result:
        self._runs += 1
        folder = self.folder / f"{self._runs:03d}-{fault.row}-{redis}-{store}"
        result = strike_apart(fault, redis, store, folder)
        if result.clean:
            shutil.rmtree(folder)
        return result

    def _strike(self, site: Site, fault: Fault, result: Result, wanted: Undisturbed) -> None:
        try:
            fault.strike(site)
            site.wait_for_end()
        finally:
            result.injected = site.recovery.injected
            result.recoveries = site.recovery.seconds
        site.heal()
        wrong = site.stop()
        result.verdict = examine(site, wanted, [site.the_job])
        result.verdict.otherwise += wrong
        site.keep = not result.verdict.clean
        assert result.injected, "nothing was struck"


def up(site: Site, *renderers: str, restart: bool = False) -> None:
    """Scheduler, renderers (a and b) and the job."""
    site.scheduler()
    for name in renderers or ("a", "b"):
        site.renderer(name, restart=restart)
    site.submit()


@contextmanager
def bench(prefix: str = "fewstep-chaos-") -> Iterator[Bench]:
    """A bench in a temporary folder, which stays where something went wrong."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    made = Bench(folder)
    try:
        yield made
    finally:
        made.close()
        if not list(folder.glob("[0-9]*-*")):
            shutil.rmtree(folder)
