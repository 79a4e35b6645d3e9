"""The descriptors between the host and one worker."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from mcp_server.errors import EngineUnavailable


@dataclass(slots=True)
class WorkerEnds:
    """A worker's socket and pipes: our ends, which do not block, and its ends (control, stdout, stderr)."""

    control: socket.socket
    stdout_fd: int
    stderr_fd: int
    theirs: tuple[int, ...]

    @classmethod
    def make(cls) -> WorkerEnds:
        control, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        control.setblocking(False)
        stdout_fd, stdout_inner = os.pipe()
        stderr_fd, stderr_inner = os.pipe()
        os.set_blocking(stdout_fd, False)
        os.set_blocking(stderr_fd, False)
        return cls(control, stdout_fd, stderr_fd, (inner.detach(), stdout_inner, stderr_inner))

    def close_theirs(self) -> None:
        for fd in self.theirs:
            os.close(fd)
        self.theirs = ()

    def close_ours(self) -> None:
        self.control.close()
        os.close(self.stdout_fd)
        os.close(self.stderr_fd)


def pid_of(pidfd: int) -> int:
    """The process as our own /proc knows it. Raises EngineUnavailable where it has ended already."""
    with open(f"/proc/self/fdinfo/{pidfd}", "rb") as lines:
        for line in lines:
            if line.startswith(b"Pid:") and int(line.split()[1]) > 0:
                return int(line.split()[1])
    raise EngineUnavailable("The new context ended at once.")
