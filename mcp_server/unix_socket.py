"""A Unix socket to listen on: for this user alone, in place of one that nobody answers, and gone at the end."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mcp_server.errors import SetupFailed

BACKLOG = 512

MAX_PATH_BYTES = 107
"""`sun_path` of Linux, less its final zero."""


@contextmanager
def listening_at(path: Path) -> Iterator[socket.socket]:
    """Listen there, with mode 0600, for as long as the block lasts. Raises SetupFailed with the reason."""
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise SetupFailed(f"--unix-socket {path}: a socket's path has at most {MAX_PATH_BYTES} bytes.")
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            with _alone_in(path.parent):
                _remove_stale(path)
                _bind(listener, path)
                made = path.stat()
        except OSError as error:
            raise SetupFailed(f"Cannot listen on {path}: {error.strerror or error}.") from None
        try:
            yield listener
        finally:
            _remove(path, made)


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """While one server looks whether a socket is stale, no other may put its own there."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SetupFailed(f"--unix-socket {path}: there is something else of that name.")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:  # its server was killed
            path.unlink()
            return
    raise SetupFailed(f"--unix-socket {path}: another server listens there.")


def _bind(listener: socket.socket, path: Path) -> None:
    """With its mode from the first moment on, so that nobody else can connect in between."""
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(BACKLOG)


def _remove(path: Path, made: os.stat_result) -> None:
    """Unless somebody has put something else in its place."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino):
        path.unlink()
