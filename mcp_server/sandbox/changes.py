"""Which files a run made or changed, found afterwards by their times: nothing is looked at before a run.

A file's ctime is the kernel's and cannot be set by code, so a file changed in the run is one whose ctime is not before
its beginning. Names are resolved beneath the directory's descriptor and no link is followed.
"""

from __future__ import annotations

import ctypes
import mimetypes
import os
import stat
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mcp_server.model import FileChange

MAX_ENTRIES = 20_000
MAX_SECONDS = 0.2
"""Together they bound what one look at a workspace of any size costs."""

MAX_DEPTH = 32

SKIPPED_NAMES = frozenset((".git", "__pycache__", "node_modules", ".venv", ".cache", ".ipynb_checkpoints"))
"""Directories that fill by themselves and that nobody asked for."""

# linux/stat.h
_AT_SYMLINK_NOFOLLOW = 0x100
_STATX_BTIME = 0x800
_STATX_SIZE = 256
_STATX_BTIME_OFFSET = 80

_libc = ctypes.CDLL(None, use_errno=True)

_CLOCK_REALTIME_COARSE = 5
"""linux/time.h: the clock that the kernel stamps files with. It stands still between two ticks."""


Place = tuple[str, str, int]
"""A directory or regular file: the path of the directory that it is in, its name, and its stamp."""

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Usage:
    """What a file system holds: the cheap sign of whether anything came or went since it was last looked at."""

    free_blocks: int
    free_inodes: int


@dataclass(frozen=True, slots=True)
class Changes:
    """Files changed since a moment, in the order of their paths. ``incomplete`` says why not all were looked at.

    ``stamps`` tell these changes from later ones to the same files; ``entries`` were looked at. ``places`` are the
    directories and regular files that there are, beneath the one that was looked at, with the stamp of each; none where
    one of them may have been stamped again unnoticed.
    """

    files: tuple[FileChange, ...] = ()
    incomplete: str = ""
    stamps: frozenset[tuple[str, int]] = frozenset()
    entries: int = 0
    places: tuple[Place, ...] = ()


def usage(directory_fd: int) -> Usage:
    facts = os.fstatvfs(directory_fd)
    return Usage(facts.f_bfree, facts.f_ffree)


def moment_ns() -> int:
    """Now, as files are stamped: for `find_changes`."""
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)


def find_changes(
    directory_fd: int, since_ns: int, prefix: str = "", told: frozenset[tuple[str, int]] = frozenset()
) -> Changes:
    """Regular files beneath the directory that were changed at or after the moment `since_ns`.

    `told` are the stamps of changes that were found before: a moment is milliseconds long, and may hold two runs. What
    they name is not new.
    Paths begin with `prefix`. At most `MAX_ENTRIES` entries are looked at, for at most `MAX_SECONDS`.
    """
    deadline_s = time.monotonic() + MAX_SECONDS
    began_ns = moment_ns()
    newest_ns = os.fstat(directory_fd).st_ctime_ns
    places: list[Place] = [("", "", newest_ns)]
    found: dict[tuple[str, int], FileChange] = {}
    there_before = {path for path, _ in told}
    incomplete = ""
    entries = 0
    for path, status in _walk(directory_fd, prefix, MAX_DEPTH):
        if entries >= MAX_ENTRIES or (entries % 256 == 255 and time.monotonic() > deadline_s):
            incomplete = f"files were not all looked at: only the first {entries:,} entries"
            break
        entries += 1
        stamp = (path, status.st_ctime_ns)
        if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            parent, _, name = path[len(prefix) :].rpartition("/")
            places.append((parent, name, status.st_ctime_ns))
            newest_ns = max(newest_ns, status.st_ctime_ns)
        if stat.S_ISREG(status.st_mode) and status.st_ctime_ns >= since_ns and stamp not in told:
            is_new = path not in there_before and _is_born_since(directory_fd, path[len(prefix) :], since_ns)
            found[stamp] = _change(path, status, "new" if is_new else "changed")
    files = tuple(found[stamp] for stamp in sorted(found))
    settled = newest_ns < began_ns and not incomplete
    return Changes(files, incomplete, frozenset(found), entries, tuple(places) if settled else ())


def is_unchanged(directory_fd: int, places: Sequence[Place]) -> bool:
    """Whether all `places` of an earlier look still bear the same stamps. None of them says nothing: False.

    Whatever comes, goes or gets another name stamps the directory that it is in.
    """
    opened = {"": directory_fd}
    try:
        for parent, name, stamp_ns in places:
            fd = opened.get(parent)
            if fd is None:
                above, _, own_name = parent.rpartition("/")
                fd = opened[parent] = os.open(own_name, _OPEN_DIRECTORY, dir_fd=opened[above])
            status = os.stat(name, dir_fd=fd, follow_symlinks=False) if name else os.fstat(fd)
            if status.st_ctime_ns != stamp_ns:
                return False
    except OSError:
        return False
    finally:
        del opened[""]
        for fd in opened.values():
            os.close(fd)
    return bool(places)


def _change(path: str, status: os.stat_result, kind: str) -> FileChange:
    return FileChange(path, kind, status.st_size, mimetypes.guess_type(path, strict=False)[0] or "")


def _is_born_since(directory_fd: int, path: str, since_ns: int) -> bool:
    born_ns = _birth_ns(directory_fd, path)
    return born_ns is not None and born_ns >= since_ns


def _birth_ns(directory_fd: int, path: str) -> int | None:
    """When a file was made; None where the file system does not tell."""
    facts = ctypes.create_string_buffer(_STATX_SIZE)
    flags = ctypes.c_int(_AT_SYMLINK_NOFOLLOW)
    if _libc.statx(ctypes.c_int(directory_fd), os.fsencode(path), flags, ctypes.c_uint(_STATX_BTIME), facts) != 0:
        return None
    if not int.from_bytes(facts.raw[:4], sys.byteorder) & _STATX_BTIME:
        return None
    seconds, nanoseconds = struct.unpack_from("=qI", facts.raw, _STATX_BTIME_OFFSET)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def _walk(directory_fd: int, prefix: str, depth: int) -> Iterator[tuple[str, os.stat_result]]:
    """Everything beneath an open directory. What vanishes or forbids itself meanwhile is passed over."""
    directories = []
    with os.scandir(directory_fd) as entries:
        for entry in entries:
            try:
                status = os.stat(entry.name, dir_fd=directory_fd, follow_symlinks=False)
            except OSError:
                continue
            yield prefix + entry.name, status
            if stat.S_ISDIR(status.st_mode) and entry.name not in SKIPPED_NAMES:
                directories.append(entry.name)
    if depth == 0:
        return
    for name in directories:
        try:
            inner = os.open(name, _OPEN_DIRECTORY, dir_fd=directory_fd)
        except OSError:
            continue
        try:
            yield from _walk(inner, f"{prefix}{name}/", depth - 1)
        finally:
            os.close(inner)
