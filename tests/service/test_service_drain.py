"""A service that is told to stop, one that is watched, and what one principal may have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from mcp_server.engine.scripted import Block, Die, Fail, Recall, ScriptedEngine, Step, Write
from mcp_server.errors import CallerError, EngineUnavailable, LimitReached
from mcp_server.model import Conversation, Progress, Report, RunCall
from mcp_server.service import Service, ServiceLimits, ServiceObserver
from mcp_server.service.limits import MAX_QUEUED_RUNS
from mcp_server.service.observer import RunKey

pytestmark = pytest.mark.anyio

ANN = Conversation("ann")

SCRIPTS: dict[str, list[Step]] = {
    "hello": [Write(b"hello\n")],
    "block": [Write(b"first\n"), Block()],
    "x": [Recall("x")],
    "1 / 0": [Fail("ZeroDivisionError", "division by zero")],
    "die": [Die(signal=11)],
}


class Told(ServiceObserver):
    """Keeps what it is told of output, times and limits."""

    def __init__(self) -> None:
        self.printed: list[int] = []
        self.created_s: list[float] = []
        self.limits: list[str] = []

    def run_printed(self, run: RunKey, output_bytes: int) -> None:
        self.printed.append(output_bytes)

    def context_took(self, context_id: str, elapsed_s: float) -> None:
        self.created_s.append(elapsed_s)

    def call_refused(self, owner: Conversation, error: CallerError) -> None:
        assert isinstance(error, LimitReached)
        self.limits.append(error.limit)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def service(told: Told) -> AsyncIterator[Service]:
    limits = ServiceLimits(contexts_per_conversation=2, contexts_per_principal=3, contexts=5)
    made = Service(ScriptedEngine(SCRIPTS), limits, [told, ServiceObserver()])
    await made.start()
    yield made
    await made.close()


async def begun(service: Service, code: str = "block", **more: object) -> asyncio.Task[Report]:
    """A call whose code has printed."""
    printed = asyncio.Event()

    def tell(progress: Progress) -> None:
        if progress.last_line:
            printed.set()

    task = asyncio.create_task(service.run(RunCall(ANN, code, **more), tell))  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        await printed.wait()
    return task


async def test_a_drain_takes_no_new_call_and_waits_for_those_that_are_on(service: Service) -> None:
    call = await begun(service)
    draining = asyncio.create_task(service.drain(3600))
    await asyncio.sleep(0)
    with pytest.raises(EngineUnavailable, match="stopping"):
        await service.run(RunCall(ANN, "hello"))
    with pytest.raises(EngineUnavailable, match="stopping"):
        await service.create_context(ANN)
    assert not draining.done()
    call.cancel()
    async with asyncio.timeout(10):
        await draining


async def test_a_drain_whose_time_is_up_interrupts_and_begins_nothing_that_waited(service: Service) -> None:
    running = await begun(service)
    waiting = asyncio.create_task(service.run(RunCall(ANN, "hello")))
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await service.drain(0)
    assert (await running).record["status"] == "interrupted"
    with pytest.raises(EngineUnavailable, match="stopping"):
        await waiting


async def test_a_drain_has_no_patience_with_runs_that_nobody_waits_for(service: Service) -> None:
    assert (await service.run(RunCall(ANN, "block", wait_s=0))).record["status"] in ("queued", "running")
    async with asyncio.timeout(10):
        await service.drain(3600)


async def test_a_service_that_does_nothing_is_drained_at_once(service: Service) -> None:
    await service.run(RunCall(ANN, "hello"))
    async with asyncio.timeout(10):
        await service.drain(3600)


async def test_contexts_of_a_principal_count_over_its_conversations_and_are_given_back(
    service: Service, told: Told
) -> None:
    mine = [Conversation(f"conversation {number}", "ann") for number in range(4)]
    made = [await service.create_context(conversation) for conversation in mine[:3]]
    with pytest.raises(LimitReached, match="You have 3 contexts in all your conversations"):
        await service.create_context(mine[3])
    await service.create_context(Conversation("conversation 0", "bob"))
    await service.delete_context(mine[0], made[0].context_id)
    await service.create_context(mine[3])
    with pytest.raises(LimitReached, match="You have 3"):
        await service.create_context(Conversation("another", "ann"))
    assert told.limits == ["contexts_per_principal"] * 2


async def test_a_principal_whose_contexts_could_not_be_made_is_not_charged_for_them(told: Told) -> None:
    class Failing(ScriptedEngine):
        fails = True

        async def create(self, *arguments):  # type: ignore[no-untyped-def]  # as its base
            if self.fails:
                raise EngineUnavailable("no")
            return await super().create(*arguments)

    engine = Failing(SCRIPTS)
    service = Service(engine, ServiceLimits(contexts_per_principal=1), [told])
    await service.start()
    mine = Conversation("one", "ann")
    for _ in range(3):
        with pytest.raises(EngineUnavailable):
            await service.create_context(mine)
    engine.fails = False
    await service.create_context(mine)
    await service.close()


async def test_without_a_principal_there_is_no_such_limit(service: Service, told: Told) -> None:
    for number in range(5):
        await service.create_context(Conversation(f"conversation {number}"))
    with pytest.raises(LimitReached, match="The server holds 5"):
        await service.create_context(Conversation("conversation 5"))
    assert told.limits == ["contexts"]


async def test_an_observer_hears_how_much_was_printed_and_how_long_a_context_took(service: Service, told: Told) -> None:
    for code in ("hello", "1 / 0", "die"):
        await service.run(RunCall(ANN, code))
    await service.stream(RunCall(ANN, "hello"), lambda _: None)
    assert told.printed == [6, 0, 0, 6]
    assert len(told.created_s) == 1
    assert told.created_s[0] >= 0


async def test_a_full_queue_is_a_limit_with_a_name(service: Service, told: Told) -> None:
    for _ in range(MAX_QUEUED_RUNS + 1):
        await service.run(RunCall(ANN, "block", wait_s=0))
    with pytest.raises(LimitReached, match="runs waiting"):
        await service.run(RunCall(ANN, "block", wait_s=0))
    assert told.limits == ["queued_runs"]
