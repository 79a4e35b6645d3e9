"""Prompts and completions as a client of a real process sees them: both transports, both eras of the protocol."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import PromptReference, ResourceTemplateReference, TextContent

from mcp_server.resources import TEMPLATES
from tests.mcp.server_processes import BOUND_S, ServerProcess, http_server, raw_stdio_server, stdio_parameters

pytestmark = pytest.mark.anyio

MODES = pytest.mark.parametrize("mode", ["legacy", "auto"])


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with http_server() as started:
        yield started


@asynccontextmanager
async def over_http(server: ServerProcess, mode: str, conversation: str) -> AsyncIterator[Client]:
    async with httpx2.AsyncClient(headers={"X-Conversation-Id": conversation}, timeout=BOUND_S) as http:
        async with Client(streamable_http_client(server.url, http_client=http), mode=mode) as client:
            yield client


async def pick_and_complete(client: Client) -> str:
    """What a client does with a prompt and with a handle; gives the handle."""
    assert next(prompt.name for prompt in (await client.list_prompts()).prompts) == "analyse_data"
    [message] = (await client.get_prompt("analyse_data", {"file": "sales.csv"})).messages
    assert isinstance(message.content, TextContent)
    assert message.content.text.startswith("Analyse the data file `sales.csv` with the tool `run_code`.")
    with pytest.raises(MCPError, match="needs file"):
        await client.get_prompt("analyse_data")
    made = str((await client.call_tool("create_context", {})).structured_content["context_id"])
    await client.call_tool("run_code", {"code": "1", "context_id": made})
    prompt = PromptReference(name="analyse_data")
    assert (await client.complete(prompt, {"name": "context_id", "value": "ctx_"})).completion.values == [made]
    template = ResourceTemplateReference(uri=TEMPLATES[0].uri_template)
    runs = await client.complete(template, {"name": "run", "value": ""}, {"context_id": made})
    assert runs.completion.values == ["1"]
    return made


@MODES
async def test_over_stdio_a_prompt_is_picked_and_a_handle_completed(mode: str) -> None:
    async with Client(stdio_parameters(), mode=mode) as client:
        await pick_and_complete(client)


@MODES
async def test_over_http_a_conversation_completes_its_own_handles_alone(server: ServerProcess, mode: str) -> None:
    async with over_http(server, mode, f"one-{mode}") as one, over_http(server, mode, f"two-{mode}") as two:
        made = await pick_and_complete(one)
        for ref in (PromptReference(name="plot"), ResourceTemplateReference(uri=TEMPLATES[1].uri_template)):
            for typed in ("", made, made[:-1]):
                offered = await two.complete(ref, {"name": "context_id", "value": typed})
                assert offered.completion.values == []
                assert offered.completion.total == 0


def test_half_a_character_in_any_request_is_answered() -> None:
    with raw_stdio_server() as server:
        server.shake_hands()
        half = '"\\ud83d"'
        for number, (method, params) in enumerate(
            [
                ("prompts/get", f'{{"name": "plot", "arguments": {{"what": {half}}}}}'),
                ("prompts/get", f'{{"name": {half}}}'),
                ("prompts/get", f'{{"name": "plot", "arguments": {{"what": "x", {half}: "y"}}}}'),
                ("resources/read", f'{{"uri": {half}}}'),
                (
                    "completion/complete",
                    f'{{"ref": {{"type": "ref/prompt", "name": {half}}}, "argument": {{"name": "x", "value": ""}}}}',
                ),
                (
                    "completion/complete",
                    f'{{"ref": {{"type": "ref/resource", "uri": {half}}}, "argument": {{"name": "x", "value": ""}}}}',
                ),
            ],
            start=1,
        ):
            line = f'{{"jsonrpc": "2.0", "id": {number}, "method": "{method}", "params": {params}}}'
            server.send_line(line.encode())
            answer = server.answer(number)
            assert ("result" in answer) == (number == 1), answer
            assert "internal" not in json.dumps(answer).lower()
