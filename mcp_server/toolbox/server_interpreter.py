"""A sandbox's interpreter: its contexts over HTTP. The socket that runs code is in `server_execute`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute

from mcp_server.access.guard import principal_of
from mcp_server.errors import UnknownContext
from mcp_server.model import ContextRecord
from mcp_server.service import Service
from mcp_server.service.limits import MAX_CWD_CHARS
from mcp_server.toolbox.server_errors import ApiRefusal
from mcp_server.toolbox.server_execute import ExecuteSocket
from mcp_server.toolbox.server_sandboxes import Sandbox, Sandboxes, bad_body, json_body, no_sandbox
from mcp_server.toolbox.wire import DEFAULT_CONTEXT

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
        WebSocketRoute(f"{base}/execute", ExecuteSocket(service, sandboxes)),
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
        if not self._service.has_context(sandbox.conversation, context_id):
            raise UnknownContext(context_id)
        await self._service.delete_context(sandbox.conversation, context_id)
        return JSONResponse({"message": "The context was deleted."})

    def _sandbox(self, request: Request) -> Sandbox:
        sandbox_id = request.path_params["sandbox"]
        sandbox = self._sandboxes.get(principal_of(request), sandbox_id)
        if sandbox is None:
            raise no_sandbox(sandbox_id)
        return sandbox


def _described(record: ContextRecord) -> dict[str, Any]:
    return {
        "id": record.context_id,
        "cwd": record.cwd,
        "createdAt": record.created_at.isoformat(),
        "active": True,
        "language": LANGUAGE,
    }
