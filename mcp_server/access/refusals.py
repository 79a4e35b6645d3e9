"""Answers to requests that may not: JSON, whichever door was asked, for a request or the opening of a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from types import MappingProxyType

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

REFUSED_TIMEOUT_S = 1.0

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not served. ``message`` says what to do instead; ``headers`` go with the answer.

    ``error`` is a code of RFC 6750 (``invalid_token``, ``insufficient_scope``), empty where none applies.
    """

    status: HTTPStatus
    message: str
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)
    error: str = ""


def error_response(connection: HTTPConnection, status: int, message: str, **more: str) -> JSONResponse:
    """The body of every error that comes before or beside a door. `code` is the status's name: ``NOT_FOUND``, …"""
    return JSONResponse(
        {
            "statusCode": status,
            "message": message,
            "code": HTTPStatus(status).name,
            "timestamp": datetime.now(UTC).isoformat(),
            "path": connection.url.path,
            "method": connection.scope.get("method", "GET"),
            **more,
        },
        status_code=status,
    )


async def refuse(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the refusal, be it a request or the opening of a WebSocket."""
    if scope["type"] == "websocket":
        socket = WebSocket(scope, receive, send)
        await socket.receive()  # its opening
        await socket.send_denial_response(_response(socket, refusal))
        await _until_lost(receive)
        return
    await _response(Request(scope), refusal)(scope, receive, send)


def _response(connection: HTTPConnection, refusal: Refusal) -> Response:
    more = {"error": refusal.error, "error_description": refusal.message} if refusal.error else {}
    response = error_response(connection, refusal.status, refusal.message, **more)
    response.headers.update(refusal.headers)
    return response


async def _until_lost(receive: Receive) -> None:
    """Wait for a refused connection to go: uvicorn logs an error where an application returns before that.

    Its first word of the end comes with the refusal, its second with the end.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(REFUSED_TIMEOUT_S):
            await receive()
            await receive()
