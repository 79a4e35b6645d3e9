"""What the standard library lacks for the memory of this process, bound through ctypes. No policy lives here.

Every function raises OSError as those of `linux` do.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, Dict, List, Optional, Tuple

from . import linux

_libc = ctypes.CDLL(None, use_errno=True)

_PROT_READ_AND_EXEC = 1 | 4
_MAP_FIXED = 0x10

_libc.malloc.restype = ctypes.c_void_p
_libc.mmap.restype = ctypes.c_void_p


def allocate(size: int) -> int:
    """The address of so many bytes of the C library's, for good."""
    place: Optional[int] = _libc.malloc(ctypes.c_size_t(size))
    if place is None:
        raise MemoryError
    return place


def make_executable(start: int, size: int) -> None:
    """Let the memory at an address be read and executed, and not written."""
    result = _libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(size), ctypes.c_int(_PROT_READ_AND_EXEC))
    linux.checked(result, "mprotect")


def map_over(start: int, size: int, access: int, kind: int, fd: int, offset: int) -> None:
    """Put a part of a file in the place of what is at an address; `access` and `kind` as `mmap` names them."""
    wanted = (ctypes.c_void_p(start), ctypes.c_size_t(size), ctypes.c_int(access), ctypes.c_int(kind | _MAP_FIXED))
    if _libc.mmap(*wanted, ctypes.c_int(fd), ctypes.c_long(offset)) != start:
        raise OSError(ctypes.get_errno(), "mmap: %s" % os.strerror(ctypes.get_errno()))


# linux/falloc.h
_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2


def punch_hole(fd: int, offset: int, size: int) -> None:
    """Give back what a file takes there; it reads as zeros."""
    kind = ctypes.c_int(_FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE)
    linux.checked(_libc.fallocate(ctypes.c_int(fd), kind, ctypes.c_long(offset), ctypes.c_long(size)), "fallocate")


# elf.h
_PT_LOAD = 1
_PF_W = 2


class _Segment(ctypes.Structure):
    """Of a program of 64 bits; where they are fewer, nothing here is called."""

    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("type", "flags")),
        *((name, ctypes.c_uint64) for name in ("offset", "vaddr", "paddr", "file_bytes", "memory_bytes", "alignment")),
    ]


class _Library(ctypes.Structure):
    _fields_ = [
        ("place", ctypes.c_uint64),
        ("name", ctypes.c_char_p),
        ("segments", ctypes.POINTER(_Segment)),
        ("count", ctypes.c_uint16),
    ]


_Visitor = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Library), ctypes.c_size_t, ctypes.c_void_p)


def writable_parts_of_libraries() -> Dict[bytes, List[Tuple[int, int]]]:
    """What each shared library that is loaded has for data, from and to, by its path (dl_iterate_phdr(3))."""
    found: Dict[bytes, List[Tuple[int, int]]] = {}

    def note(library: Any, _size: int, _data: None) -> int:
        place, segments = library.contents.place, library.contents.segments[: library.contents.count]
        found[library.contents.name] = [
            (place + segment.vaddr, place + segment.vaddr + segment.memory_bytes)
            for segment in segments
            if segment.type == _PT_LOAD and segment.flags & _PF_W
        ]
        return 0

    _libc.dl_iterate_phdr(_Visitor(note), None)
    return found
