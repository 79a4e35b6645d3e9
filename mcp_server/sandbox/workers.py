"""What the host holds of one worker: its record, and the descriptors between the two."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

from mcp_server.errors import EngineUnavailable


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """How a worker ended: by itself (``exit_code``) or by a ``signal``; and what it was killed for, where it was."""

    exit_code: int | None
    signal: int | None
    out_of_memory: bool = False
    too_many_processes: bool = False


@dataclass(frozen=True, slots=True)
class Spawned:
    """A new worker. Socket and descriptors are non-blocking and belong to the caller, who closes them.

    ``pid`` is the worker's process and group as the host sees it; ``pidfd`` stays the same process for ever. ``tag`` is
    worn by all that the worker will ever start (`processes`).

    INIT it waits for, and reads, before it moves into its sandbox; it is ``housed`` when it has answered that, sealed
    and there. ``housed`` fails with EngineUnavailable where it never will be.
    """

    worker_id: int
    control: socket.socket
    stdout_fd: int
    stderr_fd: int
    pidfd: int
    pid: int
    tag: int
    housed: asyncio.Future[None]


@dataclass(slots=True)
class HostedWorker:
    """A worker in the cell's books.

    ``born`` gives its pidfd, once it can be told of a sandbox. ``housed`` exists once it was, and is done when it is
    there and has answered INIT. ``failure`` says why nothing will come of it. ``gone`` exists once its end was asked
    for, and is done when all that it started is gone.
    """

    born: asyncio.Future[int]
    on_exit: Callable[[WorkerExit], None] = lambda _: None
    sandbox: str = ""
    housed: asyncio.Future[None] | None = None
    exited: bool = False
    failure: str = ""
    gone: asyncio.Future[None] | None = None

    @property
    def is_coming(self) -> bool:
        """Whether somebody waits for it to be born or housed."""
        return not self.born.done() or (self.housed is not None and not self.housed.done())

    def be_housed(self) -> None:
        if self.housed is not None and not self.housed.done():
            self.housed.set_result(None)

    def refuse(self, text: str) -> None:
        """Nothing will come of this worker, where it is not ready already."""
        self.failure = self.failure or text
        for coming in (self.born, self.housed):
            if coming is not None and not coming.done():
                coming.set_exception(EngineUnavailable(text))
                coming.exception()  # whoever waits may have been cancelled

    def abandon(self) -> None:
        """Nobody wants it any more: its exit is not reported, and its descriptor is closed when it comes."""
        self.on_exit = lambda _: None
        self.born.add_done_callback(_close_result)


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A worker that belongs to no sandbox yet. What it holds is the caller's, as in `Spawned`."""

    worker_id: int
    worker: HostedWorker
    ends: WorkerEnds
    pidfd: int
    pid: int

    def close(self) -> None:
        self.ends.close_ours()
        os.close(self.pidfd)


@dataclass(slots=True)
class WorkerEnds:
    """A worker's socket and pipes: our ends, which do not block, and its ends (control, stdout, stderr, doors)."""

    control: socket.socket
    stdout_fd: int
    stderr_fd: int
    theirs: tuple[int, ...]

    @classmethod
    def make(cls, doors: tuple[int, ...]) -> WorkerEnds:
        """`doors`, by which it goes into its limits, are taken over."""
        control, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        control.setblocking(False)
        stdout_fd, stdout_inner = os.pipe()
        stderr_fd, stderr_inner = os.pipe()
        os.set_blocking(stdout_fd, False)
        os.set_blocking(stderr_fd, False)
        return cls(control, stdout_fd, stderr_fd, (inner.detach(), stdout_inner, stderr_inner, *doors))

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


def _close_result(born: asyncio.Future[int]) -> None:
    if not born.cancelled() and born.exception() is None:
        os.close(born.result())
