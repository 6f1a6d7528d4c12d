"""Every listed guard is in the script, once; that each is needed is shown by `make mutants`."""

import re
from pathlib import Path

import pytest
import redis

from jobs.queue_source import script_text
from tests.mutants.guards import GUARDS, Guard
from tests.mutants.plugin import mutated
from tests.servers import RedisServer

ROOT = Path(__file__).resolve().parents[2]
GUARDS_PAGE = ROOT / "docs" / "queue-guards.md"


def test_names_are_unique() -> None:
    names = [guard.name for guard in GUARDS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_the_script_without_it_is_another_script_and_runs(
    redis_server: RedisServer, guard: Guard
) -> None:
    """A mutation that Lua cannot read would be "found" by every test."""
    poorer = mutated(script_text(), guard)
    assert poorer != script_text()
    with redis_server.client() as client:
        client.script_load(poorer)
        with pytest.raises(redis.ResponseError, match="no such op"):
            client.eval(poorer, 1, "{fewstep}:q1", "nonsense", 0)


def test_the_page_has_a_row_for_every_guard_and_its_test_exists() -> None:
    rows = dict(re.findall(r"^\| (.+) \| `(.+)` \|$", GUARDS_PAGE.read_text("utf-8"), re.MULTILINE))
    assert list(rows) == [guard.name for guard in GUARDS]
    for named in rows.values():
        file, _, test = named.partition("::")
        assert f"def {test}(" in (ROOT / file).read_text("utf-8"), named
