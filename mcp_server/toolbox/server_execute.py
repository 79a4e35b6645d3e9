"""The socket that runs code: one run a socket, as `wire` describes it. Whatever happens, a closing frame comes."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from mcp_server.access.guard import principal_of
from mcp_server.access.refusals import Refusal, refuse
from mcp_server.errors import CallerError, InternalError, UnknownContext
from mcp_server.model import RunCall
from mcp_server.service import Service
from mcp_server.toolbox.server_outflow import Outflow
from mcp_server.toolbox.server_sandboxes import Sandbox, Sandboxes, no_sandbox
from mcp_server.toolbox.wire import (
    NO_CONTEXT,
    Close,
    CloseCode,
    ExecuteRequest,
    encode_frame,
    ending,
    parse_request,
)

FIRST_MESSAGE_TIMEOUT_S = 60.0
"""A socket on which nothing is asked must not stay for ever."""


class ExecuteSocket:
    """An ASGI application for the path ``/{sandbox}/process/interpreter/execute``."""

    def __init__(self, service: Service, sandboxes: Sandboxes) -> None:
        self._service = service
        self._sandboxes = sandboxes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        sandbox_id = socket.path_params["sandbox"]
        sandbox = self._sandboxes.get(principal_of(socket), sandbox_id)
        if sandbox is None:
            await refuse(Refusal(HTTPStatus.NOT_FOUND, no_sandbox(sandbox_id).detail), scope, receive, send)
            return
        await socket.accept()
        close: Close | None = Close(CloseCode.FAILED, "the server failed; its log says how")
        try:
            with sandbox.in_use():
                close = await self._serve(socket, sandbox)
        finally:
            if close is not None:
                await close_socket(socket, close)

    async def _serve(self, socket: WebSocket, sandbox: Sandbox) -> Close | None:
        """Carry out what the first message asks for; None where the client has gone."""
        try:
            async with asyncio.timeout(FIRST_MESSAGE_TIMEOUT_S):
                message = await receive_message(socket)
        except TimeoutError:
            return Close(CloseCode.BAD_MESSAGE, "no first message came")
        if message is None:
            return None
        request = parse_request(message)
        if isinstance(request, Close):
            return request
        if request.context_id and not self._service.has_context(sandbox.conversation, request.context_id):
            return Close.because(CloseCode.REFUSED, f"{NO_CONTEXT}{request.context_id!r} in this sandbox")
        return await self._run(socket, sandbox, request)

    async def _run(self, socket: WebSocket, sandbox: Sandbox, request: ExecuteRequest) -> Close | None:
        """Run the code while its output goes out and the client's presence is watched.

        A client that goes away interrupts its code: cancelling the service's call does that, and keeps the variables.
        """
        outflow = Outflow(socket.send_text)
        loop = asyncio.get_running_loop()
        gone = loop.create_task(_until_gone(socket))
        pump = loop.create_task(outflow.pump())
        call = RunCall(sandbox.conversation, request.code, request.context_id, request.timeout_s, request.envs)
        run = loop.create_task(self._finish(call, outflow))
        try:
            await asyncio.wait({run, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not run.done():
                return None
            frames, close = run.result()
            await asyncio.wait({pump, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not pump.done() or pump.exception() is not None:
                return None
            for frame in frames:
                await socket.send_text(frame)
        except WebSocketDisconnect:
            return None
        else:
            return close
        finally:
            outflow.stop()
            for task in (run, pump, gone):
                task.cancel()
            await asyncio.gather(run, pump, gone, return_exceptions=True)

    async def _finish(self, call: RunCall, outflow: Outflow) -> tuple[list[str], Close]:
        """Run the code to its end; its last frames, ready to be sent, and the closing one."""
        try:
            end = ending(await self._service.stream(call, outflow.take))
        except UnknownContext:
            return [], Close(CloseCode.GONE, "the context was deleted while the code waited for its turn")
        except CallerError as error:
            return [], Close.because(CloseCode.REFUSED, str(error))
        except InternalError as error:
            return [], Close.because(CloseCode.FAILED, str(error))
        finally:
            outflow.complete()
        return [encode_frame(frame) for frame in end.frames], end.close


async def receive_message(socket: WebSocket) -> str | bytes | None:
    """The client's next message; None where it has gone."""
    event = await socket.receive()
    if event["type"] == "websocket.disconnect":
        return None
    text: str | None = event.get("text")
    return text if text is not None else event.get("bytes") or b""


async def close_socket(socket: WebSocket, close: Close) -> None:
    try:
        await socket.close(close.code, close.reason)
    except (WebSocketDisconnect, OSError):  # it has gone meanwhile
        return


async def _until_gone(socket: WebSocket) -> None:
    """Return when the client has gone. What it says after its first message is passed over; that it is read at all
    keeps its pings answered."""
    while await receive_message(socket) is not None:
        pass
