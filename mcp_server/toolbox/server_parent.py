"""A server that belongs to one process ends with it, also where that is killed."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

LOG_NAME = "log"
"""Beside the socket: what a server says to the parent that started it."""


def watch(parent: int, on_end: Callable[[], None]) -> None:
    """Call `on_end`, once, in the running loop, when the parent of this process has ended; `parent` is who it was.

    By a descriptor of the process: a pipe would be held open by whatever else the parent forks, and a death signal
    follows the thread that forked, which may end earlier.
    """
    loop = asyncio.get_running_loop()
    try:
        pidfd = os.pidfd_open(parent)
    except ProcessLookupError:
        loop.call_soon(on_end)
        return
    if os.getppid() != parent:  # it ended before, and the descriptor may be another process's
        os.close(pidfd)
        loop.call_soon(on_end)
        return

    def ended() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        on_end()

    loop.add_reader(pidfd, ended)


def remove_private_socket(listener: socket.socket) -> None:
    """Remove what a parent that was killed could not: the Unix socket, the log beside it, and their directory."""
    if listener.family != socket.AF_UNIX:
        return
    path = Path(listener.getsockname())
    with suppress(OSError):
        path.unlink()
        (path.parent / LOG_NAME).unlink()
        path.parent.rmdir()
