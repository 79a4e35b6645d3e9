"""A server that belongs to one process ends with it, also where that is killed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable


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
