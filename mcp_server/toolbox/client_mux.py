"""The client's side of the mux: one socket to a server, shared by every run of an event loop."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any, cast

from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.frames import DATA_OPCODES, Frame
from websockets.protocol import Event, State

from mcp_server.errors import CallerError, EngineUnavailable, InternalError, ProtocolViolation
from mcp_server.model import Chunk, Outcome, Sink
from mcp_server.toolbox.client_address import Address, keep_alive
from mcp_server.toolbox.client_direct import Messages
from mcp_server.toolbox.client_sockets import handshake_error
from mcp_server.toolbox.mux import (
    GRANT_BYTES,
    LOST,
    MUX_OPTIONS,
    MUX_PATH,
    Kind,
    Message,
    RunOrder,
    chunk_of,
    cost,
    decode,
    encode,
    entry,
    failure_of,
    outcome_of,
)


class MuxCall:
    """One open call: what the server says of it, in order, and the credit that is due for it."""

    def __init__(self, client: MuxClient, number: int, context_id: str) -> None:
        self.number = number
        self.context_id = context_id
        self.answered = False
        self._client = client
        self._taken_bytes = 0
        self._inbox: deque[Message | None] = deque()
        self._news: asyncio.Future[None] | None = None

    def hear(self, message: Message | None) -> None:
        """The server said this; None: it will say no more."""
        self._inbox.append(message)
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def next(self) -> Message:
        """Raises EngineUnavailable where the connection is lost, and what a FAILED tells. Asked by one task alone."""
        if not self._inbox:
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        message = self._inbox.popleft()
        if message is None:
            self.answered = True
            raise EngineUnavailable(LOST)
        self.answered = message.kind in (Kind.END, Kind.FAILED)
        if message.kind is Kind.FAILED:
            raise failure_of(message.header, self.context_id)
        return message

    async def took(self, message: Message) -> None:
        """A chunk was dealt with: give its credit back."""
        self._taken_bytes += cost(message)
        if self._taken_bytes >= GRANT_BYTES:
            amount, self._taken_bytes = self._taken_bytes, 0
            await self._client.send(Message(Kind.CREDIT, self.number, {"bytes": amount}))

    async def stop(self) -> None:
        """Interrupt its run, or keep it from beginning; its outcome still comes."""
        await self._client.send(Message(Kind.STOP, self.number))


class _Connection(ClientConnection):
    """Gives each message away as it comes. The credit of the calls bounds what waits there, so nothing waits here."""

    def __init__(self, *arguments: Any, hear: Callable[[bytes], None], **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._hear = hear
        self._parts = Messages()

    async def say(self, data: bytes) -> None:
        """`send`, by a shorter way where nothing waits to be sent. Raises ConnectionClosed."""
        if self.protocol.state is not State.OPEN or self.transport.get_write_buffer_size():
            await self.send(data)
            return
        self.protocol.send_binary(data)
        for piece in self.protocol.data_to_send():
            self.transport.write(piece)

    def process_event(self, event: Event) -> None:
        if not isinstance(event, Frame) or event.opcode not in DATA_OPCODES:
            super().process_event(event)
        elif (message := self._parts.add(event)) is not None:
            self._hear(message)


class MuxClient:
    """One socket. It is opened by `open` and used until it is lost or closed; then another takes its place.

    Belongs to one event loop.
    """

    def __init__(self, toolbox: Address) -> None:
        self._address = toolbox.at(MUX_PATH)
        self._stack = AsyncExitStack()
        self._connection: _Connection | None = None
        self._end: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._calls: dict[int, MuxCall] = {}
        self._channels: dict[str, MuxCall] = {}
        self._errands: set[asyncio.Task[None]] = set()

    @property
    def usable(self) -> bool:
        return self._end is not None and not self._end.done()

    async def open(self) -> None:
        """Raises ToolboxError with what the server answered."""
        options = self._address.socket_options() | dict(MUX_OPTIONS)
        options["create_connection"] = functools.partial(_Connection, hear=self._hear)
        try:
            if self._address.unix_socket:
                opening = unix_connect(self._address.unix_socket, self._address.socket_url, **options)
            else:
                opening = connect(self._address.socket_url, **options)
            self._connection = cast("_Connection", await self._stack.enter_async_context(opening))
        except (OSError, InvalidHandshake) as error:
            raise handshake_error(self._address, error) from error
        keep_alive(self._connection.transport.get_extra_info("socket"))
        self._end = asyncio.get_running_loop().create_task(self._await_end(self._connection))

    async def close(self) -> None:
        """Every open call fails as lost. Idempotent."""
        await self._stack.aclose()
        if self._end is not None:
            await self._end
        if self._errands:
            await asyncio.wait(self._errands)

    async def send(self, message: Message) -> None:
        """Raises EngineUnavailable where the connection is lost."""
        if self._connection is None:
            raise EngineUnavailable(LOST)
        try:
            await self._connection.say(encode(message))
        except ConnectionClosed as closed:
            raise EngineUnavailable(LOST) from closed

    # -- the calls ------------------------------------------------------------------------------------------------

    async def create(self, sandbox_id: str, cwd: str, envs: Mapping[str, str], late: Sink) -> tuple[str, str]:
        """Make a context; its id and directory. `late` takes what it prints between runs."""
        call = await self._begin(Kind.CREATE, {"sandbox": sandbox_id, "cwd": cwd, "envs": dict(envs)})
        made = await self._answer(call)
        context_id = entry(made.header, "context", str)
        self._open_channel(context_id, call, late)
        return context_id, entry(made.header, "cwd", str)

    async def listen(self, sandbox_id: str, context_id: str, late: Sink) -> None:
        """Take what a context of an earlier socket prints between runs. Raises UnknownContext."""
        call = await self._begin(Kind.LISTEN, {"sandbox": sandbox_id, "context": context_id}, context_id)
        await self._answer(call)
        self._open_channel(context_id, call, late)

    async def delete(self, sandbox_id: str, context_id: str) -> None:
        """End a context. Raises UnknownContext."""
        call = await self._begin(Kind.DELETE, {"sandbox": sandbox_id, "context": context_id}, context_id)
        channel = self._channels.pop(context_id, None)
        if channel is not None:
            channel.hear(None)
        try:
            await call.next()
        finally:
            self._calls.pop(call.number, None)

    async def begin_run(self, order: RunOrder) -> MuxCall:
        """Send code; `events` of the call then tells how it goes."""
        return await self._begin_with(order.message(next(self._numbers)), order.context_id)

    async def events(self, run: MuxCall) -> AsyncGenerator[Chunk | Outcome, None]:
        """The chunks of a run as they come, and its outcome last; closing the generator early stops the run.

        A chunk's credit is given back when the next one is asked for, so that a slow consumer slows the program.
        """
        try:
            while not run.answered:
                message = await run.next()
                if message.kind is Kind.END:
                    yield outcome_of(message.header)
                else:
                    yield chunk_of(message)
                    await run.took(message)
        finally:
            if run.answered:
                self._calls.pop(run.number, None)
            else:
                self._errand(self._abandon(run))

    # -- what goes on behind --------------------------------------------------------------------------------------

    async def _begin(self, kind: Kind, fields: Mapping[str, object], context_id: str = "") -> MuxCall:
        return await self._begin_with(Message(kind, next(self._numbers), fields), context_id)

    async def _begin_with(self, message: Message, context_id: str) -> MuxCall:
        if not self.usable:
            raise EngineUnavailable(LOST)
        call = self._calls[message.call] = MuxCall(self, message.call, context_id)
        try:
            await self.send(message)
        except BaseException:
            self._calls.pop(message.call, None)
            raise
        return call

    async def _answer(self, call: MuxCall) -> Message:
        """The answer to a call that is to stay open; one that failed does not."""
        try:
            return await call.next()
        except BaseException:
            self._calls.pop(call.number, None)
            raise

    def _open_channel(self, context_id: str, channel: MuxCall, late: Sink) -> None:
        self._channels[context_id] = channel
        self._errand(self._deliver(channel, late))

    def _hear(self, data: bytes) -> None:
        """Sort the server's messages by their calls."""
        try:
            message = decode(data)
        except ProtocolViolation:
            if self._connection is not None:
                self._errand(self._connection.close(1002))
            return
        call = self._calls.get(message.call)
        if call is not None:
            call.hear(message)

    async def _await_end(self, connection: ClientConnection) -> None:
        try:
            await connection.wait_closed()
        finally:
            for call in self._calls.values():
                call.hear(None)

    async def _deliver(self, call: MuxCall, late: Sink) -> None:
        """Give what a context prints between runs to its sink, until the context or the connection ends."""
        try:
            while True:
                message = await call.next()
                wait = late(chunk_of(message))
                if wait is not None:
                    await wait
                await call.took(message)
        except EngineUnavailable:
            return
        except ProtocolViolation:
            await self._stack.aclose()
        finally:
            self._calls.pop(call.number, None)

    async def _abandon(self, run: MuxCall) -> None:
        """Stop a run that nobody listens to any more, and take what it still says."""
        try:
            await run.stop()
            while not run.answered:
                await run.took(await run.next())
        except (CallerError, InternalError):
            return
        finally:
            self._calls.pop(run.number, None)

    def _errand(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)
