"""What an observer of the service hears, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from mcp_server.engine.scripted import Block, Fail, Result, ScriptedEngine, Step, Write
from mcp_server.errors import CallerError, CodeInterpreterError, LimitReached, UnknownContext
from mcp_server.model import ContextInfo, ContextSpec, Conversation, Outcome, Report, RunCall
from mcp_server.service import Service, ServiceLimits, ServiceObserver
from mcp_server.service.observer import RunKey

pytestmark = pytest.mark.anyio

ANN = Conversation("ann")


class Listener(ServiceObserver):
    """Writes down all that it hears, in short."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.began = asyncio.Event()

    def context_created(self, owner: Conversation, info: ContextInfo, spec: ContextSpec, *, default: bool) -> None:
        self.heard.append("created default" if default else "created")

    def context_deleted(self, owner: Conversation, context_id: str) -> None:
        self.heard.append("deleted")

    def run_queued(self, run: RunKey, call: RunCall, *, streamed: bool) -> None:
        self.heard.append(f"{run.number} queued{' to stream' if streamed else ''} {call.code}")

    def run_began(self, run: RunKey) -> None:
        self.heard.append(f"{run.number} began")
        self.began.set()

    def run_ended(self, run: RunKey, outcome: Outcome) -> None:
        self.heard.append(f"{run.number} ended {outcome.status}")

    def run_failed(self, run: RunKey, error: CodeInterpreterError) -> None:
        self.heard.append(f"{run.number} failed {type(error).__name__}")

    def report_given(self, run: RunKey, report: Report) -> None:
        self.heard.append(f"{run.number} reported {report.record['status']}")

    def call_refused(self, owner: Conversation, error: CallerError) -> None:
        self.heard.append(f"refused {type(error).__name__}")


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
async def service(listener: Listener) -> AsyncIterator[Service]:
    scripts: dict[str, list[Step]] = {
        "1": [Result("1")],
        "no": [Fail("ValueError", "no")],
        "block": [Write(b"first\n"), Block()],
    }
    # The second observer overrides nothing, and disturbs nothing.
    service = Service(ScriptedEngine(scripts), ServiceLimits(contexts=1), [listener, ServiceObserver()])
    await service.start()
    yield service
    await service.close()


async def test_a_run_is_heard_of_from_the_queue_to_its_report(service: Service, listener: Listener) -> None:
    await service.run(RunCall(ANN, "1"))
    await service.run(RunCall(ANN, "no"))
    await service.close_conversation(ANN)
    assert listener.heard == [
        *("created default", "1 queued 1", "1 began", "1 ended ok", "1 reported ok"),
        *("2 queued no", "2 began", "2 ended error", "2 reported error", "deleted"),
    ]


async def test_a_run_that_yields_gives_two_reports(service: Service, listener: Listener) -> None:
    await service.run(RunCall(ANN, "block", wait_s=0))
    await service.run(RunCall(ANN, "", interrupt=True))
    heard = [event for event in listener.heard if "reported" in event or "ended" in event]
    assert heard[0] in ("1 reported queued", "1 reported running")
    assert heard[1:] == ["1 ended interrupted", "1 reported interrupted"]


async def test_runs_that_end_with_their_context_are_heard_of(service: Service, listener: Listener) -> None:
    running = asyncio.create_task(service.run(RunCall(ANN, "block")))
    await asyncio.wait_for(listener.began.wait(), 10)
    waiting = asyncio.create_task(service.run(RunCall(ANN, "1")))
    await asyncio.sleep(0)  # it stands in the queue
    await service.close_conversation(ANN)
    await running
    with pytest.raises(UnknownContext):
        await waiting
    assert "1 ended cancelled" in listener.heard
    assert "2 failed UnknownContext" in listener.heard
    assert "2 began" not in listener.heard


async def test_a_streamed_run_has_no_report(service: Service, listener: Listener) -> None:
    await service.stream(RunCall(ANN, "1"), lambda _: None)
    assert listener.heard == ["created default", "1 queued to stream 1", "1 began", "1 ended ok"]


async def test_refusals_are_heard_of(service: Service, listener: Listener) -> None:
    await service.create_context(ANN)
    with pytest.raises(LimitReached):
        await service.create_context(ANN)
    with pytest.raises(UnknownContext):
        await service.run(RunCall(ANN, "1", context_id="ctx_none"))
    assert listener.heard == ["created", "refused LimitReached", "refused UnknownContext"]
