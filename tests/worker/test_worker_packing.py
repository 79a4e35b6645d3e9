"""With the gaps of the heap plugged, new objects come from fresh places, side by side."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.worker.worker_process import WORKER_DIR

PROGRAM = """
import gc, importlib.util, random, sys
spec = importlib.util.spec_from_file_location("packing", sys.argv[1])
packing = importlib.util.module_from_spec(spec)
spec.loader.exec_module(packing)

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
    command = [sys.executable, "-c", PROGRAM, str(WORKER_DIR / "packing.py")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    before, after = map(int, done.stdout.split())
    least = (500 * 183 + 50 * 1_033) // 4_096
    assert after < least * 2
    assert before > after * 1.5
