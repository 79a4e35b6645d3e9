"""The server as a client starts it: a process, spoken to over its stdin and stdout."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import anyio
import pytest
from mcp import Client
from mcp_types import CallToolResult, TextContent, TextResourceContents

from tests.mcp.server_processes import (
    BOUND_S,
    Watched,
    cgroups_of,
    descendants,
    raw_stdio_server,
    stdio_parameters,
)

pytestmark = pytest.mark.anyio

MODES = pytest.mark.parametrize("mode", ["legacy", "auto"])


def text_of(result: CallToolResult) -> str:
    [block] = result.content
    assert isinstance(block, TextContent)
    return block.text


async def run(client: Client, code: str, **arguments: object) -> CallToolResult:
    return await client.call_tool("run_code", {"code": code, **arguments}, read_timeout_seconds=BOUND_S)


@MODES
async def test_a_conversation_keeps_its_variables_and_gets_text_and_a_record(mode: str) -> None:
    async with Client(stdio_parameters(), mode=mode) as client:
        assert client.instructions is not None
        assert "run_code" in client.instructions
        await run(client, "x = 20")
        result = await run(client, "print('hello')\nx + 1")
        assert text_of(result).splitlines()[0].startswith("ok · run 2 · ")
        assert text_of(result).splitlines()[1:] == ["hello", "⟦result⟧", "21"]
        assert result.structured_content is None
        assert result.is_error is False
        assert result.meta is not None
        record = result.meta["code-interpreter/run"]
        assert record["status"] == "ok"
        assert record["run"] == 2
        assert record["stdout"]["total_bytes"] == 6


@pytest.mark.parametrize(("flags", "kinds"), [([], ["text"]), (["--resource-links"], ["text", "resource_link"])])
async def test_what_a_run_wrote_is_linked_only_where_that_is_asked_for(flags: list[str], kinds: list[str]) -> None:
    """Frameworks make of a link what model APIs refuse, or a text that is harder to read."""
    async with Client(stdio_parameters(*flags)) as client:
        result = await run(client, "_ = open('laps.csv', 'w').write('61.2')")
        assert [block.type for block in result.content] == kinds
        assert result.meta is not None
        [resource] = result.meta["code-interpreter/run"]["resources"]
        assert resource["name"].endswith("/laps.csv")
        assert resource["mimeType"] == "text/csv"
        [contents] = (await client.read_resource(resource["uri"])).contents
        assert isinstance(contents, TextResourceContents)
        assert contents.text == "61.2"


async def test_pip_gives_up_at_once_where_there_is_no_network_however_it_is_called() -> None:
    async with Client(stdio_parameters()) as client:
        if "without network" not in str(client.instructions):
            pytest.skip("this machine offers no sandbox")
        typed = text_of(await run(client, "%pip install a-module-that-nobody-has"))
        assert "There is no network here" in typed
        command = "[sys.executable, '-m', 'pip', 'install', 'a-module-that-nobody-has']"
        called = text_of(await run(client, f"import subprocess, sys\nsubprocess.run({command}).returncode"))
        assert "No matching distribution" in called
        assert "Retrying" not in typed + called


@MODES
async def test_progress_comes_while_the_code_runs_and_its_values_rise(mode: str) -> None:
    seen: list[tuple[float, str | None]] = []
    ticked = anyio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, message))
        if message == "tick":
            ticked.set()

    async with Client(stdio_parameters(), mode=mode) as client, anyio.create_task_group() as group:
        results: list[CallToolResult] = []

        async def call() -> None:
            code = "print('tick')\nwhile True: pass"
            results.append(await client.call_tool("run_code", {"code": code}, progress_callback=on_progress))

        group.start_soon(call)
        with anyio.fail_after(BOUND_S):
            await ticked.wait()
        assert results == []
        after = await run(client, "'next'", interrupt=True)
        assert "next" in text_of(after)
    assert text_of(results[0]).startswith("interrupted · run 1 · ")
    assert "tick" in text_of(results[0])
    values = [value for value, _ in seen]
    assert values == sorted(set(values))


@MODES
async def test_cancelling_a_call_interrupts_its_code_and_keeps_the_variables(mode: str) -> None:
    async with Client(stdio_parameters(), mode=mode) as client:
        started = anyio.Event()

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            if message == "going":
                started.set()

        async with anyio.create_task_group() as group:

            async def call() -> None:
                code = "x = 41\nprint('going')\nwhile True: pass"
                await client.call_tool("run_code", {"code": code}, progress_callback=on_progress)

            group.start_soon(call)
            with anyio.fail_after(BOUND_S):
                await started.wait()
            group.cancel_scope.cancel()
        result = await run(client, "x + 1")
        assert result.meta is not None
        assert result.meta["code-interpreter/run"]["status"] == "ok"
        assert text_of(result).endswith("42")


async def test_the_end_of_stdin_ends_the_server_and_all_it_started_though_code_runs() -> None:
    with raw_stdio_server() as server:
        server.shake_hands()
        server.start_endless_run(1)
        watched = Watched(descendants(server.process.pid))
        assert server.process.stdin is not None
        server.process.stdin.close()
        assert server.process.wait(BOUND_S) == 0
        assert watched.survivors() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
async def test_a_signal_ends_the_server_and_all_it_started_though_code_runs(number: signal.Signals) -> None:
    with raw_stdio_server() as server:
        server.shake_hands()
        server.start_endless_run(1)
        watched = Watched(descendants(server.process.pid))
        server.process.send_signal(number)
        expected = -number if number == signal.SIGKILL else 128 + number
        assert server.process.wait(BOUND_S) == expected
        assert watched.survivors() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_no_file_no_mount_and_no_control_group(number: signal.Signals, tmp_path: Path) -> None:
    mounts = Path("/proc/self/mounts").read_text().count("\n")
    with raw_stdio_server("--state-dir", str(tmp_path / "state")) as server:
        server.shake_hands()
        server.start_endless_run(1)
        server.process.send_signal(number)
        assert server.process.wait(BOUND_S) == 128 + number
        assert cgroups_of(server.process.pid) == []
    assert [name for _, _, files in os.walk(tmp_path) for name in files] == []
    assert Path("/proc/self/mounts").read_text().count("\n") == mounts


async def test_a_line_that_is_no_message_is_answered_and_the_next_one_served() -> None:
    with raw_stdio_server() as server:
        server.shake_hands()
        server.send_line(b"{not json")
        error = server.receive()["error"]
        assert isinstance(error, dict)
        assert error["code"] == -32700
        server.send(id=1, method="ping")
        assert server.answer(1)["result"] == {}


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ({"code": "s = '\\ud83d'\nprint(len(s), s)\ns"}, "1 "),
        ({"code": "x = '\ud83d'"}, "UnicodeEncodeError"),
        ({"code": "1", "context_id": "\ud83d"}, "No context"),
    ],
    ids=["printed", "in the code", "in a handle"],
)
async def test_half_a_surrogate_pair_is_answered_and_ends_nothing(arguments: dict[str, str], shown: str) -> None:
    with raw_stdio_server() as server:
        server.shake_hands()
        server.send(id=1, method="tools/call", params={"name": "run_code", "arguments": arguments})
        result = server.answer(1)["result"]
        assert isinstance(result, dict)
        assert shown in result["content"][0]["text"]
        server.send(id=2, method="ping")
        assert server.answer(2)["result"] == {}


async def test_a_client_that_never_reads_the_log_hangs_nothing() -> None:
    """Each refused call is logged: 2,000 of them are several times what a pipe holds."""
    with raw_stdio_server("--log-level", "debug", stderr=subprocess.PIPE) as server:
        server.shake_hands()
        for number in range(1, 2_001):
            arguments = {"context_id": "x" * 500}
            server.send(id=number, method="tools/call", params={"name": "delete_context", "arguments": arguments})
            assert server.answer(number)["result"]
        assert server.process.stdin is not None
        server.process.stdin.close()
        assert server.process.wait(BOUND_S) == 0
