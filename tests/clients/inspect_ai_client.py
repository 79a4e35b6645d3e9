"""Inspect: a task of one sample whose model is `mockllm`."""

from __future__ import annotations

import base64

from tests.clients.story import ANSWER, Model, Seen, play

# -- docs/clients.md --
from collections.abc import Callable

from inspect_ai.agent import react, run
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.tool import MCPServer, mcp_server_http, mcp_server_stdio


def over_stdio(conversation: str) -> MCPServer:
    return mcp_server_stdio(command="mcp-code-interpreter")


def over_http(conversation: str, url: str = "http://127.0.0.1:8000/mcp") -> MCPServer:
    return mcp_server_http(url=url, headers={"X-Conversation-Id": conversation}, timeout=30)


@solver
def analyst(connect: Callable[[str], MCPServer] = over_stdio) -> Solver:
    """Gives each sample a sandbox of its own. `react` holds one connection from its first call to its last."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        outcome = await run(react(tools=[connect(state.uuid)]), state.messages)
        state.messages, state.output = outcome.messages, outcome.output
        return state

    return solve


# -- end --
from inspect_ai import Task, eval_async
from inspect_ai.dataset import Sample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageTool,
    ContentImage,
    ContentText,
    ModelOutput,
    ModelUsage,
    get_model,
)
from inspect_ai.tool import ToolInfo


async def work(connect: Callable[[str], MCPServer], model: Model) -> None:
    def respond(messages: list[ChatMessage], tools: list[ToolInfo], *rest: object) -> ModelOutput:
        model.offered({tool.name: tool.parameters.model_dump(exclude_none=True) for tool in tools})
        wanted = model.reply(given(messages))
        tool, arguments = ("submit", {"answer": ANSWER}) if wanted is None else (wanted.tool, dict(wanted.arguments))
        output = ModelOutput.for_tool_call("mockllm", tool, arguments)
        output.usage = ModelUsage()  # else it is counted, with a vocabulary from the network
        return output

    task = Task(dataset=[Sample("How fast are the laps?")], solver=analyst(connect))
    [log] = await eval_async(task, model=get_model("mockllm/model", custom_outputs=respond))
    if log.error is not None:
        raise RuntimeError(log.error.message)


def given(messages: list[ChatMessage]) -> Seen | None:
    """What has come since the model's last call: for some models Inspect moves images into a message of the user's."""
    called = [number for number, message in enumerate(messages) if isinstance(message, ChatMessageAssistant)]
    if not called:
        return None
    seen = Seen("")
    for message in messages[called[-1] + 1 :]:
        error = message.error.message if isinstance(message, ChatMessageTool) and message.error else ""
        content = message.content
        blocks = [ContentText(text=error + content)] if isinstance(content, str) else content
        texts = [block.text for block in blocks if isinstance(block, ContentText)]
        images = [block.image for block in blocks if isinstance(block, ContentImage)]
        others = [block.type for block in blocks if not isinstance(block, ContentText | ContentImage)]
        seen = Seen(
            "\n".join([*filter(None, [seen.text]), *texts]),
            (*seen.images, *(base64.b64decode(url.partition(",")[2]) for url in images)),
            (*seen.other, *others),
        )
    return seen


if __name__ == "__main__":
    play(
        lambda model: work(over_stdio, model),
        lambda model, url, conversation: work(lambda _sample: over_http(conversation, url), model),
    )
