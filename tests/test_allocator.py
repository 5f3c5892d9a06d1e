"""Freed memory is used again, where the allocator can be told so."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from seernet.allocator import recycle

if sys.argv[1] == "recycle":
    recycle()
np.ones(1 << 23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(1 << 23)  # 64 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how):
    found = subprocess.run(
        [sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True
    )
    return int(found.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_large_blocks_do_not_come_and_go():
    asked = faults("not")
    if asked < 100:
        pytest.skip("this allocator keeps large blocks anyway")
    assert faults("recycle") < asked / 10
