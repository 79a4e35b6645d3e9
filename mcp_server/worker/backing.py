"""Puts the zygote's memory behind a file, so that a fork has less to share and an end less to let go of.

A fork notes each page that is the zygote's own in tables of its own, and an end takes it out again: with numpy and
pandas that is 19,000 times. Pages of a file are left to be found when they are touched. What a context writes to is
copied for it as before, and the file is sealed: nobody can change what the others see.

Two kinds of memory are put there. The data of libraries is copied when all is loaded, while nothing of theirs runs. The
heap is in use all the time, also by what would copy it. So it is made to grow first: room is taken for what will be
loaded, put behind the file while nothing but blocks of ours lies in it, and freed but for blocks here and there, which
keep the allocators from handing it back. What is loaded is then written to the file, which in the end is mapped once
more in the same places, for each process to write to copies of its own.

What the loader made read-only of a library's data (RELRO) can be written to again: each change of access is one more
mapping for each fork to copy, and the code that a context runs may write to all memory of its process anyhow.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import sys
from typing import Callable, Iterable, Iterator, List, NamedTuple, Sequence, Set, Tuple

from . import memory, packing

_SMALL, _SMALL_BYTES = 479, 30 * 1024 * 1024
"""Blocks of Python's own allocator, and how much of them: what numpy, pandas and matplotlib need."""

_LARGE, _LARGE_BYTES = 100_000, 24 * 1024 * 1024
"""The same of C's, of a size that it does not ask the kernel for singly."""

_LARGE_HEADER_MOST = 32
"""What C's allocator has between two blocks that are neighbours."""

_ARENA_BYTES = 256 * 1024
"""The smallest piece that Python's allocator takes and gives back (ARENA_SIZE; 1 MiB from 3.10 on)."""

_NO_FILE = (0, 0)

_STEP_BYTES = 64 * 1024
_ZEROS = bytes(_STEP_BYTES)

_READ_AND_WRITE = mmap.PROT_READ | mmap.PROT_WRITE

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class _Span(NamedTuple):
    """From and to, as addresses."""

    start: int
    end: int


