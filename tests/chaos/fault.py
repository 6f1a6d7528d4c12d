"""A fault, and what one run of it showed."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from tests.chaos.examine import Verdict
from tests.chaos.one_site import Site
from tests.chaos.seats import NEW, OLD, RedisSeat
from tests.s3_servers import STRICT, WEAK


def _nothing_missing() -> str:
    return ""


@dataclass(frozen=True)
class Fault:
    """A row of the fault matrix, or a variant of one: `strike` starts everyone and does harm.

    `needs` says what this machine lacks for it, "" where nothing.
    """

    row: str
    name: str
    how: str
    strike: Callable[[Site], None]
    short: bool = False
    stores: tuple[str, ...] = (STRICT, WEAK)
    redis: tuple[str, ...] = (OLD, NEW)
    needs: Callable[[], str] = _nothing_missing
    redis_options: tuple[str, ...] = ()
    #: What Redis' seat needs before it starts: another disk, another clock.
    room: Callable[[RedisSeat], AbstractContextManager[object]] = nullcontext
    #: Struck in namespaces of its own, into a `RaySite`.
    apart: bool = False
    #: Said below the table where recovery has another bound than lease and poll.
    note: str = ""


@dataclass
class Result:
    """What one run of a fault showed."""

    fault: Fault
    redis: str
    store: str
    injected: int = 0
    recoveries: list[float] = field(default_factory=list)
    verdict: Verdict = field(default_factory=Verdict)
    error: str = ""
    seconds: float = 0.0
    folder: str = ""

    @property
    def clean(self) -> bool:
        """Whether everything was as wanted."""
        return self.verdict.clean and not self.error
