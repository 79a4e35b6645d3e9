"""A server of the suite's fixtures behind our own HTTP door: `python -m tests.conformance.fixture_app`.

Scenarios that look for a tool, a prompt or a resource by name cannot be played on a code interpreter. Here they meet
the same application, the same checks of requests, the same sessions and the same listener as `serve` does.
"""

from __future__ import annotations

import asyncio
import sys
import warnings
from typing import Any

from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from mcp_types import INVALID_PARAMS, CallToolRequestParams, ListToolsResult, PaginatedRequestParams

from mcp_server import http_server, telemetry
from mcp_server.access.addresses import Addresses
from mcp_server.app import MCP_PATH, build_asgi
from mcp_server.settings import LogFormat, LogLevel, Settings
from tests.conformance import fixture_texts
from tests.conformance.fixture_rounds import rounds_tools
from tests.conformance.fixture_tools import Answer, RequestContext, one_call_tools

HOST = "127.0.0.1"
NAME = "conformance-fixtures"


def build_fixture_server() -> Server[Any]:
    bus = InMemorySubscriptionBus()
    tools = {tool.name: tool for tool in [*one_call_tools(bus), *rounds_tools()]}

    async def list_tools(_context: RequestContext, _params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=[tool.described for tool in tools.values()])

    async def call_tool(context: RequestContext, params: CallToolRequestParams) -> Answer:
        if params.name not in tools:
            raise MCPError(INVALID_PARAMS, f"No tool {params.name!r}.")
        return await tools[params.name].handler(context, params)

    server = Server(
        NAME,
        version="1",
        get_tool_input_schema=lambda name: tools[name].schema if name in tools else None,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=fixture_texts.list_resources,
        on_list_resource_templates=fixture_texts.list_templates,
        on_read_resource=fixture_texts.read_resource,
        on_subscribe_resource=fixture_texts.subscribe,
        on_unsubscribe_resource=fixture_texts.unsubscribe,
        on_subscriptions_listen=ListenHandler(bus),
        on_list_prompts=fixture_texts.list_prompts,
        on_get_prompt=fixture_texts.get_prompt,
        on_completion=fixture_texts.complete,
        on_set_logging_level=fixture_texts.set_level,
    )
    server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=NAME))
    return server


async def main() -> int:
    listener = http_server.bind(HOST, 0)
    url = f"http://{HOST}:{listener.getsockname()[1]}{MCP_PATH}"
    app = build_asgi(build_fixture_server(), Addresses.of(HOST), Settings())
    return await http_server.serve(app, listener, url, http_server.SignalActions(_nothing_to_drain))


async def _nothing_to_drain() -> None:
    """No fixture runs for long."""


if __name__ == "__main__":
    # The newest protocol deprecates logging; the suite asks for it in the older ones.
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    telemetry.configure(LogLevel.INFO, LogFormat.JSON)
    sys.exit(asyncio.run(main()))
