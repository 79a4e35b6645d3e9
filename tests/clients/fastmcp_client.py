"""FastMCP's client: the program itself hands the content of results to its model."""

from __future__ import annotations

import base64

from tests.clients.story import Model, Seen, play

# -- docs/clients.md --
from fastmcp import Client
from fastmcp.client.transports import StdioTransport, StreamableHttpTransport
from mcp_types import ContentBlock


def over_stdio() -> Client:
    return Client(StdioTransport("mcp-code-interpreter", args=[]), timeout=120)


def over_http(conversation: str, url: str = "http://127.0.0.1:8000/mcp") -> Client:
    return Client(StreamableHttpTransport(url, headers={"X-Conversation-Id": conversation}), timeout=120)


async def call(client: Client, tool: str, arguments: dict[str, object]) -> list[ContentBlock]:
    """What to give a model: one text, then images."""
    result = await client.call_tool(tool, arguments, raise_on_error=False)
    return [block for block in result.content if block.type in ("text", "image")]


# -- end --


async def work(client: Client, model: Model) -> None:
    async with client:
        model.offered({tool.name: tool.input_schema for tool in await client.list_tools()})
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
