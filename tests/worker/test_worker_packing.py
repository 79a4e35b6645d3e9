"""With the gaps of the heap plugged, new objects come from fresh places, side by side."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import gc, random
from mcp_server.worker import packing

sizes = random.Random(0)
kept = [bytes(sizes.randrange(20, 3_000)) for _ in range(30_000)]
del kept[::2]
gc.collect()

def pages():
    new = [bytes(150) for _ in range(500)] + [bytes(1_000) for _ in range(50)]
    return len({id(one) // 4_096 for one in new}), new

before = pages()
del before[1][:]
packing.close_gaps()
print(before[0], pages()[0])
"""


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="the allocator is CPython's")
def test_new_objects_lie_close_together_once_the_gaps_are_closed() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    before, after = map(int, done.stdout.split())
    least = (500 * 183 + 50 * 1_033) // 4_096
    assert after < least * 2
    assert before > after * 1.5
