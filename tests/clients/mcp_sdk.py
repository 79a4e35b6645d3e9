"""The MCP SDK for Python: the program itself hands the content of results to its model."""

from __future__ import annotations

import base64
from contextlib import AbstractAsyncContextManager

from tests.clients.story import Model, Seen, play

# -- docs/clients.md --
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ContentBlock


@asynccontextmanager
async def over_stdio() -> AsyncIterator[Client]:
    async with Client(StdioServerParameters(command="mcp-code-interpreter")) as client:
        yield client


@asynccontextmanager
async def over_http(conversation: str, url: str = "http://127.0.0.1:8000/mcp") -> AsyncIterator[Client]:
    async with httpx2.AsyncClient(headers={"X-Conversation-Id": conversation}, timeout=120) as http:
        async with Client(streamable_http_client(url, http_client=http)) as client:
            yield client


async def call(client: Client, tool: str, arguments: dict[str, object]) -> list[ContentBlock]:
    """What to give a model: one text, then images."""
    result = await client.call_tool(tool, arguments, read_timeout_seconds=120)
    return [block for block in result.content if block.type in ("text", "image")]


# -- end --


async def work(connection: AbstractAsyncContextManager[Client], model: Model) -> None:
    async with connection as client:
        listed = await client.list_tools()
        model.offered({tool.name: tool.input_schema for tool in listed.tools})
        seen = None
        while (wanted := model.reply(seen)) is not None:
            seen = given(await call(client, wanted.tool, dict(wanted.arguments)))


def given(content: list[ContentBlock]) -> Seen:
    texts = [block.text for block in content if block.type == "text"]
    images = [base64.b64decode(block.data) for block in content if block.type == "image"]
    return Seen("\n".join(texts), tuple(images))


if __name__ == "__main__":
    play(
        lambda model: work(over_stdio(), model),
        lambda model, url, conversation: work(over_http(conversation, url), model),
    )
