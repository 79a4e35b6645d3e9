"""The two output pipes of a worker: read as output comes, held back where the sink asks for it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import struct
import termios
from collections.abc import Callable, Mapping

from mcp_server.model import Chunk, OutputChunk, Sink, Stream

READ_BYTES = 256 * 1024
"""One read empties a pipe of the default size (64 KiB) and a good part of an enlarged one."""

LITTLE_BYTES = 4096
PAUSE_S = 0.001
"""When as little came, the next look is so much later: a program that prints line by line shall not wake us, and be
held up by that, for each line. At its end nothing waits: `drain` reads at once."""


class OutputPipes:
    """Delivers chunks to `sink`, which may be exchanged at any time; owns the descriptors.

    A sink that returns an awaitable stops the reading until that is done. `on_failure` is told of an exception of its;
    a `drain` that waits for it raises the same.
    """

    def __init__(self, pipes: Mapping[int, Stream], sink: Sink, on_failure: Callable[[BaseException], None]) -> None:
        self.sink = sink
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._open = dict(pipes)
        self._poll = select.poll()
        for fd in self._open:
            self._poll.register(fd, select.POLLIN)
        self._held: asyncio.Future[None] | None = None
        self._pauses: dict[int, asyncio.TimerHandle] = {}
        self._watch()

    def deliver(self, chunk: Chunk) -> None:
        """Give a chunk to the sink; hold the pipes back if it wants time."""
        wait = self.sink(chunk)
        if wait is not None:
            self._unwatch()
            self._held = asyncio.ensure_future(wait)
            self._held.add_done_callback(self._resume)

    def sweep(self) -> None:
        """Deliver what is in the pipes at this moment, as far as the sink takes it at once."""
        for fd in self._readable():
            left = _waiting_bytes(fd)
            while left > 0 and self._held is None:
                read = self._read(fd, left)
                if read == 0:
                    break
                left -= read

    async def drain(self) -> None:
        """Deliver what is in the pipes at this moment, and return once the sink has taken it."""
        for fd in self._readable():
            left = _waiting_bytes(fd)
            while left > 0:
                await self._taken()
                read = self._read(fd, left)
                if read == 0:
                    break
                left -= read
        await self._taken()

    def close(self) -> None:
        """Close the descriptors. Idempotent."""
        self._unwatch()
        for fd in self._open:
            self._poll.unregister(fd)
            os.close(fd)
        self._open.clear()

    def _readable(self) -> list[int]:
        """Pipes that hold something, or nothing ever again: one look for both, as most runs print little or nothing."""
        return [fd for fd, _ in self._poll.poll(0)]

    async def _taken(self) -> None:
        held = self._held
        if held is not None:
            await held

    def _resume(self, held: asyncio.Future[None]) -> None:
        if self._held is held:
            self._held = None
        failure = None if held.cancelled() else held.exception()
        if failure is not None:
            self._on_failure(failure)
        self._watch()

    def _watch(self) -> None:
        for fd in self._open:
            self._watch_one(fd)

    def _watch_one(self, fd: int) -> None:
        self._end_pause(fd)
        self._loop.add_reader(fd, self._on_readable, fd)

    def _unwatch(self) -> None:
        for fd in self._open:
            self._end_pause(fd)
            self._loop.remove_reader(fd)

    def _on_readable(self, fd: int) -> None:
        if 0 < self._read(fd, READ_BYTES) < LITTLE_BYTES and self._held is None:
            self._loop.remove_reader(fd)
            self._pauses[fd] = self._loop.call_later(PAUSE_S, self._watch_one, fd)

    def _end_pause(self, fd: int) -> None:
        pause = self._pauses.pop(fd, None)
        if pause is not None:
            pause.cancel()

    def _read(self, fd: int, most: int) -> int:
        """Read once and deliver; the number of bytes that came."""
        try:
            data = os.read(fd, min(most, READ_BYTES))
        except BlockingIOError:
            return 0
        if not data:  # every writer is gone: nothing will come from here again
            self._end_pause(fd)
            self._loop.remove_reader(fd)
            self._open.pop(fd)
            self._poll.unregister(fd)
            os.close(fd)
            return 0
        self.deliver(OutputChunk(self._open[fd], data))
        return len(data)


def _waiting_bytes(fd: int) -> int:
    answer = fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0")
    return int(struct.unpack("i", answer)[0])
