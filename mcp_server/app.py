"""Builds the MCP server, and the ASGI application that carries it over streamable HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcp.server.caching import CacheHint
from mcp.server.lowlevel import Server
from opentelemetry import trace
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from mcp_server import __version__
from mcp_server.access.addresses import Addresses
from mcp_server.completions import CompletionDoor
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

FRESH_MS = 3_600_000
"""Tools, prompts and templates never change while a server runs."""


def build_server(service: Service, settings: Settings, texts: Texts, process: str = "") -> Server[Any]:
    """The MCP server over a started service. For ``process`` see `ToolDoor`."""
    door = ToolDoor(service, settings, texts, process)
    resources = ResourceDoor(service, door.conversation)
    prompts = PromptDoor(texts)
    completions = CompletionDoor(service, door.conversation, prompts)
    fresh = CacheHint(ttl_ms=FRESH_MS)
    server = Server(
        NAME,
        version=__version__,
        title=TITLE,
        instructions=texts.instructions,
        cache_hints={"tools/list": fresh, "prompts/list": fresh, "resources/templates/list": fresh},
        get_tool_input_schema=door.header_schema,
        on_list_tools=door.list_tools,
        on_call_tool=door.call_tool,
        on_list_resources=resources.list_resources,
        on_list_resource_templates=resources.list_templates,
        on_read_resource=resources.read,
        on_list_prompts=prompts.list_prompts,
        on_get_prompt=prompts.get_prompt,
        on_completion=completions.complete,
    )
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        server.middleware.clear()  # the SDK's, which makes a span of each message: nobody would see it
    return server


def build_asgi(
    server: Server[Any], addresses: Addresses, settings: Settings, other_doors: Sequence[BaseRoute] = ()
) -> Starlette:
    """The application that is asked under `addresses`: `/mcp`, `/healthz` and the routes of other doors.

    The service is the caller's to start and close. Who may come in, and with how much, is for what stands before it.

    Calls stream (no `json_response`): that is what carries progress, and in the newest protocol cancelling. A session
    of the older protocol lives as long as unused contexts do: it is what they are found by.
    """
    app = server.streamable_http_app(
        streamable_http_path=MCP_PATH,
        max_request_body_size=settings.body_bytes,
        session_idle_timeout=settings.idle_expiry_s,
        transport_security=addresses.transport_security(),
        custom_starlette_routes=[Route(HEALTH_PATH, _health, methods=["GET"])],
    )
    app.router.routes.extend(other_doors)
    return app


async def _health(_request: Request) -> Response:
    return JSONResponse({"status": "ok", "version": __version__})
