"""A server with one tool that answers a fixed text, made with the same SDK: what a call costs by itself.

    python empty_tool.py stdio
    python empty_tool.py http       listens on a free port of the loopback and prints it

The SDK's own transports, and for HTTP the server and loop that `mcp-code-interpreter serve` has.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import uvicorn
import uvloop
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp_types import CallToolResult, ListToolsResult, TextContent, Tool

SCHEMA = {"type": "object", "properties": {"code": {"type": "string"}, "context_id": {"type": "string"}}}


async def list_tools(_context: Any, _params: Any) -> ListToolsResult:
    return ListToolsResult(tools=[Tool(name="run_code", description="Answers.", input_schema=SCHEMA)])


async def call_tool(_context: Any, _params: Any) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(text="[ok] run 1 in 0.000 s, context ctx_0000000000000000000000\nresult:\n2")]
    )


def new_server() -> Server[Any]:
    return Server("empty", version="1", on_list_tools=list_tools, on_call_tool=call_tool)


async def serve_stdio() -> None:
    server = new_server()
    async with stdio_server() as (inbox, outbox):
        await server.run(inbox, outbox, server.create_initialization_options())


async def serve_http() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = new_server().streamable_http_app(streamable_http_path="/mcp", host="127.0.0.1")
        config = uvicorn.Config(app, lifespan="on", access_log=False, log_config=None, server_header=False)
        print(listener.getsockname()[1], flush=True)
        await uvicorn.Server(config).serve([listener])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_http() if sys.argv[1] == "http" else serve_stdio())
