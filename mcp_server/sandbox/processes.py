"""The processes of contexts as the host's /proc shows them: who belongs to which, and how much memory each holds.

A tag is the hard limit of RLIMIT_RTTIME that a context's processes inherit and cannot change. Everything read here can
be gone the next moment; what is gone counts nothing.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

_TAG_LABEL = b"Max realtime timeout"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_LONGEST_READ_BYTES = 16 * 1024

_MOST_READINGS = 4
"""A process takes about a millisecond to read, and the caller waits: one that dies each time must not hold it up."""


@dataclass(frozen=True, slots=True)
class TaggedProcess:
    """``resident_bytes`` counts shared pages in full, for each process that maps them."""

    pid: int
    tag: int
    resident_bytes: int
    threads: int


def find_tagged(tags: Collection[int]) -> Mapping[int, list[TaggedProcess]]:
    """Tag → its living processes, for those of the tags that have any."""
    found: dict[int, list[TaggedProcess]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        pid = int(name)
        tag = tag_of(pid)
        if tag is not None and tag in tags:
            resident, threads = _size_of(pid)
            if threads:
                found.setdefault(tag, []).append(TaggedProcess(pid, tag, resident, threads))
    return found


def tag_of(pid: int) -> int | None:
    """None for a process without a tag, or gone."""
    text = _read(f"/proc/{pid}/limits")
    start = text.find(_TAG_LABEL)
    if start < 0:
        return None
    hard = text[start + len(_TAG_LABEL) :].split(None, 2)[1]
    return int(hard) if hard.isdigit() else None


def bytes_together(members: Sequence[TaggedProcess]) -> int:
    """What they hold, each shared page divided by those that map it.

    The shares of one that dies pass to those that are read after it, so that pages were counted for both: then the
    living are read again.
    """
    for _ in range(_MOST_READINGS):
        together = sum(proportional_bytes(process) for process in members)
        living = [process for process in members if _size_of(process.pid)[1]]
        if len(living) == len(members):
            break
        members = living
    return together


def proportional_bytes(process: TaggedProcess) -> int:
    """Its memory with each shared page divided by those that map it; all that is resident where that is not shown."""
    for line in _read(f"/proc/{process.pid}/smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return _size_of(process.pid)[0]


def machine_kills_for_memory() -> int:
    """How often the kernel has killed anything here for memory since the machine started."""
    for line in _read("/proc/vmstat").splitlines():
        if line.startswith(b"oom_kill "):
            return int(line.split()[1])
    return 0


def start_time(pid: int) -> int | None:
    """When it started, in clock ticks since boot: with the pid this names one process for ever. None: it is gone."""
    fields = _fields_of_stat(pid)
    return int(fields[19]) if fields else None


def _size_of(pid: int) -> tuple[int, int]:
    """(resident bytes, threads); (0, 0) for one that is gone or dead."""
    fields = _fields_of_stat(pid)
    if not fields or fields[0] in (b"Z", b"X"):
        return 0, 0
    return int(fields[21]) * _PAGE_BYTES, int(fields[17])


def _fields_of_stat(pid: int) -> list[bytes]:
    """The fields of proc(5)'s stat from the third on; the second, the name, may hold anything."""
    return _read(f"/proc/{pid}/stat").rpartition(b") ")[2].split()


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, _LONGEST_READ_BYTES)
    except OSError:
        return b""
    finally:
        os.close(fd)
