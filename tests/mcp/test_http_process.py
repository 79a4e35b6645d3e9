"""The server over streamable HTTP: a process on a free port, in both eras of the protocol."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, TextContent
from mcp_types.version import LATEST_MODERN_VERSION

from tests.mcp.raw_http import RawSession
from tests.mcp.server_processes import BOUND_S, ServerProcess, command, http_server

pytestmark = pytest.mark.anyio

MODES = pytest.mark.parametrize("mode", ["legacy", "auto"])

ENDLESS = "x = 41\nprint('going')\nwhile True: pass"


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with http_server() as started:
        yield started


@asynccontextmanager
async def connected(server: ServerProcess, mode: str, **headers: str) -> AsyncIterator[Client]:
    async with httpx2.AsyncClient(headers=headers, timeout=BOUND_S) as http:
        async with Client(streamable_http_client(server.url, http_client=http), mode=mode) as client:
            yield client


async def run(client: Client, code: str, **arguments: object) -> CallToolResult:
    return await client.call_tool("run_code", {"code": code, **arguments}, read_timeout_seconds=BOUND_S)


def text_of(result: CallToolResult) -> str:
    [block] = result.content
    assert isinstance(block, TextContent)
    return block.text


def record_of(result: CallToolResult) -> dict[str, object]:
    assert result.meta is not None
    record = result.meta["code-interpreter/run"]
    assert isinstance(record, dict)
    return record


@MODES
async def test_images_of_any_size_and_number_come_through_to_the_sdk(server: ServerProcess, mode: str) -> None:
    """It takes no message of more than 1 MiB, and loses the connection with a larger one."""
    code = "from PIL import Image\nfor _ in range(3): display(Image.effect_noise((800, 800), 90))"
    async with connected(server, mode, **{"X-Conversation-Id": f"images {mode}"}) as client:
        result = await run(client, code)
        text, *images = result.content
        assert isinstance(text, TextContent)
        assert [image.type for image in images] == ["image"]
        assert text.text.count("image left out") == 2
        assert len(result.model_dump_json()) < 2**20
        assert text_of(await run(client, "'still here'")).endswith("'still here'")


async def call_until_going(client: Client, scope: anyio.CancelScope, **arguments: object) -> None:
    """Start endless code, and leave the call by cancelling it when its output has been seen."""

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        if message == "going":
            scope.cancel()

    with scope:
        await client.call_tool("run_code", {"code": ENDLESS, **arguments}, progress_callback=on_progress)


@MODES
async def test_cancelling_a_call_interrupts_its_code_and_keeps_the_variables(server: ServerProcess, mode: str) -> None:
    async with connected(server, mode) as client:
        made = (await client.call_tool("create_context", {})).structured_content["context_id"]
        with anyio.fail_after(BOUND_S):
            await call_until_going(client, anyio.CancelScope(), context_id=made)
        result = await run(client, "x + 1", context_id=made)
        assert record_of(result)["status"] == "ok"
        assert text_of(result).endswith("42")


async def test_a_session_of_the_older_protocol_is_a_conversation(server: ServerProcess) -> None:
    async with connected(server, "legacy") as one, connected(server, "legacy") as other:
        await run(one, "x = 1")
        assert text_of(await run(one, "x")).endswith("1")
        assert "NameError" in text_of(await run(other, "x"))


async def test_without_a_conversation_each_call_names_its_new_context(server: ServerProcess) -> None:
    async with connected(server, "auto") as client:
        first = await run(client, "x = 5")
        handle = str(record_of(first)["context_id"])
        assert handle in text_of(first).splitlines()[0]
        assert record_of(await run(client, "1"))["context_id"] != handle
        assert text_of(await run(client, "x", context_id=handle)).endswith("5")
        listed = (await client.call_tool("list_contexts", {})).structured_content
        assert listed["contexts"] == []
        assert "no conversation" in listed["note"]


@MODES
async def test_the_conversation_header_finds_the_variables_again(server: ServerProcess, mode: str) -> None:
    headers = {"X-Conversation-Id": f"sample-{mode}"}
    async with connected(server, mode, **headers) as client:
        await run(client, "x = 'mine'")
        made = (await client.call_tool("create_context", {})).structured_content["context_id"]
    async with connected(server, mode, **headers) as client:
        assert "mine" in text_of(await run(client, "x"))
        listed = (await client.call_tool("list_contexts", {})).structured_content["contexts"]
        assert [context["context_id"] for context in listed] == [made]
    async with connected(server, mode, **{"X-Conversation-Id": "another"}) as client:
        assert "NameError" in text_of(await run(client, "x"))
        assert (await client.call_tool("list_contexts", {})).structured_content["contexts"] == []


async def test_deleting_a_session_of_the_older_protocol_cancels_its_calls(server: ServerProcess) -> None:
    async with connected(server, "auto") as observer:
        handle = str(record_of(await run(observer, "x = 0"))["context_id"])
        with RawSession(server) as session:
            with session.call_streaming("run_code", {"code": ENDLESS, "context_id": handle}) as lines:
                session.wait_for(lines, "going")
                assert session.delete() == 200
            result = await run(observer, "x + 1", context_id=handle)
            assert record_of(result)["status"] == "ok"
            assert text_of(result).endswith("42")


async def test_closing_the_response_stream_of_the_newest_protocol_cancels_its_call(server: ServerProcess) -> None:
    async with connected(server, "auto") as observer:
        handle = str(record_of(await run(observer, "x = 0"))["context_id"])
        with RawSession(server, modern=True) as session:
            with session.call_streaming("run_code", {"code": ENDLESS, "context_id": handle}) as lines:
                session.wait_for(lines, "going")
            result = await run(observer, "x + 1", context_id=handle)
            assert record_of(result)["status"] == "ok"
            assert text_of(result).endswith("42")


async def test_a_header_that_names_another_context_than_the_call_is_refused(server: ServerProcess) -> None:
    with RawSession(server, modern=True) as session:
        arguments = {"code": "1", "context_id": "ctx_one"}
        response = session.post("run_code", arguments, {"Mcp-Param-Context-Id": "ctx_two"})
        assert response.status_code == 400
        assert "Context-Id" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Host": "attacker.example"}, 421), ({"Origin": "http://attacker.example"}, 403)],
    ids=["host", "origin"],
)
@pytest.mark.parametrize("modern", [False, True], ids=["older", "newest"])
async def test_requests_under_a_foreign_name_are_refused(
    server: ServerProcess, headers: dict[str, str], status: int, modern: bool
) -> None:
    with RawSession(server, modern=modern) as session:
        assert session.post("run_code", {"code": "1"}, headers).status_code == status


async def test_too_much_code_is_a_tool_error_and_far_too_much_is_not_read(server: ServerProcess) -> None:
    async with connected(server, "auto") as client:
        result = await run(client, "#" * (4 * 1024 * 1024 + 1))
        assert result.is_error is True
        assert "over the limit of 4,194,304" in text_of(result)
    with RawSession(server, modern=True) as session:
        assert session.post("run_code", {"code": "#" * (33 * 1024 * 1024)}).status_code == 413


def test_health_is_told_without_ceremony(server: ServerProcess) -> None:
    response = httpx.get(server.url.replace("/mcp", "/healthz"))
    assert response.status_code == 200
    assert response.json()["status"] == "ok"


async def test_the_log_shows_neither_code_nor_output_nor_whole_handles(server: ServerProcess) -> None:
    async with connected(server, "auto") as client:
        result = await run(client, "print('out' + 'put-of-the-user')  # code-of-the-user")
        await run(client, "not valid python !!  # code-of-the-user")
        await client.call_tool("run_code", {"code": ["code-of-the-user"]})
        handle = str(record_of(result)["context_id"])
        await client.call_tool("delete_context", {"context_id": handle})
    log = json.dumps(server.log)
    assert "not of the log" not in log
    assert "run.ended" in log
    assert handle[:12] in log
    for secret in ("code-of-the-user", "output-of-the-user", handle):
        assert secret not in log


@pytest.mark.parametrize("modern", [False, True], ids=["older", "newest"])
def test_a_client_that_goes_away_while_it_sends_is_no_fault_of_the_servers(modern: bool) -> None:
    with http_server() as server:
        version = f"MCP-Protocol-Version: {LATEST_MODERN_VERSION}\r\n" if modern else ""
        with socket.create_connection(("127.0.0.1", server.port), timeout=BOUND_S) as connection:
            lines = f"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{version}"
            accept = "Accept: application/json, text/event-stream\r\nContent-Length: 1000\r\n\r\n{"
            connection.sendall((lines + accept).encode())
            # Answered after it, on another connection, so that the first has been read by then.
            assert httpx.get(server.url.replace("/mcp", "/healthz")).status_code == 200
        assert server.stop(signal.SIGTERM) == 128 + signal.SIGTERM
    assert [event for event in server.log if event["level"] != "info"] == []


async def test_a_taken_port_is_told_in_one_line(server: ServerProcess) -> None:
    taken = [*command("serve"), "--port", str(server.port)]
    done = await anyio.run_process(taken, check=False, stderr=subprocess.PIPE)
    assert done.returncode == 1
    [line] = done.stderr.decode().splitlines()
    assert line.startswith(f"mcp-code-interpreter: Cannot listen on 127.0.0.1 port {server.port}: ")
