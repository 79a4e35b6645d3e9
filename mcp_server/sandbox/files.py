"""Files of an untrusted directory, read and written by the host.

Foreign code owns what lies in such a directory and may change it at any moment: links to the host's secrets, FIFOs that
never answer, files of a terabyte that hold nothing. So a name is resolved by the kernel alone, in one step that cannot
leave the directory and follows no link (openat2, Linux 5.6; there is no other way that is safe, and none is tried), and
what was opened is looked at before it is read.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from mcp_server.errors import CallerError

_NR_OPENAT2 = 437
"""asm-generic/unistd.h; the same on every architecture."""

# linux/openat2.h
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_RESOLVE = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS

_ALWAYS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

_READ_AT_ONCE_BYTES = 1024 * 1024

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

_REASONS = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "a part of the path is no directory",
    errno.ELOOP: "a part of the path is a symbolic link",
    errno.EXDEV: "the path leads out of the directory",
    errno.EACCES: "its permissions forbid it",
    errno.EPERM: "its permissions forbid it",
    errno.ENXIO: "it is a socket, a device, or a FIFO that nobody reads",
    errno.ENAMETOOLONG: "the path is too long",
    errno.EAGAIN: "it is being moved, or a lease holds it",
    errno.EEXIST: "it exists already",
    errno.EISDIR: "it is a directory",
}


class FileRefused(CallerError):
    """A file that cannot be read or written as asked. Nothing was changed."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"The file {path[:200]!r} cannot be used: {reason}.")
        self.reason = reason


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Bytes of a file from ``offset`` on. ``size_bytes`` is what the file claims to hold, which costs it nothing."""

    data: bytes
    offset: int
    size_bytes: int

    @property
    def complete(self) -> bool:
        return self.offset == 0 and len(self.data) == self.size_bytes


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def open_beneath(directory_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """openat2 beneath a directory: no symbolic link anywhere in the path, no `..` out of it, no absolute path.

    The descriptor does not block and is closed by exec. Raises FileRefused; OSError for what is not the path's fault,
    ENOSYS before Linux 5.6 among it.
    """
    if "\0" in path:
        raise FileRefused(path, "the path holds a NUL")
    how = _OpenHow(flags | _ALWAYS, mode, _RESOLVE)
    fd: int = _libc.syscall(
        ctypes.c_long(_NR_OPENAT2),
        ctypes.c_long(directory_fd),
        os.fsencode(path),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    if fd >= 0:
        return fd
    number = ctypes.get_errno()
    if number in _REASONS:
        raise FileRefused(path, _REASONS[number])
    raise OSError(number, f"openat2: {os.strerror(number)}", path)


@contextmanager
def regular_file(directory_fd: int, path: str) -> Iterator[tuple[int, os.stat_result]]:
    """A regular file beneath the directory, open for reading, with its status. Raises FileRefused."""
    fd = open_beneath(directory_fd, path, os.O_RDONLY)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            kind = next((name for test, name in _KINDS if test(status.st_mode)), "no regular file")
            raise FileRefused(path, f"it is {kind}")
        yield fd, status
    finally:
        os.close(fd)


def read_file(directory_fd: int, path: str, limit_bytes: int, offset: int = 0) -> Excerpt:
    """At most `limit_bytes` of a file, from `offset` on. Raises FileRefused.

    What is read bounds the cost, not what the file claims to hold: a sparse giant yields `limit_bytes` zeros.
    """
    if limit_bytes < 0 or offset < 0:
        raise ValueError("limit_bytes and offset are not negative")
    with regular_file(directory_fd, path) as (fd, status):
        data = bytearray()
        while len(data) < limit_bytes:
            part = os.pread(fd, min(limit_bytes - len(data), _READ_AT_ONCE_BYTES), offset + len(data))
            if not part:
                break
            data += part
        return Excerpt(bytes(data), offset, status.st_size)


def read_whole_file(directory_fd: int, path: str, limit_bytes: int) -> bytes:
    """All of a file of at most `limit_bytes`. Raises FileRefused for a larger one, before or while it grows."""
    excerpt = read_file(directory_fd, path, limit_bytes + 1)
    if excerpt.size_bytes > limit_bytes or len(excerpt.data) > limit_bytes:
        raise FileRefused(path, f"it holds {excerpt.size_bytes:,} bytes, and {limit_bytes:,} is the limit")
    return excerpt.data


def make_directory(directory_fd: int, name: str) -> int:
    """Make and open a directory directly in another one; returns its descriptor. One that is there already is opened.

    For directories that the host alone writes. Raises FileRefused where the name is a path, or is something else.
    """
    _require_plain_name(name)
    with suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=directory_fd)
    return open_beneath(directory_fd, name, os.O_RDONLY | os.O_DIRECTORY)


def create_file(directory_fd: int, name: str) -> int:
    """Make a new, empty file directly in a directory, open for writing; returns its descriptor.

    Nothing that is there is ever opened or replaced: raises FileRefused for an existing name.
    """
    _require_plain_name(name)
    return open_beneath(directory_fd, name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)


def _require_plain_name(name: str) -> None:
    if name in ("", ".", "..") or "/" in name:
        raise FileRefused(name, "a plain name is needed here, not a path")
