"""Pydantic AI: an agent whose model is a function."""

from __future__ import annotations

from tests.clients.story import ANSWER, Model, Seen, play

# -- docs/clients.md --
from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.models import Model as ChatModel


def over_stdio() -> MCPToolset:
    return MCPToolset(
        StdioTransport("mcp-code-interpreter", args=[]),
        init_timeout=60,
        include_instructions=True,
        tool_error_behavior="failed",
    )


def over_http(conversation: str, url: str = "http://127.0.0.1:8000/mcp") -> MCPToolset:
    return MCPToolset(
        url,
        headers={"X-Conversation-Id": conversation},
        include_instructions=True,
        tool_error_behavior="failed",
    )


async def ask(python: MCPToolset, model: ChatModel | str, question: str) -> str:
    agent = Agent(model, toolsets=[python])
    async with agent:
        return (await agent.run(question)).output


# -- end --
import pydantic_ai.messages as m
from pydantic_ai.models.function import AgentInfo, FunctionModel


def scripted(model: Model) -> FunctionModel:
    def respond(messages: list[m.ModelMessage], info: AgentInfo) -> m.ModelResponse:
        model.offered({tool.name: tool.parameters_json_schema for tool in info.function_tools})
        wanted = model.reply(given(messages[-1]))
        if wanted is None:
            return m.ModelResponse([m.TextPart(ANSWER)])
        return m.ModelResponse([m.ToolCallPart(wanted.tool, dict(wanted.arguments), wanted.id)])

    return FunctionModel(respond)


def given(request: m.ModelMessage) -> Seen | None:
    """What providers make of a tool's return: its text, or JSON where there are several, and the files apart."""
    for part in request.parts:
        if isinstance(part, m.ToolReturnPart):
            images = tuple(file.data for file in part.files if isinstance(file, m.BinaryImage))
            others = tuple(type(file).__name__ for file in part.files if not isinstance(file, m.BinaryImage))
            return Seen(part.model_response_str(), images, others)
    return None


if __name__ == "__main__":
    play(
        lambda model: ask(over_stdio(), scripted(model), "How fast are the laps?"),
        lambda model, url, conversation: ask(over_http(conversation, url), scripted(model), "How fast are the laps?"),
    )
