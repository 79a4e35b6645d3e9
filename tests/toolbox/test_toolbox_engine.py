"""`ToolboxEngine` beyond the contract: lost connections, restarted servers, and servers that offer no mux."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from mcp.client import Client
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from mcp_server.engine.base import Engine
from mcp_server.engine.scripted import ScriptedEngine
from mcp_server.errors import EngineUnavailable, InvalidArgument, SetupFailed, UnknownContext
from mcp_server.model import Chunk, ContextSpec, OutputChunk, RunRequest, State, Status
from mcp_server.service import Service
from mcp_server.toolbox import client_engine
from mcp_server.toolbox.client_engine import ToolboxEngine
from mcp_server.toolbox.client_lines import PLAIN_GAPS
from mcp_server.toolbox.server import toolbox_app
from tests.contract import situations
from tests.mcp.server_processes import stdio_parameters
from tests.toolbox.toolbox_server import ToolboxServer, serving, serving_app

pytestmark = pytest.mark.anyio

BOUND_S = 30.0


class Heard:
    """A sink that keeps what comes, and lets a test wait for it."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self._news = asyncio.Event()

    def __call__(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        self._news.set()

    async def something(self) -> None:
        async with asyncio.timeout(BOUND_S):
            await self._news.wait()

    @property
    def output(self) -> bytes:
        return b"".join(chunk.data for chunk in self.chunks if isinstance(chunk, OutputChunk))


@asynccontextmanager
async def started(url: str, token: str | None = None) -> AsyncIterator[ToolboxEngine]:
    engine = ToolboxEngine(url, token)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


async def context_of(engine: Engine, sandbox_id: str = "sbx") -> str:
    return (await engine.create(ContextSpec(sandbox_id), Heard())).context_id


# -- over the mux -----------------------------------------------------------------------------------------------------


async def test_it_tells_the_tier_of_the_server(server: ToolboxServer) -> None:
    async with started(server.url) as engine:
        assert engine.capabilities.name == "toolbox"
        assert engine.capabilities.tier == server.request("GET", "/toolbox/x/info").json()["engine"]["tier"]


async def test_it_leaves_no_sandbox_behind(server: ToolboxServer) -> None:
    before = len(server.request("GET", "/api/sandbox").json()["items"])
    async with started(server.url) as engine:
        await context_of(engine, "one")
        await context_of(engine, "two")
        await context_of(engine, "two")
        assert len(server.request("GET", "/api/sandbox").json()["items"]) == before + 2
    assert len(server.request("GET", "/api/sandbox").json()["items"]) == before


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


async def test_contexts_of_a_server_that_was_restarted_are_made_anew_and_that_is_said(tmp_path: Path) -> None:
    port = str(free_port())
    with serving(tmp_path / "first", "--port", port) as first:
        engine = ToolboxEngine(first.url)
        await engine.start()
        context_id = await context_of(engine)
        await engine.execute(context_id, RunRequest(1, "x = 1"), Heard())
        running = asyncio.create_task(engine.execute(context_id, RunRequest(2, situations.SLEEP), heard := Heard()))
        await heard.something()
        first.process.kill()
        with pytest.raises(EngineUnavailable, match="connection"):
            await running
        with pytest.raises(EngineUnavailable):
            await engine.execute(context_id, RunRequest(3, "x"), Heard())
    with serving(tmp_path / "second", "--port", port):
        outcome = await engine.execute(context_id, RunRequest(4, "x"), Heard())
        assert outcome.error is not None
        assert outcome.error.name == "NameError"
        assert "restarted" in outcome.lost_before
        outcome = await engine.execute(context_id, RunRequest(5, "print(1)"), Heard())
        assert (outcome.status, outcome.lost_before) == (Status.OK, "")
        await engine.close()


async def test_a_sandbox_that_was_deleted_behind_its_back_is_made_anew(server: ToolboxServer) -> None:
    before = {item["id"] for item in server.request("GET", "/api/sandbox").json()["items"]}
    async with started(server.url) as engine:
        context_id = await context_of(engine)
        (made,) = {item["id"] for item in server.request("GET", "/api/sandbox").json()["items"]} - before
        assert server.request("DELETE", f"/api/sandbox/{made}").status_code == 200
        outcome = await engine.execute(context_id, RunRequest(1, "print(1)"), heard := Heard())
        assert (outcome.status, heard.output) == (Status.OK, b"1\n")
        assert outcome.lost_before


async def test_a_reader_that_is_slow_in_one_run_holds_back_no_other(server: ToolboxServer) -> None:
    release = asyncio.Event()

    async def wait() -> None:
        await release.wait()

    async with started(server.url) as engine:
        slow, quick = await context_of(engine), await context_of(engine)
        taken = 0

        def hold(chunk: Chunk) -> object:
            nonlocal taken
            taken += len(chunk.data) if isinstance(chunk, OutputChunk) else 0
            return wait()

        size = 8 * 1024 * 1024
        flood = RunRequest(1, f"print('x' * {size}, end='')")
        flooding = asyncio.create_task(engine.execute(slow, flood, hold))  # type: ignore[arg-type]  # it is awaitable
        for number in range(20):
            outcome = await engine.execute(quick, RunRequest(number, "print('y' * 100_000)"), heard := Heard())
            assert (outcome.status, len(heard.output)) == (Status.OK, 100_001)
        assert not flooding.done()
        release.set()
        assert (await flooding).status is Status.OK
        assert taken == size


async def test_what_is_printed_between_runs_arrives_also_on_a_second_connection(server: ToolboxServer) -> None:
    async with started(server.url) as engine:
        late = Heard()
        info = await engine.create(ContextSpec("sbx"), late)
        line = engine._line
        await line._client.close()  # type: ignore[attr-defined]  # as a network that fails does
        await engine.execute(info.context_id, RunRequest(1, situations.LATE), Heard())
        await late.something()
        assert late.output == b"from a thread\n"


async def test_a_server_that_is_not_there_or_wants_another_token_is_a_failed_setup(tmp_path: Path) -> None:
    with pytest.raises(SetupFailed, match="--url"):
        await ToolboxEngine("http://127.0.0.1:9").start()
    tokens = tmp_path / "tokens"
    tokens.touch(0o600)
    tokens.write_text("a-token-of-the-tests")
    with serving(tmp_path / "state", "--tokens", str(tokens), token="a-token-of-the-tests") as guarded:
        with pytest.raises(SetupFailed, match="--token-file"):
            await ToolboxEngine(guarded.url, "another").start()
        async with started(guarded.url, guarded.token) as engine:
            assert await context_of(engine)


async def test_a_server_is_told_that_its_sandboxes_are_in_use(
    server: ToolboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def activity() -> str:
        items = server.request("GET", "/api/sandbox").json()["items"]
        return max(str(item["lastActivityAt"]) for item in items)

    monkeypatch.setattr(client_engine, "KEEP_ALIVE_S", 0.05)
    async with started(server.url) as engine:
        await context_of(engine)
        at_first = activity()
        deadline = time.monotonic() + BOUND_S
        while activity() == at_first:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", ["toolbox", "daytona"])
async def test_mcp_is_served_over_a_toolbox_that_runs_elsewhere(server: ToolboxServer, kind: str) -> None:
    async with Client(stdio_parameters("--engine", kind, "--url", f"{server.url}/api")) as client:
        await client.call_tool("run_code", {"code": "x = 6 * 7"})
        result = await client.call_tool("run_code", {"code": "print('out'); x"})
        text = result.content[0].text  # type: ignore[union-attr]  # reports begin with text
        assert text.startswith("ok · run 2")
        assert "out" in text
        assert "42" in text


# -- by the plain protocol --------------------------------------------------------------------------------------------


def without_mux(app: ASGIApp) -> ASGIApp:
    """The application as a server that knows nothing of our extension."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and scope["path"].startswith("/toolbox/x/"):
            await JSONResponse({}, status_code=404)(scope, receive, send)
        else:
            await app(scope, receive, send)

    return answer


@pytest.fixture
async def plain(server: ToolboxServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ToolboxEngine]:
    async def offers_nothing(_engine: ToolboxEngine) -> None:
        return None

    monkeypatch.setattr(ToolboxEngine, "_server_info", offers_nothing)
    async with started(server.url) as engine:
        yield engine


async def test_a_server_without_the_mux_is_recognised() -> None:
    app = without_mux(toolbox_app(Service(ScriptedEngine(situations.SCRIPTS))))
    async with serving_app(app) as url, started(url) as engine:
        assert engine.capabilities.missing == PLAIN_GAPS
        outcome = await engine.execute(await context_of(engine), RunRequest(1, situations.PRINT_HI), heard := Heard())
        assert (outcome.status, heard.output) == (Status.OK, b"hi\n")


async def test_runs_variables_and_envs_by_the_plain_protocol(plain: ToolboxEngine) -> None:
    info = await plain.create(ContextSpec("sbx", envs={"COLOUR": "red"}), Heard())
    await plain.execute(info.context_id, RunRequest(1, "x = 1"), Heard())
    show = "import os; print(x, os.environ['COLOUR'], os.environ.get('SHAPE'))"
    await plain.execute(info.context_id, RunRequest(2, show, envs={"SHAPE": "round"}), heard := Heard())
    assert heard.output == b"1 red round\n"
    await plain.execute(info.context_id, RunRequest(3, show), heard := Heard())
    assert heard.output == b"1 red None\n"


async def test_failures_are_outcomes_by_the_plain_protocol(plain: ToolboxEngine) -> None:
    context_id = await context_of(plain)
    outcome = await plain.execute(context_id, RunRequest(1, "1 / 0"), Heard())
    assert outcome.status is Status.ERROR
    assert outcome.error is not None
    assert outcome.error.name == "ZeroDivisionError"
    outcome = await plain.execute(context_id, RunRequest(2, situations.SLEEP, timeout_s=1), Heard())
    assert outcome.status is Status.TIMEOUT
    outcome = await plain.execute(context_id, RunRequest(3, situations.ABORT), heard := Heard())
    assert (outcome.status, outcome.state) == (Status.CRASHED, State.RESET)
    assert heard.output.startswith(b"before\n")
    with pytest.raises(InvalidArgument):
        await plain.create(ContextSpec("sbx", cwd="/no/such/directory"), Heard())


async def test_an_interrupt_hangs_up_by_the_plain_protocol_and_the_variables_stay(plain: ToolboxEngine) -> None:
    context_id = await context_of(plain)
    await plain.execute(context_id, RunRequest(1, "x = 1"), Heard())
    running = asyncio.create_task(plain.execute(context_id, RunRequest(2, situations.SLEEP), heard := Heard()))
    await heard.something()
    assert await plain.interrupt(context_id, Status.INTERRUPTED)
    assert (await running).status is Status.INTERRUPTED
    await plain.execute(context_id, RunRequest(3, "print(x)"), heard := Heard())
    assert heard.output == b"1\n"


async def test_a_context_that_was_deleted_is_unknown_by_the_plain_protocol(plain: ToolboxEngine) -> None:
    context_id = await context_of(plain)
    await plain.delete(context_id)
    with pytest.raises(UnknownContext):
        await plain.execute(context_id, RunRequest(1, "pass"), Heard())


async def test_a_context_that_the_server_lost_is_made_anew_by_the_plain_protocol(
    plain: ToolboxEngine, server: ToolboxServer
) -> None:
    context_id = await context_of(plain)
    remote = plain._contexts[context_id].remote_id
    place = plain._places["sbx"].remote
    assert place is not None
    server.request("DELETE", f"/toolbox/{place.sandbox_id}/process/interpreter/context/{remote}")
    outcome = await plain.execute(context_id, RunRequest(1, "print(1)"), heard := Heard())
    assert (outcome.status, heard.output) == (Status.OK, b"1\n")
    assert outcome.lost_before
