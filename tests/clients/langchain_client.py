"""LangChain: an agent whose model is a class of ours, with `langchain-mcp-adapters`."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from tests.clients.story import ANSWER, Model, Seen, play

# -- docs/clients.md --
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.sessions import Connection
from langchain_mcp_adapters.tools import load_mcp_tools


def over_stdio() -> Connection:
    return {"transport": "stdio", "command": "mcp-code-interpreter", "args": []}


def over_http(conversation: str, url: str = "http://127.0.0.1:8000/mcp") -> Connection:
    return {"transport": "streamable_http", "url": url, "headers": {"X-Conversation-Id": conversation}}


async def ask(connection: Connection, model: BaseChatModel | str, question: str) -> str:
    """One session for the whole conversation: `client.get_tools()` would open another for each call."""
    client = MultiServerMCPClient({"python": connection})
    async with client.session("python") as session:
        agent = create_agent(model, await load_mcp_tools(session))
        state = await agent.ainvoke({"messages": [{"role": "user", "content": question}]})
    return str(state["messages"][-1].content)


# -- end --
from langchain_core.messages import AIMessage, BaseMessage, ToolCall, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool


class Scripted(BaseChatModel):
    script: Model

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[BaseTool], **settings: object) -> Scripted:
        self.script.offered({tool.name: tool.args_schema for tool in tools})
        return self

    def _generate(self, messages: list[BaseMessage], *rest: object, **more: object) -> ChatResult:
        wanted = self.script.reply(given(messages[-1]))
        if wanted is None:
            return ChatResult(generations=[ChatGeneration(message=AIMessage(ANSWER))])
        call = ToolCall(name=wanted.tool, args=dict(wanted.arguments), id=wanted.id)
        return ChatResult(generations=[ChatGeneration(message=AIMessage("", tool_calls=[call]))])


def given(message: BaseMessage) -> Seen | None:
    if not isinstance(message, ToolMessage):
        return None
    blocks = message.content_blocks
    texts = [block["text"] for block in blocks if block["type"] == "text"]
    images = [base64.b64decode(block["base64"]) for block in blocks if block["type"] == "image"]
    others = [block["type"] for block in blocks if block["type"] not in ("text", "image")]
    return Seen("\n".join(texts), tuple(images), tuple(others))


if __name__ == "__main__":
    play(
        lambda model: ask(over_stdio(), Scripted(script=model), "How fast are the laps?"),
        lambda model, url, conversation: ask(
            over_http(conversation, url), Scripted(script=model), "How fast are the laps?"
        ),
    )
