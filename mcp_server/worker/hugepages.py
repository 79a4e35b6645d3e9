"""Puts the zygote's memory into huge pages, so that a fork has less to share and an end less to let go of.

A fork notes each page of the zygote in tables of its own, and an end takes it out again: with numpy and pandas that is
19,000 times. What a context writes to is copied in small pages as before.
"""

from __future__ import annotations

import contextlib
from typing import Iterator, Tuple

from . import linux

HUGE_PAGE_BYTES = 2 * 1024 * 1024
"""Where pages have 4 KiB. Where they are larger, so are huge ones, and the kernel finds fewer of them or none."""


def join() -> None:
    """To be called when everything is loaded. Where the kernel cannot do it, nothing changes."""
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
