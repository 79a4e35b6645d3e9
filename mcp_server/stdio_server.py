"""MCP over the process's own stdin and stdout.

The SDK's transport cannot be stopped while it waits for input, drops a request whose JSON holds half a surrogate pair
without an answer, and ends at the first one it would have to write. This one reads and writes in threads that end with
the process, and answers every line.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import structlog
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.server.lowlevel import Server
from mcp.shared.message import SessionMessage
from mcp_types import PARSE_ERROR, ErrorData, JSONRPCError, JSONRPCMessage, jsonrpc_message_adapter
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from mcp_server.tools import encodable

READ_BYTES = 1 << 16
"""The capacity of a pipe."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_log = structlog.get_logger(__name__)


async def serve(server: Server[Any]) -> int:
    """Serve until stdin ends or a signal comes; calls in progress are cancelled then. Gives the exit status."""
    with _wire() as (read_fd, write_fd), _stop_on_signal() as stopped:
        incoming, inbox = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        outbox, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
        writer = LineWriter(write_fd)
        reading = asyncio.create_task(_read(LineReader(read_fd), incoming, writer))
        writing = asyncio.create_task(_write(outgoing, writer))
        serving = asyncio.create_task(server.run(inbox, outbox, server.create_initialization_options()))
        _log.info("server.started", transport="stdio")
        first: set[asyncio.Future[Any]] = {serving, stopped}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        _log.info("server.stopping", reason=stopped.result().name if stopped.done() else "stdin ended")
        for task in (serving, reading, writing):
            task.cancel()
        results = await asyncio.gather(serving, reading, writing, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return 128 + stopped.result() if stopped.done() else 0


class LineReader:
    """Lines of a descriptor, read in a thread; `next` gives None at the end."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        threading.Thread(target=self._read_all, name="stdin", daemon=True).start()

    async def next(self) -> bytes | None:
        return await self._lines.get()

    def _read_all(self) -> None:
        held: list[bytes] = []
        while data := _read_some(self._fd):
            *whole, rest = data.split(b"\n")
            for end in whole:
                self._give(b"".join((*held, end)))
                held.clear()
            held.append(rest)
        self._give(None)

    def _give(self, line: bytes | None) -> None:
        with suppress(RuntimeError):  # the loop has closed: the process is ending
            self._loop.call_soon_threadsafe(self._lines.put_nowait, line)


class LineWriter:
    """Writes to a descriptor in a thread, one message after another."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]]] = queue.SimpleQueue()
        threading.Thread(target=self._write_all, name="stdout", daemon=True).start()

    async def write(self, message: JSONRPCMessage) -> None:
        """Return when it is written. Raises OSError where nobody reads any more."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._jobs.put((encode(message) + b"\n", done))
        await done

    def _write_all(self) -> None:
        while True:
            data, done = self._jobs.get()
            error: OSError | None = None
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(self._fd, view) :]
            except OSError as fault:
                error = fault
            try:
                self._loop.call_soon_threadsafe(_settle, done, error)
            except RuntimeError:  # the loop has closed: the process is ending
                return


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


async def _read(
    lines: LineReader, incoming: MemoryObjectSendStream[SessionMessage | Exception], writer: LineWriter
) -> None:
    async with incoming:
        while (line := await lines.next()) is not None:
            if not line.strip():
                continue
            try:
                message = decode(line)
            except (ValueError, RecursionError):
                await writer.write(_NOT_JSON)
                continue
            await incoming.send(SessionMessage(message))


async def _write(outgoing: MemoryObjectReceiveStream[SessionMessage], writer: LineWriter) -> None:
    async with outgoing:
        async for message in outgoing:
            try:
                await writer.write(message.message)
            except OSError:  # the client is gone; the end of stdin says so too
                return


_NOT_JSON = JSONRPCError(
    jsonrpc="2.0", id=None, error=ErrorData(code=PARSE_ERROR, message="This line is no JSON-RPC message.")
)


def _read_some(fd: int) -> bytes:
    try:
        return os.read(fd, READ_BYTES)
    except OSError:  # a terminal or socket that went away
        return b""


def _settle(done: asyncio.Future[None], error: OSError | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)


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
    yield read_fd, write_fd  # left open: the threads may still stand in them when the process ends


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
