"""The server's side of the mux (`mux`): one socket, many calls, each a task; and what `x/info` tells."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from mcp_server.access.guard import principal_of
from mcp_server.access.refusals import Refusal, refuse
from mcp_server.errors import (
    CallerError,
    InternalError,
    InvalidArgument,
    LimitReached,
    ProtocolViolation,
    UnknownContext,
    UnknownSandbox,
)
from mcp_server.model import Chunk, RunCall
from mcp_server.service import Service
from mcp_server.toolbox.mux import (
    SUBPROTOCOL,
    VERSION,
    Kind,
    Message,
    decode,
    encode,
    entry,
    failure_fields,
    outcome_fields,
    text_map,
)
from mcp_server.toolbox.server_execute import close_socket, receive_message
from mcp_server.toolbox.server_outflow import MuxOutflow
from mcp_server.toolbox.server_sandboxes import Sandbox, Sandboxes
from mcp_server.toolbox.wire import DEFAULT_CONTEXT, Close, CloseCode, seconds

MAX_CALLS = 4_096
"""Open at once on one socket: calls that run, and channels of contexts."""


def mux_routes(service: Service, sandboxes: Sandboxes) -> list[BaseRoute]:
    """The routes below ``/toolbox``. They stand before those of sandboxes, none of which is called ``x``."""
    boot_nonce = secrets.token_hex(8)

    async def info(request: Request) -> JSONResponse:
        principal = principal_of(request)
        in_use, capacity = service.load_of(principal)
        can = service.capabilities
        return JSONResponse(
            {
                "version": VERSION,
                "mux": SUBPROTOCOL,
                "bootNonce": boot_nonce,
                "capacity": capacity,
                "contexts": in_use,
                "sandboxes": len(sandboxes.listed(principal)),
                "engine": {"name": can.name, "tier": can.tier, "images": can.images, "missing": list(can.missing)},
            }
        )

    return [Route("/x/info", info, methods=["GET"]), WebSocketRoute("/x/mux", MuxSocket(service, sandboxes))]


_Place = tuple[str, str]
"""A context: its sandbox's id and its own."""

_log = structlog.get_logger(__name__)


class MuxSocket:
    """An ASGI application for the path ``/x/mux``."""

    def __init__(self, service: Service, sandboxes: Sandboxes) -> None:
        self._service = service
        self._sandboxes = sandboxes
        self._listeners: dict[_Place, _Session] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        if SUBPROTOCOL not in scope.get("subprotocols", []):
            refusal = Refusal(HTTPStatus.BAD_REQUEST, f"This socket speaks {SUBPROTOCOL} alone.")
            await refuse(refusal, scope, receive, send)
            return
        await socket.accept(SUBPROTOCOL)
        session = _Session(self._service, self._sandboxes, self._listeners, principal_of(socket), socket.send_bytes)
        close: Close | None = Close(CloseCode.FAILED, "the server failed; its log says how")
        try:
            close = await _listen(socket, session)
        finally:
            await session.close()
            if close is not None:
                await close_socket(socket, close)


async def _listen(socket: WebSocket, session: _Session) -> Close | None:
    """Take messages until the client goes, or says what nobody may say."""
    while (data := await receive_message(socket)) is not None:
        try:
            session.take(decode(data))
        except ProtocolViolation as violation:
            return Close.because(CloseCode.BAD_MESSAGE, str(violation))
    return None


@dataclass(slots=True)
class _Call:
    """An open call: its output, and for a RUN the way to stop it."""

    outflow: MuxOutflow
    stop: asyncio.Future[None]


