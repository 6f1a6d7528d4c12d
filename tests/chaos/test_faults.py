"""The short form of the fault suite: the most telling rows, once each."""

import pytest

from tests.chaos.bench import Bench
from tests.chaos.catalogue import FAULTS
from tests.chaos.fault import Fault
from tests.chaos.seats import NEW, OLD, redis_versions
from tests.s3_servers import STRICT, WEAK

pytestmark = pytest.mark.chaos

SHORT = [fault for fault in FAULTS if fault.short]


@pytest.mark.parametrize(
    "number", range(len(SHORT)), ids=lambda n: f"{SHORT[n].row}-{SHORT[n].name}"
)
def test_nothing_is_lost_doubled_wrong_or_left(struck: Bench, number: int) -> None:
    fault = SHORT[number]
    if reason := fault.needs():
        pytest.skip(reason)
    result = struck.run(fault, *_servers(fault, number))
    assert result.clean, f"{result.verdict}\n{result.error}\nsee {result.folder}"


def _servers(fault: Fault, number: int) -> tuple[str, str]:
    """Turn about: the old Redis with the weak store, the new one with the strict store."""
    fits = [version for version in redis_versions() if version in fault.redis]
    redis, store = ((OLD, WEAK), (NEW, STRICT))[number % 2]
    return (redis if redis in fits else fits[0], store if store in fault.stores else WEAK)
