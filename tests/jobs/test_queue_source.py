"""The queue's scripts: of one source, each op has what it needs, and no more."""

import re

import pytest
import redis

from jobs.queue_source import script_of, script_text
from jobs.shard_queue import ShardQueue

OPS = re.findall(r"^function ops\.(\w+)", script_text(), re.MULTILINE)


def test_an_op_has_what_it_needs_and_no_more() -> None:
    source = """
local call, P = redis.call, KEYS[1] -- both
local LIMIT = 3 -- unused(
local names = {
  'a',
}
local function deep(x) return x end
local function needed(x)
  return deep(x)
end
local function spare() return LIMIT end
if P == '' then
  return 0
end
local ops = {}
function ops.one() return needed(call) end -- spare
function ops.two()
  return names
end
return ops[ARGV[1]]()
"""
    one, two = script_of(source, "one"), script_of(source, "two")
    for script in (one, two):
        assert "local call, P = redis.call, KEYS[1]\n" in script
        assert "if P == '' then\n  return 0\nend\n" in script
        assert script.endswith("return ops[ARGV[1]]()")
        assert "spare" not in script
        assert "LIMIT" not in script
    assert one.index("deep(x)") < one.index("needed(x)") < one.index("ops.one")
    assert "names" not in one
    assert "local names = {\n  'a',\n}\nif P" in two
    assert "needed" not in two
    with pytest.raises(KeyError):
        script_of(source, "three")


@pytest.mark.parametrize("op", OPS)
def test_every_op_is_a_script_of_its_own(client: redis.Redis, op: str) -> None:
    script = script_of(script_text(), op)
    client.script_load(script)
    assert f"function ops.{op}()" in script
    assert len(script) < len(script_text()) / 1.5
    # Not those of other ops, nor what explains them.
    assert script.count("function ops.") == 1
    assert "--" not in script


def test_who_reads_health_knows_the_source(queue: ShardQueue) -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", queue.script_sha)
