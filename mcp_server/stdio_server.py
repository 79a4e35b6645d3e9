"""MCP over the process's own stdin and stdout.

The SDK's transport cannot be stopped while it waits for input, drops a request whose JSON holds half a surrogate pair
without an answer, ends at the first one it would have to write, and takes two threads for each message. This one reads
and writes on the event loop, and answers every line.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import select
import signal
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import anyio
import structlog
from mcp.server.lowlevel import Server
from mcp.shared.message import SessionMessage
from mcp_types import PARSE_ERROR, ErrorData, JSONRPCError, JSONRPCMessage, jsonrpc_message_adapter
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from mcp_server.tools import encodable

READ_BYTES = 1 << 16
"""The capacity of a pipe."""

MAX_WAITING_LINES = 64
"""Lines that were read and not yet asked for; beyond, the client is held back."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_log = structlog.get_logger(__name__)


async def serve(server: Server[Any]) -> int:
    """Serve until stdin ends or a signal comes; calls in progress are cancelled then. Gives the exit status."""
    with _wire() as (read_fd, write_fd), _stop_on_signal() as stopped:
        outbox = MessageWriter(write_fd)
        inbox = MessageReader(read_fd, outbox)
        serving = asyncio.create_task(server.run(inbox, outbox, server.create_initialization_options()))
        _log.info("server.started", transport="stdio")
        first: set[asyncio.Future[Any]] = {serving, stopped}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        _log.info("server.stopping", reason=stopped.result().name if stopped.done() else "stdin ended")
        serving.cancel()
        [result] = await asyncio.gather(serving, return_exceptions=True)
        if isinstance(result, Exception):
            raise result
        return 128 + stopped.result() if stopped.done() else 0


