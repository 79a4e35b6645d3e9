"""The OpenAI Agents SDK: an agent whose model is a class of ours."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator

from tests.clients.story import ANSWER, Model, Seen, play

# -- docs/clients.md --
from agents import Agent, Runner
from agents.mcp import MCPServer, MCPServerStdio, MCPServerStreamableHttp
from agents.models.interface import Model as ChatModel


def over_stdio() -> MCPServerStdio:
    return MCPServerStdio({"command": "mcp-code-interpreter"}, client_session_timeout_seconds=120)


def over_http(conversation: str, url: str = "http://127.0.0.1:8000/mcp") -> MCPServerStreamableHttp:
    return MCPServerStreamableHttp(
        {"url": url, "headers": {"X-Conversation-Id": conversation}}, client_session_timeout_seconds=120
    )


async def ask(server: MCPServer, model: ChatModel | str, question: str) -> str:
    async with server:
        agent = Agent(name="Analyst", model=model, mcp_servers=[server])
        return str((await Runner.run(agent, question, max_turns=30)).final_output)


# -- end --
from agents import ModelResponse, Tool, TResponseInputItem, Usage, set_tracing_disabled
from agents.items import TResponseStreamEvent
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText


class Scripted(ChatModel):
    def __init__(self, model: Model) -> None:
        self._model = model

    async def get_response(
        self,
        system_instructions: object,
        input: str | list[TResponseInputItem],  # noqa: A002 (passed by this name)
        *,
        tools: list[Tool],
        **more: object,
    ) -> ModelResponse:
        self._model.offered({tool.name: tool.params_json_schema for tool in tools})
        wanted = self._model.reply(given(input))
        if wanted is None:
            text = ResponseOutputText(text=ANSWER, type="output_text", annotations=[])
            said = ResponseOutputMessage(id="m", content=[text], role="assistant", status="completed", type="message")
            return ModelResponse([said], Usage(), None)
        call = ResponseFunctionToolCall(
            arguments=json.dumps(wanted.arguments), call_id=wanted.id, name=wanted.tool, type="function_call"
        )
        return ModelResponse([call], Usage(), None)

    def stream_response(self, *rest: object, **more: object) -> AsyncIterator[TResponseStreamEvent]:
        raise NotImplementedError


def given(items: str | list[TResponseInputItem]) -> Seen | None:
    last = items[-1]
    if isinstance(last, str) or last.get("type") != "function_call_output":
        return None
    output = last["output"]
    blocks = [{"type": "input_text", "text": output}] if isinstance(output, str) else output
    texts = [block["text"] for block in blocks if block["type"] == "input_text"]
    images = [block["image_url"] for block in blocks if block["type"] == "input_image"]
    others = [block["type"] for block in blocks if block["type"] not in ("input_text", "input_image")]
    return Seen("\n".join(texts), tuple(base64.b64decode(url.partition(",")[2]) for url in images), tuple(others))


if __name__ == "__main__":
    set_tracing_disabled(True)
    play(
        lambda model: ask(over_stdio(), Scripted(model), "How fast are the laps?"),
        lambda model, url, conversation: ask(over_http(conversation, url), Scripted(model), "How fast are the laps?"),
    )
