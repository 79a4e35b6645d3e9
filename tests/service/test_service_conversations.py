"""Conversations that are opened and closed, and contexts whose chunks are streamed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from mcp_server.engine.scripted import Assign, Block, Recall, ScriptedEngine, ShowEnv, Step, Write, WriteLate
from mcp_server.errors import InvalidArgument, UnknownContext
from mcp_server.model import Chunk, ContextSpec, Conversation, DisplayChunk, OutputChunk, RunCall, Sink, Status
from mcp_server.service import Service
from mcp_server.service.context import LATE_RAW_BYTES

pytestmark = pytest.mark.anyio

ANN = Conversation("ann")

SCRIPTS: dict[str, list[Step]] = {
    "hello": [Write(b"hello\n")],
    "x = 1": [Assign("x", "1")],
    "x": [Recall("x")],
    "colour": [ShowEnv("COLOUR")],
    "block": [Write(b"first\n"), Block()],
    "late": [WriteLate(b"from a thread\n")],
    "flood late": [WriteLate(b"a" * LATE_RAW_BYTES), WriteLate(b"." * 7), WriteLate(b"z" * (LATE_RAW_BYTES // 2))],
}


class WatchedEngine(ScriptedEngine):
    """Says which sandboxes were removed, and can hold a creation back."""

    def __init__(self) -> None:
        super().__init__(SCRIPTS)
        self.removed: list[str] = []
        self.creating = asyncio.Event()
        self.may_create = asyncio.Event()
        self.may_create.set()

    async def create(self, spec: ContextSpec, late: Sink):  # type: ignore[no-untyped-def]  # as its base
        self.creating.set()
        await self.may_create.wait()
        return await super().create(spec, late)

    async def delete_sandbox(self, sandbox_id: str) -> None:
        self.removed.append(sandbox_id)
        await super().delete_sandbox(sandbox_id)


class Heard:
    """A sink that keeps what comes, and lets a test wait for it."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self._news = asyncio.Event()

    def __call__(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        self._news.set()

    async def something(self) -> None:
        async with asyncio.timeout(10):
            await self._news.wait()

    @property
    def output(self) -> bytes:
        return b"".join(chunk.data for chunk in self.chunks if isinstance(chunk, OutputChunk))

    @property
    def result(self) -> str:
        (shown,) = [chunk for chunk in self.chunks if isinstance(chunk, DisplayChunk)]
        return shown.representations[0].data.decode()


@pytest.fixture
def engine() -> WatchedEngine:
    return WatchedEngine()


@pytest.fixture
async def service(engine: WatchedEngine) -> AsyncIterator[Service]:
    service = Service(engine)
    await service.start()
    yield service
    await service.close()


async def stream(service: Service, code: str, context_id: str = "") -> Heard:
    heard = Heard()
    await service.stream(RunCall(ANN, code, context_id), heard)
    return heard


async def test_an_opened_conversation_keeps_its_sandbox_without_contexts(
    service: Service, engine: WatchedEngine
) -> None:
    service.open_conversation(ANN)
    made = await service.create_context(ANN)
    await service.delete_context(ANN, made.context_id)
    assert engine.removed == []
    await service.close_conversation(ANN)
    assert len(engine.removed) == 1


async def test_closing_a_conversation_ends_its_contexts_and_its_default_one(
    service: Service, engine: WatchedEngine
) -> None:
    service.open_conversation(ANN)
    made = await service.create_context(ANN)
    await stream(service, "x = 1")
    await service.close_conversation(ANN)
    assert len(engine.removed) == 1
    with pytest.raises(UnknownContext):
        await stream(service, "hello", made.context_id)
    assert "NameError" in str((await service.run(RunCall(ANN, "x"))).record)


async def test_closing_an_unknown_conversation_passes(service: Service) -> None:
    await service.close_conversation(Conversation("nobody"))


async def test_a_context_that_is_being_made_when_its_conversation_closes_does_not_stay(
    service: Service, engine: WatchedEngine
) -> None:
    service.open_conversation(ANN)
    engine.may_create.clear()
    creating = asyncio.create_task(service.create_context(ANN))
    await engine.creating.wait()
    await service.close_conversation(ANN)
    engine.may_create.set()
    with pytest.raises(UnknownContext):
        await creating
    assert len(engine.removed) == 1
    assert await service.list_contexts(ANN) == []


async def test_the_default_context_that_a_cancelled_call_began_is_that_of_the_next_call(
    service: Service, engine: WatchedEngine
) -> None:
    engine.may_create.clear()
    cancelled = asyncio.create_task(service.run(RunCall(ANN, "hello")))
    await engine.creating.wait()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    calls = [asyncio.create_task(service.run(RunCall(ANN, "hello"))) for _ in range(2)]
    for _ in range(10):  # time enough to begin another one
        await asyncio.sleep(0)
    engine.may_create.set()
    reports = [await call for call in calls]
    assert [report.record["run"] for report in reports] == [1, 2]
    assert len(await service.list_contexts(ANN, with_default=True)) == 1
    assert await service.list_contexts(ANN) == []


async def test_the_envs_of_a_conversation_are_in_every_context_of_it(service: Service) -> None:
    service.open_conversation(ANN, {"COLOUR": "red"})
    assert (await stream(service, "colour")).result == "'red'"
    made = await service.create_context(ANN)
    assert (await stream(service, "colour", made.context_id)).result == "'red'"
    own = await service.create_context(ANN, envs={"COLOUR": "blue"})
    assert (await stream(service, "colour", own.context_id)).result == "'blue'"


async def test_envs_that_no_environment_can_hold_are_refused(service: Service) -> None:
    with pytest.raises(InvalidArgument):
        service.open_conversation(ANN, {"A=B": "1"})


async def test_a_streamed_run_that_is_stopped_still_gives_its_outcome(service: Service) -> None:
    heard = Heard()
    stop = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(service.stream(RunCall(ANN, "block"), heard, stop))
    await heard.something()
    stop.set_result(None)
    assert (await running).status is Status.CANCELLED
    assert (await stream(service, "hello")).output == b"hello\n"


async def test_a_streamed_run_that_is_stopped_before_its_turn_never_begins(service: Service) -> None:
    heard, later = Heard(), Heard()
    loop = asyncio.get_running_loop()
    stop_running, stop_queued = loop.create_future(), loop.create_future()
    running = asyncio.create_task(service.stream(RunCall(ANN, "block"), heard, stop_running))
    await heard.something()
    queued = asyncio.create_task(service.stream(RunCall(ANN, "hello"), later, stop_queued))
    await asyncio.sleep(0)
    stop_queued.set_result(None)
    assert (await queued).status is Status.CANCELLED
    assert not running.done()
    assert later.chunks == []
    stop_running.set_result(None)
    await running


async def test_the_load_counts_contexts_against_what_there_may_be(service: Service) -> None:
    assert service.load == (0, 1_000)
    await service.create_context(ANN)
    assert service.load == (1, 1_000)


async def test_a_listener_takes_what_is_printed_between_runs_at_once(service: Service) -> None:
    made = await service.create_context(ANN)
    late = Heard()
    service.listen(ANN, made.context_id, late)
    await stream(service, "late", made.context_id)
    await late.something()
    assert late.output == b"from a thread\n"
    assert (await stream(service, "hello", made.context_id)).output == b"hello\n"


async def test_without_a_listener_the_next_streamed_run_begins_with_it(service: Service) -> None:
    await stream(service, "late")
    assert (await stream(service, "hello")).output == b"from a thread\nhello\n"
    assert (await stream(service, "hello")).output == b"hello\n"


async def test_what_was_too_much_to_keep_is_counted(service: Service) -> None:
    await stream(service, "flood late")
    output = (await stream(service, "hello")).output
    half = LATE_RAW_BYTES // 2
    said = b"\n[%d bytes printed between runs were left out]\n" % (half + 7)
    assert output == b"a" * half + said + b"z" * half + b"hello\n"
