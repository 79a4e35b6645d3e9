"""What `serve` runs: the HTTP doors over one service, where they listen, and who may use them."""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

from mcp_server import http_server, waiting
from mcp_server.app import MCP_PATH, build_asgi, build_server, refuse_public_address, transport_security
from mcp_server.composition import EngineChoice, chosen_engine, service_over, texts_for
from mcp_server.conversation_door import conversation_routes
from mcp_server.errors import SetupFailed
from mcp_server.settings import Settings
from mcp_server.toolbox import server as toolbox_server
from mcp_server.toolbox.server_access import Access, guarded
from mcp_server.toolbox.server_parent import remove_private_socket, watch


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: at ``host`` and ``port``, or on a socket bound by ``parent``, whom this server ends with."""

    host: str
    port: int
    listener_fd: int | None = None
    parent: int | None = None


@dataclass(frozen=True, slots=True)
class HttpPlan:
    """What the flags of `serve` ask for, beside the settings. ``tokens`` is the file of those who may ask."""

    address: Address
    toolbox: bool = False
    tokens: Path | None = None


async def serve(settings: Settings, choice: EngineChoice, plan: HttpPlan) -> int:
    """Serve until a signal comes. Gives the exit status; raises SetupFailed."""
    access = Access.from_file(plan.tokens) if plan.tokens is not None else Access()
    if not access.needs_token:
        refuse_public_address(plan.address.host)
    with _listener(plan.address) as listener:
        toolbox_server.tune(listener)
        if plan.address.parent is not None:
            watch(plan.address.parent, lambda: _end_with_parent(listener))
        engine, warmth = chosen_engine(settings, choice)
        service = service_over(engine, settings)
        with waiting.shown(waiting.warming(settings.preload)):
            await service.start()
        try:
            server = build_server(service, settings, texts_for(service, settings, warmth()))
            routes = conversation_routes(service, transport_security(plan.address.host))
            routes += toolbox_server.routes(service, access) if plan.toolbox else []
            asgi = guarded(build_asgi(server, plan.address.host, settings.idle_expiry_s, routes), access)
            url = _url(plan.address, listener) + MCP_PATH
            return await http_server.serve(asgi, listener, url, **toolbox_server.UVICORN_OPTIONS)
        finally:
            await service.close()


def _end_with_parent(listener: socket.socket) -> None:
    remove_private_socket(listener)
    os.kill(os.getpid(), signal.SIGTERM)


def _listener(address: Address) -> socket.socket:
    if address.listener_fd is None:
        return http_server.bind(address.host, address.port)
    try:
        return socket.socket(fileno=address.listener_fd)
    except OSError as error:
        raise SetupFailed(f"--listener-fd {address.listener_fd} is no socket: {error.strerror}.") from None


def _url(address: Address, listener: socket.socket) -> str:
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}:"
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"http://{host}:{listener.getsockname()[1]}"
