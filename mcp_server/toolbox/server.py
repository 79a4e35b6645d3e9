"""The toolbox door: the main API under ``/api`` and each sandbox's toolbox under ``/toolbox/{sandbox}``, to be mounted.

Serve it with `UVICORN_OPTIONS`: a server that pings cuts off readers that are slow but alive, so it must not; a
connection whose other end is lost is found by TCP's keep-alive instead (`tune`).
"""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Mount, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from mcp_server.access.addresses import AddressCheck, Addresses
from mcp_server.access.guard import Access, Guard
from mcp_server.access.refusals import Refusal, refuse
from mcp_server.errors import CallerError, InternalError
from mcp_server.service import Service
from mcp_server.toolbox.server_errors import on_fault, on_http_error, on_service_error
from mcp_server.toolbox.server_interpreter import interpreter_routes
from mcp_server.toolbox.server_mux import mux_routes
from mcp_server.toolbox.server_sandboxes import Sandboxes, main_api_routes
from mcp_server.toolbox.wire import MAX_MESSAGE_BYTES

UVICORN_OPTIONS: Mapping[str, Any] = MappingProxyType(
    {
        "ws": "websockets-sansio",
        "ws_max_size": MAX_MESSAGE_BYTES,
        "ws_ping_interval": None,
        "ws_per_message_deflate": False,
    }
)
"""What a uvicorn that serves this door must be given. Compression costs more time than it saves on one machine."""

KEEP_ALIVE_IDLE_S = 60
KEEP_ALIVE_INTERVAL_S = 15
KEEP_ALIVE_PROBES = 4
"""A lost peer is noticed after two minutes; then its run is interrupted."""


def routes(service: Service, *, for_pages: bool = False) -> list[BaseRoute]:
    """The door's two mounts, to stand behind a `Guard`. Only `for_pages` serves what a browser's pages ask."""
    sandboxes = Sandboxes(service)
    toolbox = [*mux_routes(service, sandboxes), *interpreter_routes(service, sandboxes)]
    middleware = [] if for_pages else [Middleware(_NoPages)]
    return [
        _Door("/api", app=_door(main_api_routes(sandboxes), middleware)),
        _Door("/toolbox", app=_door(toolbox, middleware)),
    ]


def toolbox_app(service: Service, access: Access | None = None) -> ASGIApp:
    """An ASGI application of this door alone, which starts and closes its service."""
    access = access or Access()

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.close()

    app = Starlette(routes=routes(service, for_pages=access.needs_token), lifespan=lifespan)
    return AddressCheck(Guard(app, access), Addresses.of("localhost"))


def tune(listener: socket.socket) -> None:
    """Have TCP probe silent connections and send small frames at once; what the listener accepts inherits both.

    asyncio turns Nagle's algorithm off only for sockets that were made with IPPROTO_TCP spelled out; with it on, a run
    that prints nothing takes 40 ms, the time of a delayed acknowledgement.
    """
    if listener.family == socket.AF_UNIX:
        return
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_IDLE_S)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEP_ALIVE_INTERVAL_S)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEP_ALIVE_PROBES)


def _door(its_routes: list[BaseRoute], middleware: list[Middleware]) -> ASGIApp:
    return Starlette(
        routes=[*its_routes, WebSocketRoute("/{rest:path}", _NoSuchSocket())],
        middleware=middleware,
        exception_handlers={
            HTTPException: on_http_error,
            CallerError: on_service_error,
            InternalError: on_service_error,
            Exception: on_fault,
        },
    )


class _Door(Mount):
    """Takes every path beneath its own: Starlette's leaves those with a line break to whatever comes after it."""

    def __init__(self, path: str, app: ASGIApp) -> None:
        super().__init__(path, app)
        self.path_regex = re.compile(self.path_regex.pattern, re.DOTALL)


class _NoPages:
    """A page can open a WebSocket to any address, and nothing asks it for a token here."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "origin" in Headers(scope=scope):
            refusal = Refusal(HTTPStatus.FORBIDDEN, "Without authentication no page of a browser may use this.")
            await refuse(refusal, scope, receive, send)
            return
        await self._app(scope, receive, send)


class _NoSuchSocket:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await refuse(Refusal(HTTPStatus.NOT_FOUND, "There is no such socket here."), scope, receive, send)