class _Session:
    """All calls of one socket."""

    def __init__(
        self,
        service: Service,
        sandboxes: Sandboxes,
        listeners: dict[_Place, _Session],
        principal: str,
        send: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._service = service
        self._sandboxes = sandboxes
        self._listeners = listeners
        self._principal = principal
        self._send_bytes = send
        self._calls: dict[int, _Call] = {}
        self._channels: dict[_Place, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, message: Message) -> None:
        """Act on a client's message. Raises ProtocolViolation."""
        match message.kind:
            case Kind.CREDIT | Kind.STOP:
                self._adjust(message)
            case Kind.CREATE:
                self._begin(message, self._create)
            case Kind.LISTEN:
                self._begin(message, self._listen)
            case Kind.RUN:
                self._begin(message, self._run)
            case Kind.DELETE:
                self._begin(message, self._delete)
            case _:
                raise ProtocolViolation(f"{message.kind.name} is not for a client to send")

    async def close(self) -> None:
        """Stop everything; contexts stay."""
        for call in self._calls.values():
            call.outflow.stop()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for place in self._channels:
            if self._listeners.get(place) is self:  # and no later socket of the same client
                del self._listeners[place]
                self._unlisten(*place)

    def _adjust(self, message: Message) -> None:
        call = self._calls.get(message.call)
        if call is None:
            return  # it has ended meanwhile
        if message.kind is Kind.CREDIT:
            amount = entry(message.header, "bytes", int)
            if amount < 0:
                raise ProtocolViolation("credit is negative")
            call.outflow.credit(amount)
        elif not call.stop.done():
            call.stop.set_result(None)

    def _begin(self, message: Message, work: Callable[[Message, _Call], Awaitable[None]]) -> None:
        if message.call in self._calls:
            raise ProtocolViolation(f"call {message.call} is open already")
        if len(self._calls) >= MAX_CALLS:
            work = self._refuse
        loop = asyncio.get_running_loop()
        call = self._calls[message.call] = _Call(MuxOutflow(message.call, self._send_bytes), loop.create_future())
        task = loop.create_task(self._carry_out(message, call, work))
        self._tasks.add(task)
        task.add_done_callback(self._on_end)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        fault = None if task.cancelled() else task.exception()
        if fault is not None and not isinstance(fault, WebSocketDisconnect):
            _log.error("toolbox.call_failed", exc_info=fault)

    async def _carry_out(
        self, message: Message, call: _Call, work: Callable[[Message, _Call], Awaitable[None]]
    ) -> None:
        """One call from its message to its answer. A client that has gone is noticed by whoever reads the socket."""
        failure: CallerError | InternalError | None = InternalError("The server failed; its log says how.")
        try:
            await work(message, call)
            failure = None
        except ProtocolViolation as error:
            failure = InvalidArgument(str(error))
        except (CallerError, InternalError) as error:
            failure = error
        except (WebSocketDisconnect, asyncio.CancelledError):
            failure = None
            raise
        finally:
            self._calls.pop(message.call, None)
            if failure is not None:
                await self._answer(Kind.FAILED, message.call, failure_fields(failure))

    async def _refuse(self, _message: Message, _call: _Call) -> None:
        raise LimitReached(f"{MAX_CALLS:,} calls are open on this socket, the most there may be.")

    # -- what each call does --------------------------------------------------------------------------------------

    async def _create(self, message: Message, call: _Call) -> None:
        sandbox = self._sandbox(message)
        cwd, envs = entry(message.header, "cwd", str), text_map(message.header, "envs")
        record = await self._service.create_context(sandbox.conversation, cwd, envs)
        await self._channel(
            message, call, sandbox, record.context_id, {"context": record.context_id, "cwd": record.cwd}
        )

    async def _listen(self, message: Message, call: _Call) -> None:
        sandbox, context_id = self._context(message)
        await self._channel(message, call, sandbox, context_id, {})

    async def _channel(
        self, message: Message, call: _Call, sandbox: Sandbox, context_id: str, answer: dict[str, Any]
    ) -> None:
        """Say that it is done, and send what the context prints between runs, until it is deleted."""
        self._service.listen(sandbox.conversation, context_id, call.outflow.take)
        place = sandbox.sandbox_id, context_id
        self._channels[place] = message.call
        self._listeners[place] = self
        await self._answer(Kind.DONE, message.call, answer)
        await call.outflow.pump()

    async def _run(self, message: Message, call: _Call) -> None:
        sandbox, context_id = self._context(message)
        timeout_s = seconds(message.header.get("timeout"))
        try:
            code = message.body.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise InvalidArgument("code is not UTF-8.") from None
        run = RunCall(sandbox.conversation, code, context_id, timeout_s, text_map(message.header, "envs"))
        pump: asyncio.Task[None] | None = None

        def take(chunk: Chunk) -> Awaitable[None] | None:
            nonlocal pump
            if pump is None:  # most runs print little or nothing
                pump = asyncio.get_running_loop().create_task(call.outflow.pump())
            return call.outflow.take(chunk)

        try:
            with sandbox.in_use():
                outcome = await self._service.stream(run, take, call.stop)
            call.outflow.complete()
            if pump is not None:
                await pump
        finally:
            call.outflow.stop()
            if pump is not None:
                pump.cancel()
        await self._answer(Kind.END, message.call, outcome_fields(outcome))

    async def _delete(self, message: Message, _call: _Call) -> None:
        sandbox, context_id = self._context(message)
        await self._service.delete_context(sandbox.conversation, context_id)
        place = sandbox.sandbox_id, context_id
        self._listeners.pop(place, None)
        channel = self._calls.get(self._channels.pop(place, -1))
        if channel is not None:
            channel.outflow.complete()
        await self._answer(Kind.DONE, message.call, {})

    # -- small steps ----------------------------------------------------------------------------------------------

    def _sandbox(self, message: Message) -> Sandbox:
        sandbox_id = entry(message.header, "sandbox", str)
        sandbox = self._sandboxes.get(self._principal, sandbox_id)
        if sandbox is None:
            raise UnknownSandbox(f"No sandbox {sandbox_id[:64]!r}: it does not exist or was deleted.")
        return sandbox

    def _context(self, message: Message) -> tuple[Sandbox, str]:
        """The sandbox and the context that a message is about; empty for the default one."""
        sandbox = self._sandbox(message)
        context_id = entry(message.header, "context", str)
        if context_id == DEFAULT_CONTEXT:
            return sandbox, ""
        if not self._service.has_context(sandbox.conversation, context_id):
            raise UnknownContext(context_id)
        return sandbox, context_id

    def _unlisten(self, sandbox_id: str, context_id: str) -> None:
        sandbox = self._sandboxes.get(self._principal, sandbox_id)
        if sandbox is not None:
            try:
                self._service.listen(sandbox.conversation, context_id, None)
            except UnknownContext:
                return

    async def _answer(self, kind: Kind, call: int, fields: dict[str, Any]) -> None:
        await self._send_bytes(encode(Message(kind, call, fields)))