class _Stream:
    """What the SDK asks of both its streams beside their one method."""

    async def aclose(self) -> None:
        """Let go of the loop. The descriptor stays open. Idempotent."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class MessageReader(_Stream):
    """The messages that come on a descriptor, for the SDK; a line that is none is answered here, through `writer`.

    The descriptor may block: it is read when the loop says that something is there, and by nobody else.
    """

    def __init__(self, fd: int, writer: MessageWriter) -> None:
        self._fd = fd
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._lines: deque[bytes] = deque()
        self._begun: list[bytes] = []
        self._ended = False
        self._news: asyncio.Future[None] | None = None
        self._never_waits = False
        self._watched = False
        self._watch()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        while (line := await self._next_line()) is not None:
            if not line.strip():
                continue
            try:
                return SessionMessage(decode(line))
            except (ValueError, RecursionError):
                await self._writer.send(SessionMessage(_NOT_JSON))
        raise StopAsyncIteration

    async def receive(self) -> SessionMessage | Exception:
        """Raises EndOfStream."""
        try:
            return await anext(self)
        except StopAsyncIteration:
            raise anyio.EndOfStream from None

    async def aclose(self) -> None:
        self._ended = True
        self._unwatch()

    async def _next_line(self) -> bytes | None:
        while not self._lines and not self._ended:
            if self._never_waits:
                self._take()
                await asyncio.sleep(0)
                continue
            self._watch()
            self._news = self._loop.create_future()
            await self._news
        return self._lines.popleft() if self._lines else None

    def _take(self) -> None:
        """Read once. Called when that does not block."""
        try:
            data = os.read(self._fd, READ_BYTES)
        except OSError:  # a terminal or socket that went away
            data = b""
        *whole, rest = data.split(b"\n")
        for end in whole:
            self._lines.append(b"".join((*self._begun, end)))
            self._begun.clear()
        self._begun.append(rest)
        if not data:
            self._ended = True
        if self._ended or len(self._lines) > MAX_WAITING_LINES:
            self._unwatch()
        if self._news is not None and not self._news.done() and (self._lines or self._ended):
            self._news.set_result(None)

    def _watch(self) -> None:
        if self._watched or self._never_waits:
            return
        try:
            self._loop.add_reader(self._fd, self._take)
        except PermissionError:  # a regular file or /dev/null, which cannot be watched
            self._never_waits = True
        else:
            self._watched = True

    def _unwatch(self) -> None:
        if self._watched:
            self._loop.remove_reader(self._fd)
            self._watched = False


class MessageWriter(_Stream):
    """Writes the SDK's messages to a descriptor, one after another.

    The descriptor may block: while it is writable it takes `PIPE_BUF` bytes at once (POSIX says so of pipes; sockets
    take more), and is given no more than that before it is asked again.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._waiting: deque[tuple[memoryview, asyncio.Future[None]]] = deque()

    async def send(self, item: SessionMessage, /) -> None:
        """Return when it is written; where this is cancelled, it is written all the same.

        Raises BrokenResourceError where nobody reads any more.
        """
        left = memoryview(encode(item.message) + b"\n")
        if not self._waiting:
            try:
                left = self._write(left)
            except OSError:
                raise anyio.BrokenResourceError from None
        if left:
            await self._written(left)

    async def aclose(self) -> None:
        if self._waiting:
            self._loop.remove_writer(self._fd)
            self._give_up()

    def _written(self, left: memoryview) -> asyncio.Future[None]:
        """Have the rest written after all that waits already."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((left, done))
        if len(self._waiting) == 1:
            self._loop.add_writer(self._fd, self._write_waiting)
        return done

    def _write_waiting(self) -> None:
        try:
            while self._waiting:
                data, done = self._waiting.popleft()
                left = self._write(data)
                if left:
                    self._waiting.appendleft((left, done))
                    return
                if not done.done():
                    done.set_result(None)
        except OSError:
            if not done.done():
                done.set_exception(anyio.BrokenResourceError())
            self._give_up()
        self._loop.remove_writer(self._fd)

    def _write(self, data: memoryview) -> memoryview:
        """Write what the descriptor takes without waiting; the rest. Raises OSError."""
        while data and self._poll.poll(0):
            data = data[os.write(self._fd, data[: select.PIPE_BUF]) :]
        return data

    def _give_up(self) -> None:
        while self._waiting:
            _, done = self._waiting.popleft()
            if not done.done():
                done.set_exception(anyio.BrokenResourceError())


def decode(line: bytes) -> JSONRPCMessage:
    """One message. Raises ValueError where the line is none.

    The second way is for lone surrogates, which JSON may spell and the strict parser refuses.
    """
    try:
        return jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValidationError:
        return jsonrpc_message_adapter.validate_python(json.loads(line), by_name=False)


def encode(message: JSONRPCMessage) -> bytes:
    """One line without its end. What a request held of half characters, and an error repeats, is replaced."""
    try:
        return message.model_dump_json(by_alias=True, exclude_unset=True).encode("utf-8")
    except PydanticSerializationError:
        plain = encodable(message.model_dump(by_alias=True, exclude_unset=True))
        return json.dumps(plain, ensure_ascii=False).encode("utf-8")


_NOT_JSON = JSONRPCError(
    jsonrpc="2.0", id=None, error=ErrorData(code=PARSE_ERROR, message="This line is no JSON-RPC message.")
)


@contextmanager
def _wire() -> Iterator[tuple[int, int]]:
    """Take stdin and stdout for the protocol alone: what else reads or prints gets /dev/null and stderr."""
    read_fd = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3)
    write_fd = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 3)
    sys.stdout.flush()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    yield read_fd, write_fd  # left open: they end with the process


@contextmanager
def _stop_on_signal() -> Iterator[asyncio.Future[signal.Signals]]:
    """A future that the first signal to stop resolves; a second one ends the process at once."""
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[signal.Signals] = loop.create_future()

    def stop(number: signal.Signals) -> None:
        if not stopped.done():
            stopped.set_result(number)
        for each in STOP_SIGNALS:
            loop.remove_signal_handler(each)

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop, number)
    try:
        yield stopped
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
