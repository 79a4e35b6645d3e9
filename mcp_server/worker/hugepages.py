"""Puts the zygote's memory into huge pages, so that a fork has less to share and an end less to let go of.

A fork notes each page of the zygote in tables of its own, and an end takes it out again: with numpy and pandas that is
19,000 times. What a context writes to is copied in small pages as before.

Libraries lie between the pieces of a heap that grew while they were loaded, and a piece smaller than a huge page stays
in small ones. So the heap is made to grow first: room is taken for what will be loaded, and freed but for blocks here
and there, which keep the allocators from handing it back to the kernel before all is loaded.
"""

from __future__ import annotations

import contextlib
from typing import Iterator, List, Tuple

from . import linux

_SMALL, _SMALL_BYTES = 470, 30 * 1024 * 1024
"""Blocks of Python's own allocator, and how much of them: what numpy, pandas and matplotlib need."""

_LARGE, _LARGE_BYTES = 100_000, 24 * 1024 * 1024
"""The same of C's, of a size that it does not ask the kernel for singly."""

_ARENA_BYTES = 256 * 1024
"""The smallest piece that Python's allocator takes and gives back (ARENA_SIZE; 1 MiB from 3.10 on)."""

_pins: List[object] = []

HUGE_PAGE_BYTES = 2 * 1024 * 1024
"""Where pages have 4 KiB. Where they are larger, so are huge ones, and the kernel finds fewer of them or none."""


def make_room() -> None:
    """To be called before anything large is loaded."""
    small = [bytes(_SMALL) for _ in range(_SMALL_BYTES // _SMALL)]
    large = [bytes(_LARGE) for _ in range(_LARGE_BYTES // _LARGE)]
    _pins.extend(small[:: _ARENA_BYTES // _SMALL])
    _pins.append(large[-1])


def give_back() -> None:
    """To be called when everything is loaded: what was not needed of the room goes."""
    _pins.clear()


def join() -> None:
    """To be called when the heap will not change any more. Where the kernel cannot do it, nothing changes."""
    for start, end in list(_own_memory()):
        first, last = -(-start // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES, end // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES
        if first < last:
            with contextlib.suppress(OSError):  # it is advice: the kernel is older, or has no huge page left
                linux.collapse(first, last - first)


def _own_memory() -> Iterator[Tuple[int, int]]:
    """Where this process has memory that is of no file, stacks apart: from and to."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            place, access, _, _, _, *name = line.split()
            if access == "rw-p" and name in ([], ["[heap]"]):
                start, _, end = place.partition("-")
                yield int(start, 16), int(end, 16)
