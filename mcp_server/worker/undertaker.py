"""The undertaker: a light process that waits, in place of a room's last process, for the kernel to let go of the room.

Whoever is the last in a mount namespace is not gone before nobody on any processor looks at its mounts any more (RCU):
that can take as long as building a room, and longer on a busy machine. So the undertaker holds the namespace until the
room's processes have ended. Nothing depends on it: of what it is not told, the last process waits as ever.

    zygote → undertaker   {"op": "bury"} + pidfd of the room's first process, its mount namespace
"""

from __future__ import annotations

import os
import select
import signal
import socket
from typing import NoReturn

from . import linux, packets


def start(control: socket.socket) -> socket.socket:
    """Fork the undertaker; returns the socket to it, which never blocks. It lets go of `control`, the zygote's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        control.close()
        linux.die_with_parent(signal.SIGKILL)
        _serve(theirs)
    theirs.close()
    ours.setblocking(False)
    return ours


def _serve(requests: socket.socket) -> NoReturn:
    linux.set_process_name("undertaker")
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    while True:
        message, fds = packets.receive(requests)
        if message is None:
            os._exit(0)
        first, mounts = fds
        _await_end(first)
        os.close(first)
        os.close(mounts)  # here it waits


def _await_end(pidfd: int) -> None:
    ended = select.poll()
    ended.register(pidfd, select.POLLIN)
    ended.poll()
