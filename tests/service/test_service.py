"""The service's law, over the scripted engine: who may use what, what runs when, and whose report is due."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from mcp_server.engine.scripted import (
    Assign,
    Block,
    Die,
    Fail,
    Recall,
    Result,
    ScriptedEngine,
    Step,
    Write,
    WriteLate,
)
from mcp_server.errors import CallerError, InvalidArgument, LimitReached, NothingToReport, UnknownContext
from mcp_server.model import Conversation, Progress, Report, RunCall, Status
from mcp_server.service import Service, ServiceLimits

pytestmark = pytest.mark.anyio

ANN = Conversation("ann")
BOB = Conversation("bob")
NOBODY = Conversation()

SCRIPTS: dict[str, list[Step]] = {
    "hello": [Write(b"hello\n")],
    "x = 1": [Assign("x", "1")],
    "x": [Recall("x")],
    "1 / 0": [Fail("ZeroDivisionError", "division by zero")],
    "block": [Write(b"first\n"), Block()],
    "stubborn": [Block(stubborn=True)],
    "die": [Die(signal=11)],
    "late": [WriteLate(b"from a thread\n")],
    "flood": [Write(b"line %d\n" % number) for number in range(50_000)],
    "1": [Result("1")],
}


class Watcher:
    """Takes progress, and lets a test wait for a state of the run."""

    def __init__(self) -> None:
        self.seen: list[Progress] = []
        self._news = asyncio.Event()

    def __call__(self, progress: Progress) -> None:
        self.seen.append(progress)
        self._news.set()

    async def until(self, holds: Callable[[Progress], bool]) -> None:
        async with asyncio.timeout(10):
            while not any(holds(progress) for progress in self.seen):
                self._news.clear()
                await self._news.wait()

    async def running(self) -> None:
        await self.until(lambda progress: progress.status is Status.RUNNING and progress.last_line == "first")


class WatchedEngine(ScriptedEngine):
    """A scripted engine that lets a test wait until a context has been deleted."""

    def __init__(self) -> None:
        super().__init__(SCRIPTS)
        self._deletions: dict[str, asyncio.Event] = {}

    async def delete(self, context_id: str) -> None:
        await super().delete(context_id)
        self._deletion(context_id).set()

    async def deleted(self, context_id: str) -> None:
        async with asyncio.timeout(20):
            await self._deletion(context_id).wait()

    def _deletion(self, context_id: str) -> asyncio.Event:
        return self._deletions.setdefault(context_id, asyncio.Event())


class Desk:
    """A service, and short ways to use it."""

    def __init__(self, service: Service, engine: WatchedEngine) -> None:
        self.service = service
        self.engine = engine

    async def run(self, code: str, conversation: Conversation = ANN, **arguments: Any) -> Report:
        return await self.service.run(RunCall(conversation, code, **arguments))

    async def begin(self, code: str, conversation: Conversation = ANN, **arguments: Any) -> asyncio.Task[Report]:
        """The task of a call whose code is running and has printed its first line."""
        watcher = Watcher()
        task = asyncio.create_task(self.service.run(RunCall(conversation, code, **arguments), watcher))
        await watcher.running()
        return task


@pytest.fixture
def limits() -> ServiceLimits:
    return ServiceLimits()


@pytest.fixture
async def desk(limits: ServiceLimits) -> AsyncIterator[Desk]:
    engine = WatchedEngine()
    service = Service(engine, limits)
    await service.start()
    yield Desk(service, engine)
    await service.close()


# -- the default context and the handles ------------------------------------------------------------------------------


async def test_without_a_handle_a_conversation_uses_its_default_context(desk: Desk) -> None:
    first = await desk.run("x = 1")
    second = await desk.run("x")
    assert first.record["context_id"] == second.record["context_id"]
    assert (first.record["run"], second.record["run"]) == (1, 2)
    assert "1" in second.text


async def test_conversations_do_not_share_their_default_contexts(desk: Desk) -> None:
    await desk.run("x = 1")
    report = await desk.run("x", BOB)
    assert report.record["status"] == "error"


async def test_two_first_calls_at_once_make_one_default_context(desk: Desk) -> None:
    reports = await asyncio.gather(*(desk.run("hello") for _ in range(5)))
    assert len({report.record["context_id"] for report in reports}) == 1


async def test_the_default_context_is_not_listed_and_cannot_be_deleted(desk: Desk) -> None:
    report = await desk.run("hello")
    assert await desk.service.list_contexts(ANN) == []
    with pytest.raises(InvalidArgument, match="default"):
        await desk.service.delete_context(ANN, report.record["context_id"])
    assert (await desk.run("hello")).record["run"] == 2


async def test_where_no_conversation_is_known_each_call_gets_a_context_that_its_report_names(desk: Desk) -> None:
    first = await desk.run("x = 1", NOBODY)
    second = await desk.run("hello", NOBODY)
    handle = first.record["context_id"]
    assert handle != second.record["context_id"]
    assert handle in first.text.splitlines()[0]
    assert "1" in (await desk.run("x", NOBODY, context_id=handle)).text
    assert await desk.service.list_contexts(NOBODY) == []


async def test_contexts_are_listed_for_their_own_conversation_alone(desk: Desk) -> None:
    made = [await desk.service.create_context(ANN) for _ in range(2)]
    await desk.service.create_context(BOB)
    listed = await desk.service.list_contexts(ANN)
    assert [record.context_id for record in listed] == [record.context_id for record in made]
    assert all(record.activity == "idle" and record.runs == 0 for record in listed)


async def test_a_handle_of_another_principal_is_as_unknown_as_one_that_never_was(desk: Desk) -> None:
    ann, bob = Conversation("a", principal="ann"), Conversation("b", principal="bob")
    made = await desk.service.create_context(ann)
    messages = []
    for handle in (made.context_id, "ctx_" + "A" * 22):
        with pytest.raises(UnknownContext) as caught:
            await desk.run("hello", bob, context_id=handle)
        messages.append(str(caught.value).replace(handle, "HANDLE"))
        with pytest.raises(UnknownContext):
            await desk.service.delete_context(bob, handle)
    assert messages[0] == messages[1]
    assert "create_context" in messages[0]
    assert (await desk.run("hello", ann, context_id=made.context_id)).record["status"] == "ok"


async def test_without_authentication_the_handle_itself_is_the_right_to_use_it(desk: Desk) -> None:
    made = await desk.service.create_context(ANN)
    assert (await desk.run("hello", BOB, context_id=made.context_id)).record["status"] == "ok"


async def test_a_deleted_context_is_unknown(desk: Desk) -> None:
    made = await desk.service.create_context(ANN)
    await desk.service.delete_context(ANN, made.context_id)
    with pytest.raises(UnknownContext):
        await desk.run("hello", context_id=made.context_id)
    assert await desk.service.list_contexts(ANN) == []


# -- limits and arguments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [ServiceLimits(contexts_per_conversation=2, contexts=3)])
async def test_contexts_are_limited_per_conversation_and_per_server(desk: Desk) -> None:
    for _ in range(2):
        made = await desk.service.create_context(ANN)
    with pytest.raises(LimitReached, match="delete_context"):
        await desk.service.create_context(ANN)
    with pytest.raises(LimitReached):
        await desk.run("hello")
    await desk.service.create_context(BOB)
    with pytest.raises(LimitReached, match="server"):
        await desk.service.create_context(BOB)
    await desk.service.delete_context(ANN, made.context_id)
    await desk.service.create_context(BOB)


@pytest.mark.parametrize("limits", [ServiceLimits(contexts_per_conversation=3)])
async def test_creating_at_once_cannot_get_past_the_limit(desk: Desk) -> None:
    outcomes = await asyncio.gather(*(desk.service.create_context(ANN) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(outcome, LimitReached) for outcome in outcomes) == 5
    assert len(await desk.service.list_contexts(ANN)) == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"timeout_s": -1.0}, "timeout"),
        ({"timeout_s": float("nan")}, "timeout"),
        ({"wait_s": -0.1}, "wait"),
        ({"max_output_chars": 3}, "max_output_chars"),
        ({"max_output_chars": 10**9}, "max_output_chars"),
        ({"envs": {"A=B": "1"}}, "A=B"),
        ({"envs": {"": "1"}}, "envs"),
        ({"envs": {"A": "\0"}}, "envs"),
        ({"envs": {"A": 1}}, "envs"),
        ({"envs": {"A": "x" * 2_000_000}}, "limit"),
        ({"context_id": "ctx_unknown"}, "create_context"),
    ],
)
async def test_a_bad_argument_is_refused_with_its_name_and_changes_nothing(
    desk: Desk, arguments: dict[str, Any], told: str
) -> None:
    with pytest.raises(CallerError, match=told):
        await desk.run("x = 1", **arguments)
    assert (await desk.run("x")).record["run"] == 1


async def test_code_over_four_mebibytes_is_refused(desk: Desk) -> None:
    with pytest.raises(InvalidArgument, match="4,194,304"):
        await desk.run("#" * (4 * 1024 * 1024 + 1))


async def test_empty_code_with_nothing_running_is_refused(desk: Desk) -> None:
    for code in ("", "  \n"):
        with pytest.raises(NothingToReport):
            await desk.run(code)
    with pytest.raises(InvalidArgument):
        await desk.run("", NOBODY)


async def test_a_cwd_that_cannot_be_a_path_is_refused(desk: Desk) -> None:
    with pytest.raises(InvalidArgument, match="cwd"):
        await desk.service.create_context(ANN, cwd="a\0b")


# -- yielding and waiting ---------------------------------------------------------------------------------------------


async def test_a_call_yields_after_its_wait_and_empty_code_returns_what_is_new(desk: Desk) -> None:
    call = await desk.begin("block", wait_s=0.3)
    report = await call
    assert report.record["status"] == "running"
    assert "first" in report.text
    rest = await desk.run("", interrupt=True)
    assert (rest.record["status"], rest.record["run"], rest.record["state"]) == ("interrupted", 1, "kept")
    assert "first" not in rest.text
    with pytest.raises(NothingToReport):
        await desk.run("")


async def test_a_queued_call_that_yields_says_so_and_runs_in_its_turn(desk: Desk) -> None:
    blocking = await desk.begin("block")
    queued = await desk.run("hello", wait_s=0)
    assert queued.record["status"] == "queued"
    assert "hello" not in queued.text.splitlines()[1:]
    await desk.engine.interrupt(queued.record["context_id"], Status.INTERRUPTED)
    assert (await blocking).record["status"] == "interrupted"
    report = await desk.run("")
    assert (report.record["run"], report.record["status"]) == (2, "ok")
    assert "hello" in report.text


async def test_runs_of_one_context_queue_in_order(desk: Desk) -> None:
    blocking = await desk.begin("block")
    calls = [asyncio.create_task(desk.run("hello")) for _ in range(5)]
    await asyncio.sleep(0)
    await desk.engine.interrupt((await desk.run("1", wait_s=0)).record["context_id"], Status.INTERRUPTED)
    await blocking
    assert [(await call).record["run"] for call in calls] == [2, 3, 4, 5, 6]


async def test_every_call_that_waits_for_a_run_gets_its_end(desk: Desk) -> None:
    await (await desk.begin("block", wait_s=0.3))
    waiting = [asyncio.create_task(desk.run("")) for _ in range(3)]
    await asyncio.sleep(0)
    stopped = await desk.run("", interrupt=True)
    reports = [await call for call in waiting] + [stopped]
    assert {report.record["status"] for report in reports} == {"interrupted"}
    assert {report.record["run"] for report in reports} == {1}


async def test_the_next_report_says_which_one_is_still_due(desk: Desk) -> None:
    await (await desk.begin("block", wait_s=0.3))
    report = await desk.run("hello", interrupt=True)
    assert report.record["run"] == 2
    assert "The report of run 1 is still due: run_code with empty code returns it." in report.text
    assert (await desk.run("")).record["run"] == 1


async def test_the_next_report_says_which_ones_are_still_due(desk: Desk) -> None:
    blocking = await desk.begin("block", wait_s=0.3)
    await desk.run("hello", wait_s=0)
    await blocking
    report = await desk.run("hello", interrupt=True)
    assert "The reports of runs 1, 2 are still due: run_code with empty code returns the oldest." in report.text
    assert [(await desk.run("")).record["run"] for _ in range(2)] == [1, 2]


async def test_a_timeout_keeps_the_variables_and_says_so(desk: Desk) -> None:
    await desk.run("x = 1")
    report = await desk.run("block", timeout_s=0.05)
    assert (report.record["status"], report.record["state"]) == ("timeout", "kept")
    assert "first" in report.text
    assert "1" in (await desk.run("x")).text


async def test_a_reset_is_said_in_its_own_report_and_in_the_next(desk: Desk) -> None:
    await desk.run("x = 1")
    report = await desk.run("die")
    assert (report.record["status"], report.record["state"]) == ("crashed", "reset")
    following = await desk.run("hello")
    assert "reset before this run" in following.text
    assert "reset" not in (await desk.run("hello")).text


async def test_late_output_is_shown_with_the_next_report(desk: Desk) -> None:
    report = await desk.run("late")
    assert "from a thread" not in report.text
    assert "from a thread" in (await desk.run("hello")).text
    assert "from a thread" not in (await desk.run("hello")).text


async def test_late_output_is_told_once_by_a_run_that_yields(desk: Desk) -> None:
    await desk.run("late")
    yielded = await desk.run("block", wait_s=0.3)
    assert yielded.record["status"] == "running"
    assert "from a thread" in yielded.text
    assert yielded.record["late"]["total_chars"] == len("from a thread\n")
    ended = await desk.run("", interrupt=True)
    assert ended.record["status"] == "interrupted"
    assert "from a thread" not in ended.text
    assert "late" not in ended.record


async def test_a_report_holds_to_its_calls_budget(desk: Desk) -> None:
    report = await desk.run("flood", max_output_chars=1_000)
    assert len(report.text) <= 1_000
    assert "line 0" in report.text
    assert "line 49999" in report.text
    whole = await desk.run("flood", max_output_chars=1_000_000)
    assert "line 25000" in whole.text


# -- cancelling -------------------------------------------------------------------------------------------------------


async def test_cancelling_a_call_interrupts_its_run_and_keeps_the_variables(desk: Desk) -> None:
    await desk.run("x = 1")
    call = await desk.begin("block")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    report = await desk.run("x")
    assert report.record["run"] == 3
    assert "1" in report.text


async def test_cancelling_one_of_two_waiting_calls_only_detaches_it(desk: Desk) -> None:
    await (await desk.begin("block", wait_s=0.3))
    staying = asyncio.create_task(desk.run(""))
    leaving = asyncio.create_task(desk.run(""))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert (await desk.run("", wait_s=0)).record["status"] == "running"
    staying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await staying
    assert (await desk.run("hello")).record["status"] == "ok"


async def test_cancelling_a_queued_call_takes_it_from_the_queue(desk: Desk) -> None:
    blocking = await desk.begin("block")
    queued = asyncio.create_task(desk.run("x = 1"))
    await asyncio.sleep(0)
    queued.cancel()
    with pytest.raises(asyncio.CancelledError):
        await queued
    report = await desk.run("x", interrupt=True)
    assert (await blocking).record["status"] == "interrupted"
    assert report.record["status"] == "error"


async def test_a_run_that_a_call_yielded_goes_on_without_any_client(desk: Desk) -> None:
    await (await desk.begin("block", wait_s=0.3))
    report = await desk.run("", wait_s=0)
    assert report.record["status"] == "running"


async def test_deleting_a_context_ends_its_run_and_its_queue(desk: Desk) -> None:
    made = await desk.service.create_context(ANN)
    running = await desk.begin("block", context_id=made.context_id)
    queued = asyncio.create_task(desk.run("hello", context_id=made.context_id))
    await asyncio.sleep(0)
    await desk.service.delete_context(ANN, made.context_id)
    assert (await running).record["status"] == "cancelled"
    with pytest.raises(UnknownContext):
        await queued


# -- idle time and records --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [ServiceLimits(idle_expiry_s=0.05)])
async def test_an_idle_context_expires_and_a_running_one_does_not(desk: Desk) -> None:
    made = await desk.service.create_context(ANN)
    running = await desk.begin("block", context_id=made.context_id)
    other = await desk.service.create_context(ANN)
    await desk.engine.deleted(other.context_id)
    with pytest.raises(UnknownContext):
        await desk.run("hello", context_id=other.context_id)
    (left,) = await desk.service.list_contexts(ANN)
    assert (left.context_id, left.activity) == (made.context_id, "running")
    await desk.engine.interrupt(made.context_id, Status.INTERRUPTED)
    await running
    await desk.engine.deleted(made.context_id)
    assert await desk.service.list_contexts(ANN) == []


async def test_a_record_shows_what_is_running_since_when_and_its_last_line(desk: Desk) -> None:
    made = await desk.service.create_context(ANN)
    running = await desk.begin("block", context_id=made.context_id)
    (record,) = await desk.service.list_contexts(ANN)
    assert (record.activity, record.runs, record.last_line) == ("running", 1, "first")
    assert record.running_since is not None
    assert record.running_since >= made.created_at
    await desk.engine.interrupt(made.context_id, Status.INTERRUPTED)
    await running


async def test_progress_follows_a_call_from_the_queue_to_its_output(desk: Desk) -> None:
    blocking = await desk.begin("block")
    watcher = Watcher()
    queued = asyncio.create_task(desk.service.run(RunCall(ANN, "block"), watcher))
    await asyncio.sleep(0)
    await desk.run("1", wait_s=0, interrupt=True)
    await blocking
    await watcher.running()
    statuses = [progress.status for progress in watcher.seen]
    assert statuses == sorted(statuses, key=[Status.QUEUED, Status.RUNNING].index)
    await desk.run("1", wait_s=0, interrupt=True)
    assert (await queued).record["status"] == "interrupted"


async def test_closing_ends_what_runs(desk: Desk) -> None:
    running = await desk.begin("block")
    await desk.service.close()
    assert (await running).record["status"] == "cancelled"
