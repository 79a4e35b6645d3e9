"""Plugs the gaps that imports leave in the heap, so that what is made after a fork lies close together.

A fork shares pages until one side writes to them. Imports leave free blocks all over the heap, and allocators hand
these out first: each small object that a context makes would then copy a page of its own. With the blocks taken, new
objects come from fresh pages, side by side.
"""

from __future__ import annotations

import functools
import sys
from typing import Callable, List

from . import memory

POOL_BYTES = 16_384 if sys.version_info >= (3, 10) else 4_096
"""Of CPython's allocator (POOL_SIZE in obmalloc.c): blocks of one size lie in pools of their own."""

POOL_HEADER_BYTES = 48

_SMALL = range(48, 513, 16)
"""The sizes of its blocks (ALIGNMENT to SMALL_REQUEST_THRESHOLD) that a bytes object can take; the two smaller ones are
taken by others."""

_LARGE = (65_536, 32_768, 16_384, 8_192, 4_096, 2_048, *range(1_024, 16, -16))
"""What C's allocator gives, the large gaps first, or small blocks would be strewn over them. It serves what is larger
than those blocks, and small things of libraries."""

_LARGE_HEADER_BYTES = 8

_LARGE_RUN = 8

_MOST_BLOCKS, _MOST_BYTES = 20_000, 16 * 1024 * 1024
"""For one size; an allocator that works in another way must not take all memory."""

_BYTES_HEADER = sys.getsizeof(b"")

_plugs: List[object] = []


def close_gaps() -> None:
    """Take the free blocks of all sizes for good. To be called once, when all garbage is collected."""
    for size in _LARGE:
        _plug(size, _LARGE_RUN, functools.partial(memory.allocate, size - _LARGE_HEADER_BYTES))
    for size in _SMALL:
        _plug_pools(size, functools.partial(bytes, size - _BYTES_HEADER))
    _plug_pools(32, functools.partial(float, "1.5"))
    _plug_pools(16, object)


def _plug_pools(size: int, make: Callable[[], object]) -> None:
    def take() -> int:
        _plugs.append(make())
        return id(_plugs[-1])

    _plug(size, (POOL_BYTES - POOL_HEADER_BYTES) // size - 1, take)


def _plug(size: int, run: int, take: Callable[[], int]) -> None:
    """Take blocks until so many have come one right after the other: these are from a fresh place."""
    neighbours, last = 0, 0
    for _ in range(min(_MOST_BLOCKS, _MOST_BYTES // size)):
        place = take()
        neighbours = neighbours + 1 if 0 < place - last <= size + 16 else 0
        if neighbours >= run:
            return
        last = place
