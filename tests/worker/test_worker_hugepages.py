"""With the zygote's memory in huge pages, nothing that lies in it changes."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys

import pytest

from mcp_server.worker import hugepages, linux

PROGRAM = """
import os, re
from mcp_server.worker import hugepages

def in_huge_pages():
    with open("/proc/self/smaps_rollup") as memory:
        return int(re.search(r"AnonHugePages: +([0-9]+)", memory.read())[1])

kept = [b"%d" % number for number in range(600_000)]
before = in_huge_pages()
hugepages.join()
assert kept == [b"%d" % number for number in range(600_000)]
print(in_huge_pages() - before, flush=True)
if os.fork() == 0:
    kept[::2] = [b""] * 300_000
    os._exit(0)
assert os.wait()[1] == 0
assert kept == [b"%d" % number for number in range(600_000)]
"""


@pytest.fixture
def huge_pages() -> None:
    """Needs a kernel that makes them when it is asked."""
    size = 2 * hugepages.HUGE_PAGE_BYTES
    with mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory[:] = b"1" * size
        view = ctypes.c_char.from_buffer(memory)
        address = ctypes.addressof(view)
        del view
        first = -(-address // hugepages.HUGE_PAGE_BYTES) * hugepages.HUGE_PAGE_BYTES
        try:
            linux.collapse(first, hugepages.HUGE_PAGE_BYTES)
        except OSError as error:
            pytest.skip(f"no huge pages here: {error}")


@pytest.mark.usefixtures("huge_pages")
def test_a_heap_in_huge_pages_holds_what_it_held_and_forks_keep_theirs_apart() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    assert int(done.stdout) >= 8 * 1024
