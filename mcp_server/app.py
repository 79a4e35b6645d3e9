"""Builds the MCP server, and the ASGI application that carries it over streamable HTTP."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from mcp.server.caching import CacheHint
from mcp.server.lowlevel import Server
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from mcp_server import __version__
from mcp_server.completions import CompletionDoor
from mcp_server.errors import SetupFailed
from mcp_server.prompt_door import PromptDoor
from mcp_server.prompts import Texts
from mcp_server.resources import ResourceDoor
from mcp_server.service import Service
from mcp_server.settings import Settings
from mcp_server.tools import ToolDoor

NAME = "mcp-code-interpreter"
TITLE = "Python code interpreter"
MCP_PATH = "/mcp"
HEALTH_PATH = "/healthz"

MAX_BODY_BYTES = 32 * 1024 * 1024
"""Room for the largest code in JSON's longest spelling, so that too much code is a tool error and not a broken call."""

FRESH_MS = 3_600_000
"""Tools, prompts and templates never change while a server runs."""


def build_server(service: Service, settings: Settings, texts: Texts, process: str = "") -> Server[Any]:
    """The MCP server over a started service. For ``process`` see `ToolDoor`."""
    door = ToolDoor(service, settings, texts, process)
    resources = ResourceDoor(service, door.conversation)
    prompts = PromptDoor(texts)
    completions = CompletionDoor(service, door.conversation, prompts)
    fresh = CacheHint(ttl_ms=FRESH_MS)
    return Server(
        NAME,
        version=__version__,
        title=TITLE,
        instructions=texts.instructions,
        cache_hints={"tools/list": fresh, "prompts/list": fresh, "resources/templates/list": fresh},
        get_tool_input_schema=door.input_schema,
        on_list_tools=door.list_tools,
        on_call_tool=door.call_tool,
        on_list_resources=resources.list_resources,
        on_list_resource_templates=resources.list_templates,
        on_read_resource=resources.read,
        on_list_prompts=prompts.list_prompts,
        on_get_prompt=prompts.get_prompt,
        on_completion=completions.complete,
    )


def build_asgi(
    server: Server[Any], host: str, idle_expiry_s: float, other_doors: Sequence[BaseRoute] = ()
) -> Starlette:
    """The application that answers on `host`: `/mcp`, `/healthz` and the routes of other doors.

    The service is the caller's to start and close.

    Calls stream (no `json_response`): that is what carries progress, and in the newest protocol cancelling. A session
    of the older protocol lives as long as unused contexts do: it is what they are found by.
    """
    app = server.streamable_http_app(
        streamable_http_path=MCP_PATH,
        max_request_body_size=MAX_BODY_BYTES,
        session_idle_timeout=idle_expiry_s,
        transport_security=transport_security(host),
        host=host,
        custom_starlette_routes=[Route(HEALTH_PATH, _health, methods=["GET"])],
    )
    app.router.routes.extend(other_doors)
    return app


def transport_security(host: str) -> TransportSecuritySettings:
    """Which Host and Origin headers are taken. Always on: no web page may come in by a name of its own."""
    names = sorted({"127.0.0.1", "localhost", "[::1]", _in_url(host)})
    return TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=[pattern for name in names for pattern in (name, f"{name}:*")],
        allowed_origins=[
            pattern
            for name in names
            for scheme in ("http", "https")
            for pattern in (f"{scheme}://{name}", f"{scheme}://{name}:*")
        ],
    )


def refuse_public_address(host: str) -> None:
    """Raise SetupFailed unless `host` is this machine alone: nothing here asks who is calling."""
    if host == "localhost":
        return
    try:
        if ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass  # a name: where it leads can change
    raise SetupFailed(
        f"--host {host}: without authentication, whoever reaches this address could run code here. "
        "Listen on 127.0.0.1 and let a proxy that authenticates forward to it."
    )


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def _health(_request: Request) -> Response:
    return JSONResponse({"status": "ok", "version": __version__})
