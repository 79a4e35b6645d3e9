"""Joins the mappings of each shared library, so that a fork has fewer to copy.

Linkers lay what only is read (headers, constants) and what is executed into segments of their own, which the kernel
keeps as three mappings: with numpy and pandas that is two thirds of 670. A fork copies each of them and enters it into
lists that all contexts share; 1,000 contexts hold 40 MB for them. Made executable too, as linkers did until 2018, the
readable ones are one with the code. Nothing becomes writable.
"""

from __future__ import annotations

import contextlib
import re
from typing import Iterator, List, NamedTuple

from . import memory

_MAPPING = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) (\S+) ([0-9a-f]+) \S+ \d+ +(/.*)")
_OF_NO_FILE = re.compile(rb"Anonymous: +([1-9][0-9]*) kB")


class _Mapping(NamedTuple):
    start: int
    end: int
    access: bytes
    offset: int
    path: bytes

    @property
    def is_constant(self) -> bool:
        """Whether it is as in the file. What the loader has changed, and then protected, is not."""
        return self.access in (b"r--p", b"r-xp")

    def is_continued_by(self, other: "_Mapping") -> bool:
        return (self.path, self.end, self.offset + self.end - self.start) == (other.path, other.start, other.offset)


def join() -> None:
    """To be called when everything is loaded. Where the system does not allow it, nothing changes."""
    for part in _joinable():
        if any(mapping.access == b"r-xp" for mapping in part):
            with contextlib.suppress(PermissionError):
                memory.make_executable(part[0].start, part[-1].end - part[0].start)


def _joinable() -> List[List[_Mapping]]:
    """Neighbours of one file that stand side by side there too, and are as they are there."""
    parts: List[List[_Mapping]] = [[]]
    for mapping in _mappings():
        if not mapping.is_constant:
            parts.append([])
        elif parts[-1] and parts[-1][-1].is_continued_by(mapping):
            parts[-1].append(mapping)
        else:
            parts.append([mapping])
    return [part for part in parts if len(part) > 1]


def _mappings() -> Iterator[_Mapping]:
    """This process's, of files; where pages of one have become the process's own it is as if it could be written."""
    with open("/proc/self/smaps", "rb") as file:
        lines = file.read().splitlines()
    mapping = None
    for line in lines:
        match = _MAPPING.fullmatch(line)
        if match is not None:
            if mapping is not None:
                yield mapping
            start, end, access, offset, path = match.groups()
            mapping = _Mapping(int(start, 16), int(end, 16), access, int(offset, 16), path)
        elif mapping is not None and _OF_NO_FILE.match(line):
            mapping = mapping._replace(access=b"rw-p")
    if mapping is not None:
        yield mapping