class Backing:
    """The file of this process: `take_room`, load everything, `give_back`, `seal`.

    Where the kernel does not allow it, nothing changes, and `obstacle` says what it refused.
    """

    def __init__(self) -> None:
        self.obstacle = ""
        self._file = -1
        self._size = 0
        self._is_shared = False
        self._pins: List[object] = []
        self._in_use: Set[bytes] = set()

    def take_room(self) -> None:
        """To be called before anything large is loaded."""
        if sys.maxsize < 2**32:
            return
        with self._noting_refusal():  # administrators can forbid such files (vm.memfd_noexec)
            self._file = os.memfd_create("zygote", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            self._in_use.update(memory.writable_parts_of_libraries())
            os.register_at_fork(before=self._make_private)  # of a module, while it is loaded
            self._is_shared = True
            self._make_heap_grow()

    def give_back(self) -> None:
        """To be called when everything is loaded: what was not needed of the room goes."""
        self._pins.clear()

    def seal(self) -> None:
        """To be called when nothing is left to do but to fork. Raises OSError where others may still write to it."""
        if self._file < 0:
            return
        if len(os.listdir("/proc/self/task")) == 1:
            self._take_in_libraries()
        if self._is_shared:  # else a child of a module's may have what is no longer here
            self._make_private()
            self._give_up_unmapped()
        fcntl.fcntl(self._file, fcntl.F_ADD_SEALS, _SEALS)
        os.close(self._file)
        self._file = -1

    def _make_heap_grow(self) -> None:
        small = [bytes(_SMALL) for _ in range(_SMALL_BYTES // _SMALL)]
        large = [bytes(_LARGE) for _ in range(_LARGE_BYTES // _LARGE)]
        pools = list(_full_pools(map(id, small), sys.getsizeof(small[0])))
        rows = list(_rows(map(id, large), sys.getsizeof(large[0])))
        for span in pools + rows:
            self._put(span, mmap.MAP_SHARED)
        self._pins.extend(small[:: _ARENA_BYTES // _SMALL])
        self._pins.append(large[-1])

    def _take_in_libraries(self) -> None:
        """All but those that are at work while this is."""
        usual = [span for span, access, _, _ in _mappings() if access in ("rw-p", "r--p")]
        for name, parts in memory.writable_parts_of_libraries().items():
            if name not in self._in_use:
                for start, end in parts:
                    span = _Span(_page_at(start), _page_at(end + mmap.PAGESIZE - 1))
                    if _is_covered(span, usual):  # or the library has given some of it an access of its own
                        with self._noting_refusal():
                            self._put(span, mmap.MAP_PRIVATE)

    @contextlib.contextmanager
    def _noting_refusal(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.obstacle = self.obstacle or str(error)

    def _put(self, span: _Span, kind: int) -> None:
        """Have the file in this place, with what is in the place now. Nothing may write to that meanwhile."""
        offset, size = self._size, span.end - span.start
        self._size += size
        os.truncate(self._file, self._size)
        for start in range(span.start, span.end, _STEP_BYTES):
            content = ctypes.string_at(start, min(_STEP_BYTES, span.end - start))
            if not _ZEROS.startswith(content):
                written = os.pwrite(self._file, content, offset + start - span.start)
                if written != len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        memory.map_over(span.start, size, _READ_AND_WRITE, kind, self._file, offset)

    def _make_private(self) -> None:
        """From here on what is written stays the writer's. One call for each place: nothing can come between."""
        if not self._is_shared:
            return
        for span, offset in self._mapped():
            memory.map_over(span.start, span.end - span.start, _READ_AND_WRITE, mmap.MAP_PRIVATE, self._file, offset)
        self._is_shared = False

    def _give_up_unmapped(self) -> None:
        """What an allocator has handed back to the kernel the file must not hold."""
        end = 0
        for span, offset in [*sorted(self._mapped(), key=lambda mapped: mapped[1]), (_Span(0, 0), self._size)]:
            if end < offset:
                memory.punch_hole(self._file, end, offset - end)
            end = offset + span.end - span.start

    def _mapped(self) -> List[Tuple[_Span, int]]:
        """Where the file is in this process, and from which offset on."""
        status = os.fstat(self._file)
        return [(span, offset) for span, _, offset, file in _mappings() if file == (status.st_dev, status.st_ino)]


def _full_pools(blocks: Iterable[int], size: int) -> Iterator[_Span]:
    """Where Python's allocator has nothing but these blocks: full pools, and what lies unused between two arenas."""
    counts = collections.Counter(
        block // packing.POOL_BYTES
        for block in blocks
        if (block % packing.POOL_BYTES - packing.POOL_HEADER_BYTES) % size == 0  # or it is of another allocator
    )
    fill = (packing.POOL_BYTES - packing.POOL_HEADER_BYTES) // size
    full = [pool * packing.POOL_BYTES for pool in sorted(counts) if counts[pool] == fill]
    heap = [span for span, access, _, file in _mappings() if access == "rw-p" and file == _NO_FILE]

    def is_unused(between: _Span) -> bool:
        if between.end - between.start > packing.POOL_BYTES:
            return False
        is_there = any(span.start <= between.start and between.end <= span.end for span in heap)
        return is_there and not any(ctypes.string_at(between.start, between.end - between.start))

    return _joined([_Span(pool, pool + packing.POOL_BYTES) for pool in full], is_unused)


def _rows(blocks: Iterable[int], size: int) -> Iterator[_Span]:
    """Where C's allocator has nothing but these blocks, one after the other."""
    spans = [_Span(block, block + size) for block in sorted(blocks)]
    return _joined(spans, lambda between: between.end - between.start <= _LARGE_HEADER_MOST)


def _joined(spans: Sequence[_Span], is_ours: Callable[[_Span], bool]) -> Iterator[_Span]:
    """Whole pages of neighbours, where what is between two of them is ours too."""
    rows: List[List[_Span]] = []
    for span in spans:
        if rows and is_ours(_Span(rows[-1][-1].end, span.start)):
            rows[-1].append(span)
        else:
            rows.append([span])
    for row in rows:
        start, end = _page_at(row[0].start + mmap.PAGESIZE - 1), _page_at(row[-1].end)
        if start < end:
            yield _Span(start, end)


def _is_covered(span: _Span, parts: Sequence[_Span]) -> bool:
    common = (min(span.end, part.end) - max(span.start, part.start) for part in parts)
    return sum(size for size in common if size > 0) == span.end - span.start


def _page_at(address: int) -> int:
    return address // mmap.PAGESIZE * mmap.PAGESIZE


def _mappings() -> Iterator[Tuple[_Span, str, int, Tuple[int, int]]]:
    """This process's: where, with what access, from which offset of a file on, and that file's device and number."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            place, access, offset, device, number, *_ = line.split(maxsplit=5)
            start, _, end = place.partition("-")
            major, _, minor = device.partition(":")
            file = os.makedev(int(major, 16), int(minor, 16)), int(number)
            yield _Span(int(start, 16), int(end, 16)), access, int(offset, 16), file
