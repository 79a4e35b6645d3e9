"""A sandbox's interpreter: its contexts over HTTP, and the socket that runs code, one run a socket."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from mcp_server.errors import CallerError, InternalError, UnknownContext
from mcp_server.model import ContextRecord, RunCall
from mcp_server.service import Service
from mcp_server.service.limits import MAX_CWD_CHARS
from mcp_server.toolbox.server_access import principal_of, refuse
from mcp_server.toolbox.server_errors import ApiRefusal
from mcp_server.toolbox.server_outflow import Outflow
from mcp_server.toolbox.server_sandboxes import Sandbox, Sandboxes, bad_body, json_body, no_sandbox
from mcp_server.toolbox.wire import (
    DEFAULT_CONTEXT,
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

LANGUAGE = "python"


class CreateContext(BaseModel):
    """The body of a request for a context."""

    cwd: str | None = Field(default=None, max_length=MAX_CWD_CHARS)
    language: str | None = Field(default=None, max_length=100)


def interpreter_routes(service: Service, sandboxes: Sandboxes) -> list[BaseRoute]:
    """The routes below ``/toolbox/{sandbox}/process/interpreter``."""
    interpreter = _Interpreter(service, sandboxes)
    base = "/{sandbox}/process/interpreter"
    return [
        Route(f"{base}/context", interpreter.create_context, methods=["POST"]),
        Route(f"{base}/context", interpreter.list_contexts, methods=["GET"]),
        Route(f"{base}/context/{{context}}", interpreter.delete_context, methods=["DELETE"]),
        WebSocketRoute(f"{base}/execute", interpreter.execute),
    ]


class _Interpreter:
    def __init__(self, service: Service, sandboxes: Sandboxes) -> None:
        self._service = service
        self._sandboxes = sandboxes

    async def create_context(self, request: Request) -> JSONResponse:
        sandbox = self._sandbox(request)
        body = await json_body(request)
        try:
            wanted = CreateContext.model_validate(body)
        except ValidationError as error:
            raise bad_body(error) from None
        if wanted.language and wanted.language.lower() != LANGUAGE:
            raise ApiRefusal(HTTPStatus.BAD_REQUEST, f"language must be {LANGUAGE!r}.")
        record = await self._service.create_context(sandbox.conversation, wanted.cwd or "")
        return JSONResponse(_described(record))

    async def list_contexts(self, request: Request) -> JSONResponse:
        records = await self._service.list_contexts(self._sandbox(request).conversation)
        return JSONResponse({"contexts": [_described(record) for record in records]})

    async def delete_context(self, request: Request) -> JSONResponse:
        sandbox = self._sandbox(request)
        context_id = request.path_params["context"]
        if context_id == DEFAULT_CONTEXT:
            raise ApiRefusal(HTTPStatus.BAD_REQUEST, "The default context cannot be deleted.")
        if not await self._has_context(sandbox, context_id):
            raise UnknownContext(context_id)
        await self._service.delete_context(sandbox.conversation, context_id)
        return JSONResponse({"message": "The context was deleted."})

    async def execute(self, socket: WebSocket) -> None:
        sandbox = self._sandboxes.get(principal_of(socket), socket.path_params["sandbox"])
        if sandbox is None:
            refusal = no_sandbox(socket.path_params["sandbox"])
            await refuse(socket.scope, socket.receive, socket.send, HTTPStatus.NOT_FOUND, refusal.detail)
            return
        await socket.accept()
        close: Close | None = Close(CloseCode.FAILED, "the server failed; its log says how")
        try:
            close = await self._serve(socket, sandbox)
        finally:
            sandbox.touch()
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
        if request.context_id and not await self._has_context(sandbox, request.context_id):
            return Close.because(CloseCode.REFUSED, f"{NO_CONTEXT}{request.context_id!r} in this sandbox")
        return await self._run(socket, sandbox, request)

    async def _run(self, socket: WebSocket, sandbox: Sandbox, request: ExecuteRequest) -> Close | None:
        """Run the code while its output goes out and the client's presence is watched.

        A client that goes away interrupts its code: cancelling the service's call does that, and keeps the variables.
        """
        outflow = Outflow(socket.send_text)
        tasks = asyncio.get_running_loop()
        gone = tasks.create_task(_until_gone(socket))
        pump = tasks.create_task(outflow.pump())
        call = RunCall(sandbox.conversation, request.code, request.context_id, request.timeout_s, request.envs)
        run = tasks.create_task(self._finish(call, outflow))
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

    async def _has_context(self, sandbox: Sandbox, context_id: str) -> bool:
        """Whether the sandbox itself has it: through its toolbox no other sandbox's contexts can be reached."""
        return any(
            record.context_id == context_id for record in await self._service.list_contexts(sandbox.conversation)
        )

    def _sandbox(self, request: Request) -> Sandbox:
        sandbox_id = request.path_params["sandbox"]
        sandbox = self._sandboxes.get(principal_of(request), sandbox_id)
        if sandbox is None:
            raise no_sandbox(sandbox_id)
        return sandbox


async def receive_message(socket: WebSocket) -> str | bytes | None:
    """The client's next message; None where it has gone."""
    event = await socket.receive()
    if event["type"] == "websocket.disconnect":
        return None
    text: str | None = event.get("text")
    return text if text is not None else event.get("bytes", b"")


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


def _described(record: ContextRecord) -> dict[str, Any]:
    return {
        "id": record.context_id,
        "cwd": record.cwd,
        "createdAt": record.created_at.isoformat(),
        "active": True,
        "language": LANGUAGE,
    }
