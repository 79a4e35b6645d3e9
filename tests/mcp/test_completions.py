"""What a client offers while a person types: the handles of their own conversation, and nobody else's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from mcp import Client
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CompleteRequestParams,
    Completion,
    CompletionArgument,
    CompletionContext,
    PromptReference,
    ResourceTemplateReference,
)

from mcp_server.completions import MAX_VALUES, CompletionDoor
from mcp_server.engine.scripted import ScriptedEngine, Write
from mcp_server.model import Conversation, RunCall
from mcp_server.prompt_door import PromptDoor
from mcp_server.prompts import Facts, load
from mcp_server.resources import TEMPLATES
from mcp_server.service import Service, ServiceLimits
from mcp_server.settings import Settings
from tests.mcp.test_tool_door import connected

pytestmark = pytest.mark.anyio

RUN_URI, WORK_URI = (template.uri_template for template in TEMPLATES)
PROMPT = PromptReference(name="plot")
RESOURCE = ResourceTemplateReference(uri=RUN_URI)


class Typing:
    """The completions of one service, asked for by any conversation."""

    def __init__(self, service: Service) -> None:
        self.service = service
        prompts = PromptDoor(load(Facts(Settings(), service.capabilities)))
        self._door = CompletionDoor(service, lambda _: self._asker, prompts)
        self._asker = Conversation("")

    async def offers(
        self,
        asker: Conversation,
        argument: str,
        typed: str = "",
        ref: PromptReference | ResourceTemplateReference = RESOURCE,
        known: Mapping[str, str] | None = None,
    ) -> Completion:
        self._asker = asker
        params = CompleteRequestParams(
            ref=ref,
            argument=CompletionArgument(name=argument, value=typed),
            context=CompletionContext(arguments=dict(known)) if known is not None else None,
        )
        context: Any = None
        request: ServerRequestContext[Any, Any] = context
        return (await self._door.complete(request, params)).completion


@asynccontextmanager
async def typing() -> AsyncIterator[Typing]:
    limits = ServiceLimits(contexts_per_conversation=200)
    service = Service(ScriptedEngine({"1": [Write(b"1")]}), limits)
    await service.start()
    try:
        yield Typing(service)
    finally:
        await service.close()


async def test_handles_are_the_askers_own_newest_first_with_the_default_one() -> None:
    mine, other = Conversation("mine"), Conversation("other")
    async with typing() as door:
        first = (await door.service.create_context(mine)).context_id
        await door.service.create_context(other)
        report = await door.service.run(RunCall(mine, "1"))
        offered = await door.offers(mine, "context_id")
        assert offered.values == [report.record["context_id"], first]
        assert (offered.total, offered.has_more) == (2, False)
        assert (await door.offers(mine, "context_id", ref=PROMPT)).values == offered.values
        assert (await door.offers(mine, "context_id", ref=ResourceTemplateReference(uri=WORK_URI))).total == 2


async def test_one_name_of_two_principals_is_two_conversations() -> None:
    async with typing() as door:
        made = (await door.service.create_context(Conversation("shared", "ada"))).context_id
        assert (await door.offers(Conversation("shared", "ada"), "context_id")).values == [made]
        for stranger in (Conversation("shared", "eve"), Conversation("shared"), Conversation("")):
            assert (await door.offers(stranger, "context_id")).values == []
            assert (await door.offers(stranger, "context_id", typed=made)).values == []
            assert (await door.offers(stranger, "run", known={"context_id": made})).values == []


async def test_a_beginning_narrows_them_and_deleted_ones_are_gone() -> None:
    mine = Conversation("mine")
    async with typing() as door:
        handles = [(await door.service.create_context(mine)).context_id for _ in range(4)]
        wanted = handles[2]
        assert (await door.offers(mine, "context_id", typed=wanted)).values == [wanted]
        assert (await door.offers(mine, "context_id", typed=wanted + "x")).values == []
        assert (await door.offers(mine, "context_id", typed="ctx_")).total == 4
        await door.service.delete_context(mine, wanted)
        assert wanted not in (await door.offers(mine, "context_id")).values


async def test_an_answer_holds_a_hundred_and_says_that_there_are_more() -> None:
    mine = Conversation("mine")
    async with typing() as door:
        for _ in range(MAX_VALUES + 5):
            await door.service.create_context(mine)
        offered = await door.offers(mine, "context_id")
        assert len(offered.values) == len(set(offered.values)) == MAX_VALUES
        assert (offered.total, offered.has_more) == (MAX_VALUES + 5, True)


async def test_runs_are_those_of_the_context_that_was_chosen_before() -> None:
    mine = Conversation("mine")
    async with typing() as door:
        made = (await door.service.create_context(mine)).context_id
        for _ in range(12):
            await door.service.run(RunCall(mine, "1", context_id=made))
        known = {"context_id": made}
        assert (await door.offers(mine, "run", known=known)).values == [str(run) for run in range(12, 0, -1)]
        assert (await door.offers(mine, "run", typed="1", known=known)).values == ["12", "11", "10", "1"]
        assert (await door.offers(mine, "run")).values == []


async def test_names_of_streams_are_offered_and_free_text_is_not() -> None:
    async with typing() as door:
        assert (await door.offers(Conversation("mine"), "name", typed="stde")).values == ["stderr"]
        assert (await door.offers(Conversation("mine"), "what", ref=PROMPT)).values == []
        assert (await door.offers(Conversation("mine"), "limit")).values == []


@pytest.mark.parametrize(
    ("ref", "argument", "message"),
    [
        (PromptReference(name="dance"), "context_id", "No prompt 'dance': there are analyse_data, "),
        (ResourceTemplateReference(uri="run://x"), "context_id", "No resource template 'run://x': there are run://"),
        (PROMPT, "colour", "There is no argument 'colour' to complete: there are what, data, context_id."),
        (RESOURCE, "path", "There is no argument 'path' to complete: there are context_id, run, name, offset, limit."),
    ],
)
async def test_a_reference_that_leads_nowhere_is_refused(
    ref: PromptReference | ResourceTemplateReference, argument: str, message: str
) -> None:
    async with typing() as door:
        with pytest.raises(MCPError) as refused:
            await door.offers(Conversation("mine"), argument, ref=ref)
    assert message in str(refused.value)


async def test_a_client_completes_the_handle_that_a_tool_gave() -> None:
    async with AsyncExitStack() as stack:
        client: Client = await stack.enter_async_context(connected())
        assert client.server_capabilities.completions is not None
        made = (await client.call_tool("create_context", {})).structured_content["context_id"]
        result = await client.complete(PROMPT, {"name": "context_id", "value": made[:8]})
        assert result.completion.values == [made]
