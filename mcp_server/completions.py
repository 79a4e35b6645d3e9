"""The MCP door's completions: what a client offers while a person types an argument.

Handles come from the conversation of the request alone, and so do the runs of one: what belongs to others is not
offered, nor is it told whether it exists.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CompleteRequestParams, CompleteResult, Completion, PromptReference

from mcp_server.model import ContextRecord, Conversation, Stream
from mcp_server.prompt_door import PromptDoor
from mcp_server.resources import TEMPLATES
from mcp_server.service import Service

MAX_VALUES = 100
"""Of one answer, by the protocol."""

_EXPRESSION = re.compile(r"\{[+?]?([\w,]+)\}")
"""The variables of a URI template, in the forms that ours use."""

RequestContext: TypeAlias = ServerRequestContext[Any, Any]


class CompletionDoor:
    """The handler of `completion/complete`. `conversation_of` tells whose a request is."""

    def __init__(
        self, service: Service, conversation_of: Callable[[RequestContext], Conversation], prompts: PromptDoor
    ) -> None:
        self._service = service
        self._conversation_of = conversation_of
        self._prompts = prompts

    async def complete(self, context: RequestContext, params: CompleteRequestParams) -> CompleteResult:
        """Nothing is offered for an argument of free text. Raises MCPError for a reference that leads nowhere."""
        self._check(params)
        records = await self._service.list_contexts(self._conversation_of(context), with_default=True)
        known = params.context.arguments if params.context is not None else None
        offered = _offered(params.argument.name, records, known or {})
        return CompleteResult(completion=_completion(offered, params.argument.value))

    def _check(self, params: CompleteRequestParams) -> None:
        argument = params.argument.name
        if isinstance(params.ref, PromptReference):
            names = [each.name for each in self._prompts.named(params.ref.name).arguments]
        else:
            names = _template_arguments(params.ref.uri)
        if argument not in names:
            raise MCPError(
                INVALID_PARAMS, f"There is no argument {argument[:64]!a} to complete: there are {', '.join(names)}."
            )


def _template_arguments(uri: str) -> list[str]:
    template = next((each.uri_template for each in TEMPLATES if each.uri_template == uri), None)
    if template is None:
        there = ", ".join(each.uri_template for each in TEMPLATES)
        raise MCPError(INVALID_PARAMS, f"No resource template {uri[:200]!a}: there are {there}.")
    return [name for names in _EXPRESSION.findall(template) for name in names.split(",")]


def _offered(argument: str, records: list[ContextRecord], known: Mapping[str, str]) -> Iterable[str]:
    """Newest first: that is what one is most likely to mean."""
    match argument:
        case "context_id":
            return [record.context_id for record in sorted(records, key=lambda each: each.last_used_at, reverse=True)]
        case "run":
            runs = next((record.runs for record in records if record.context_id == known.get("context_id")), 0)
            return map(str, range(runs, 0, -1))
        case "name":
            return [stream.value for stream in Stream]
        case _:
            return []


def _completion(offered: Iterable[str], typed: str) -> Completion:
    fitting = [value for value in offered if value.startswith(typed)]
    return Completion(values=fitting[:MAX_VALUES], total=len(fitting), has_more=len(fitting) > MAX_VALUES)
