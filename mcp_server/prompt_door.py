"""The MCP door's prompts: the list that a client shows to a person, and the message that a picked one becomes."""

from __future__ import annotations

from typing import Any, TypeAlias

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    PaginatedRequestParams,
    Prompt,
    PromptArgument,
    PromptMessage,
    TextContent,
)

from mcp_server.errors import InvalidArgument
from mcp_server.picked_prompts import PickedPrompt
from mcp_server.prompts import Texts

RequestContext: TypeAlias = ServerRequestContext[Any, Any]


class PromptDoor:
    """The handlers of `prompts/list` and `prompts/get`."""

    def __init__(self, texts: Texts) -> None:
        self._prompts = {prompt.name: prompt for prompt in texts.picked}
        self._listed = [_listed(prompt) for prompt in texts.picked]

    def named(self, name: str) -> PickedPrompt:
        """Raises MCPError, which says what there is instead."""
        prompt = self._prompts.get(name)
        if prompt is None:
            raise MCPError(INVALID_PARAMS, f"No prompt {name[:64]!a}: there are {', '.join(self._prompts)}.")
        return prompt

    async def list_prompts(self, _context: RequestContext, _params: PaginatedRequestParams | None) -> ListPromptsResult:
        return ListPromptsResult(prompts=self._listed)

    async def get_prompt(self, _context: RequestContext, params: GetPromptRequestParams) -> GetPromptResult:
        prompt = self.named(params.name)
        try:
            text = prompt.text(params.arguments or {})
        except InvalidArgument as error:
            raise MCPError(INVALID_PARAMS, str(error)) from error
        message = PromptMessage(role="user", content=TextContent(text=text))
        return GetPromptResult(description=prompt.description, messages=[message])


def _listed(prompt: PickedPrompt) -> Prompt:
    arguments = [
        PromptArgument(
            name=argument.name,
            title=argument.title,
            description=argument.description,
            required=argument.required,
        )
        for argument in prompt.arguments
    ]
    return Prompt(name=prompt.name, title=prompt.title, description=prompt.description, arguments=arguments)
