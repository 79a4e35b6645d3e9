"""The MCP door over the scripted engine: what a client is told of the tools, and what each call gives."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, cast

import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, RequestParamsMeta, TextContent, Tool

from mcp_server.app import build_server
from mcp_server.engine.scripted import Assign, Block, Fail, Recall, Result, ScriptedEngine, Step, Write
from mcp_server.errors import EngineUnavailable
from mcp_server.model import ContextInfo, ContextSpec, Sink
from mcp_server.prompts import Facts, load
from mcp_server.service import Service, ServiceLimits
from mcp_server.settings import Settings
from mcp_server.tools import RECORD_KEY, encodable

pytestmark = pytest.mark.anyio

SCRIPTS: Mapping[str, Sequence[Step]] = {
    "x = 1": [Assign("x", "1")],
    "x": [Recall("x")],
    "both": [Write(b"printed\n"), Result("42")],
    "1/0": [Fail("ZeroDivisionError", "division by zero")],
    "half": [Write("\ud83d".encode("utf-8", "surrogatepass")), Fail("Odd\ud83d", "half \ud83d")],
    "hang": [Write(b"going\n"), Block()],
}


@asynccontextmanager
async def connected(
    engine: ScriptedEngine | None = None,
    settings: Settings | None = None,
    limits: ServiceLimits | None = None,
    process: str = "stdio",
) -> AsyncIterator[Client]:
    settings = settings or Settings()
    service = Service(engine or ScriptedEngine(SCRIPTS), limits)
    await service.start()
    server = build_server(service, settings, load(Facts(settings, service.capabilities)), process)
    async with Client(server) as client:
        yield client
    await service.close()


def text_of(result: CallToolResult) -> str:
    block = result.content[0]
    assert isinstance(block, TextContent)
    return block.text


def thread(name: str) -> RequestParamsMeta:
    meta: dict[str, Any] = {"threadId": name}
    return cast("RequestParamsMeta", meta)


async def tools_of(settings: Settings | None = None) -> dict[str, Tool]:
    async with connected(settings=settings) as client:
        return {tool.name: tool for tool in (await client.list_tools()).tools}


async def test_there_are_exactly_four_tools_each_fully_described() -> None:
    tools = await tools_of()
    assert list(tools) == ["run_code", "create_context", "list_contexts", "delete_context"]
    for tool in tools.values():
        assert tool.title
        assert tool.description
        assert tool.annotations is not None
        assert tool.annotations.title == tool.title
        assert all(argument["description"] for argument in tool.input_schema["properties"].values())
        hints = tool.annotations
        assert None not in (hints.read_only_hint, hints.destructive_hint, hints.idempotent_hint, hints.open_world_hint)


async def test_hints_say_what_each_tool_can_do_to_the_world() -> None:
    tools = await tools_of()
    reads = {name for name, tool in tools.items() if tool.annotations and tool.annotations.read_only_hint}
    destroys = {name for name, tool in tools.items() if tool.annotations and tool.annotations.destructive_hint}
    assert (reads, destroys) == ({"list_contexts"}, {"delete_context"})


@pytest.mark.parametrize("changes", [{"workspace": "/data"}, {"allow_unsandboxed": True}])
async def test_code_that_can_reach_the_users_files_is_said_to_be_destructive(changes: dict[str, Any]) -> None:
    hints = (await tools_of(Settings(**changes)))["run_code"].annotations
    assert hints is not None
    assert hints.destructive_hint is True


async def test_run_code_asks_for_long_results_and_promises_no_structure() -> None:
    tools = await tools_of()
    assert tools["run_code"].meta == {"anthropic/maxResultSizeChars": 500_000}
    assert tools["run_code"].output_schema is None
    assert all(tools[name].output_schema for name in ("create_context", "list_contexts", "delete_context"))


async def test_a_run_gives_one_text_and_its_record() -> None:
    async with connected() as client:
        result = await client.call_tool("run_code", {"code": "both"})
    assert len(result.content) == 1
    assert text_of(result).splitlines()[1:] == ["printed", "⟦result⟧", "42"]
    assert result.structured_content is None
    assert result.meta is not None
    assert result.meta[RECORD_KEY]["status"] == "ok"
    json.dumps(result.meta[RECORD_KEY])


async def test_code_that_fails_is_a_report_and_not_a_tool_error() -> None:
    async with connected() as client:
        result = await client.call_tool("run_code", {"code": "1/0"})
    assert result.is_error is False
    assert "ZeroDivisionError: division by zero" in text_of(result)


@pytest.mark.parametrize(
    ("tool", "given", "said"),
    [
        ("run_code", {"code": "x", "context_id": "ctx_nobody"}, "No context 'ctx_nobody'"),
        ("run_code", {"code": ""}, "nothing running or waiting to be reported"),
        ("run_code", {"code": "x", "timeout": -1}, "timeout is -1"),
        ("run_code", {"code": "x", "wait": -0.5}, "wait is -0.5"),
        ("run_code", {"code": "x", "max_output_chars": 1}, "max_output_chars is 1;"),
        ("run_code", {"code": "#" * (4 << 20) + "#"}, "over the limit of 4,194,304"),
        ("run_code", {"code": "x", "envs": {"A=B": "c"}}, "no environment can hold: 'A=B'"),
        ("run_code", {}, "run_code needs code"),
        ("create_context", {"cwd": "a\0b"}, "cwd must be a path"),
        ("create_context", {"envs": {"A": None}}, "envs must be an object of strings"),
        ("list_contexts", {"all": True}, "list_contexts has no argument"),
        ("delete_context", {}, "delete_context needs context_id"),
        ("delete_context", {"context_id": "ctx_nobody"}, "No context 'ctx_nobody'"),
    ],
)
async def test_a_request_that_cannot_be_carried_out_is_a_tool_error_and_changes_nothing(
    tool: str, given: dict[str, Any], said: str
) -> None:
    async with connected() as client:
        await client.call_tool("run_code", {"code": "x = 1"})
        result = await client.call_tool(tool, given)
        assert result.is_error is True
        assert said in text_of(result)
        assert len(text_of(result)) < 400
        assert (await client.call_tool("list_contexts", {})).structured_content == {"contexts": []}
        after = await client.call_tool("run_code", {"code": "x"})
        assert text_of(after).startswith("ok · run 2 ")


async def test_too_many_contexts_are_refused_with_what_to_do() -> None:
    async with connected(limits=ServiceLimits(contexts_per_conversation=2)) as client:
        for _ in range(2):
            assert (await client.call_tool("create_context", {})).is_error is False
        result = await client.call_tool("create_context", {})
    assert result.is_error is True
    assert "delete_context" in text_of(result)


class BrokenEngine(ScriptedEngine):
    async def create(self, spec: ContextSpec, late: Sink) -> ContextInfo:
        raise EngineUnavailable("No worker could be started.")


async def test_a_fault_of_the_servers_is_told_as_one() -> None:
    async with connected(engine=BrokenEngine({})) as client:
        result = await client.call_tool("run_code", {"code": "x"})
    assert result.is_error is True
    assert text_of(result) == "No worker could be started. This is a fault of the server's, not of the request."


async def test_an_unknown_tool_is_a_protocol_error_that_names_the_real_ones() -> None:
    async with connected() as client:
        with pytest.raises(MCPError, match="No tool 'run_ruby': there are run_code, "):
            await client.call_tool("run_ruby", {})


async def test_contexts_are_made_listed_and_deleted_with_the_same_as_structure_and_text() -> None:
    async with connected() as client:
        made = await client.call_tool("create_context", {"cwd": "/work/a"})
        handle = made.structured_content["context_id"]
        assert made.structured_content == {"context_id": handle, "cwd": "/work/a", "expires_after_idle_s": 3600.0}
        await client.call_tool("run_code", {"code": "x = 1", "context_id": handle})
        listed = await client.call_tool("list_contexts", {})
        [record] = listed.structured_content["contexts"]
        assert (record["context_id"], record["state"], record["runs"]) == (handle, "idle", 1)
        assert datetime.fromisoformat(record["created_at"]) <= datetime.fromisoformat(record["last_used_at"])
        deleted = await client.call_tool("delete_context", {"context_id": handle})
        assert deleted.structured_content == {"deleted": handle}
        for result in (made, listed, deleted):
            assert json.loads(text_of(result)) == result.structured_content
        gone = await client.call_tool("run_code", {"code": "x", "context_id": handle})
        assert gone.is_error is True


async def test_a_context_that_runs_is_listed_with_since_when_and_its_last_line() -> None:
    async with connected() as client:
        handle = (await client.call_tool("create_context", {})).structured_content["context_id"]
        yielded = await client.call_tool("run_code", {"code": "hang", "context_id": handle, "wait": 0.05})
        assert text_of(yielded).startswith("running · run 1 ")
        [record] = (await client.call_tool("list_contexts", {})).structured_content["contexts"]
        assert record["state"] == "running"
        assert datetime.fromisoformat(record["running_since"])
        assert record["last_line"] == "going"


async def test_without_a_conversation_nothing_is_listed_and_it_is_said_why() -> None:
    async with connected(process="") as client:
        await client.call_tool("create_context", {})
        listed = (await client.call_tool("list_contexts", {})).structured_content
    assert listed["contexts"] == []
    assert "context_id" in listed["note"]


async def test_hints_in_a_requests_meta_tell_conversations_apart() -> None:
    async with connected() as client:
        await client.call_tool("run_code", {"code": "x = 1"}, meta=thread("one"))
        again = await client.call_tool("run_code", {"code": "x"}, meta=thread("one"))
        other = await client.call_tool("run_code", {"code": "x"}, meta=thread("two"))
    assert text_of(again).endswith("1")
    assert "NameError" in text_of(other)


async def test_half_characters_never_leave() -> None:
    async with connected() as client:
        result = await client.call_tool("run_code", {"code": "half"})
    result.model_dump_json()
    assert result.meta is not None
    json.dumps(result.meta, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("value", "out"),
    [
        ("a\ud83db", "a\ufffdb"),
        ("\U0001f600", "\U0001f600"),
        ({"k\ud800": ["\udfff", 1, None, True, 0.5]}, {"k\ufffd": ["\ufffd", 1, None, True, 0.5]}),
        (("\ud800",), ["\ufffd"]),
    ],
)
def test_encodable_replaces_half_characters_at_any_depth(value: object, out: object) -> None:
    assert encodable(value) == out
