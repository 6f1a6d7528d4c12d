"""What `keep_freed_memory` is for: no fresh pages for a tensor as large as the last one."""

import subprocess
import sys
from pathlib import Path

import pytest

#: Large enough to come from the kernel each time, unless the library is told otherwise.
_FAULTS = """
import resource, sys
sys.path.insert(0, {root!r})
import numpy
from workers.heap import keep_freed_memory
if {kept}:
    assert keep_freed_memory()
numpy.ones(2**21)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    numpy.ones(2**21)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the GNU C library's setting")
def test_a_block_that_was_freed_is_used_again_without_page_faults() -> None:
    assert faults(kept=True) < faults(kept=False) / 10


def faults(*, kept: bool) -> int:
    """Page faults of twenty blocks of 16 MiB, one after the other, in a process of their own."""
    script = _FAULTS.format(root=str(Path(__file__).parents[2]), kept=kept)
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True
    )
    return int(done.stdout)
