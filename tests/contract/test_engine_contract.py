"""The law of `engine.base`, held against every engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from mcp_server.engine.base import Engine
from mcp_server.errors import UnknownContext
from mcp_server.model import (
    Chunk,
    ContextSpec,
    DisplayChunk,
    RunRequest,
    State,
    Status,
    Stream,
)
from tests.bench import Bench, Listener
from tests.contract import situations

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bench(engine: Engine) -> AsyncIterator[Bench]:
    await engine.start()
    late = Listener()
    info = await engine.create(ContextSpec("sbx_test"), late)
    yield Bench(engine, info.context_id, late)
    await engine.close()


async def test_a_context_has_an_opaque_handle_and_a_directory(engine: Engine, bench: Bench) -> None:
    info = await engine.create(ContextSpec("sbx_test"), Listener())
    assert info.context_id.startswith("ctx_")
    assert len(info.context_id) >= 26
    assert info.context_id != bench.context_id
    assert info.cwd.startswith("/")


async def test_output_arrives_whole_before_execute_returns(bench: Bench) -> None:
    outcome, heard = await bench.run(situations.PRINT_BOTH)
    assert outcome.status is Status.OK
    assert heard.output() == b"out\n"
    assert heard.output(Stream.STDERR) == b"err\n"


async def test_bytes_pass_as_they_are(bench: Bench) -> None:
    _, heard = await bench.run(situations.PRINT_LATIN_1)
    assert heard.output() == b"caf\xe9"


async def test_the_last_expression_is_the_result(bench: Bench) -> None:
    outcome, heard = await bench.run(situations.SUM)
    assert outcome.status is Status.OK
    assert heard.result() == "2"


async def test_a_result_comes_after_what_was_printed_before_it(bench: Bench) -> None:
    for _ in range(50):
        _, heard = await bench.run(situations.PRINT_AND_SUM)
        assert isinstance(heard.chunks[-1], DisplayChunk)
        assert len(heard.output()) == 1001


async def test_code_without_effect_ends_ok_and_shows_nothing(bench: Bench) -> None:
    outcome, heard = await bench.run(situations.NOTHING)
    assert (outcome.status, outcome.state, outcome.error) == (Status.OK, State.KEPT, None)
    assert heard.chunks == []
    assert outcome.elapsed_s >= 0


async def test_variables_stay_in_their_context(engine: Engine, bench: Bench) -> None:
    await bench.run(situations.SET_X)
    outcome, heard = await bench.run(situations.GET_X)
    assert outcome.status is Status.OK
    assert heard.result() == "41"
    other = await engine.create(ContextSpec("sbx_test"), Listener())
    outcome = await engine.execute(other.context_id, RunRequest(1, situations.GET_X), Listener())
    assert outcome.error is not None
    assert outcome.error.name == "NameError"


async def test_an_exception_is_data_and_the_context_goes_on(bench: Bench) -> None:
    await bench.run(situations.SET_X)
    outcome, _ = await bench.run(situations.DIVIDE)
    assert (outcome.status, outcome.state) == (Status.ERROR, State.KEPT)
    assert outcome.error is not None
    assert (outcome.error.name, outcome.error.message) == ("ZeroDivisionError", "division by zero")
    assert outcome.error.traceback.rstrip().endswith("ZeroDivisionError: division by zero")
    _, heard = await bench.run(situations.GET_X)
    assert heard.result() == "41"


async def test_exit_ends_the_run_and_not_the_context(bench: Bench) -> None:
    await bench.run(situations.SET_X)
    outcome, _ = await bench.run(situations.EXIT_3)
    assert (outcome.status, outcome.state, outcome.exit_code) == (Status.OK, State.KEPT, 3)
    _, heard = await bench.run(situations.GET_X)
    assert heard.result() == "41"


async def test_envs_hold_for_their_run_only(bench: Bench) -> None:
    _, heard = await bench.run(situations.SHOW_ENV, envs={"COLOUR": "blue"})
    assert heard.result() == "'blue'"
    _, heard = await bench.run(situations.SHOW_ENV)
    assert heard.result() == "''"


async def test_envs_of_a_context_hold_in_all_its_runs(engine: Engine, bench: Bench) -> None:
    info = await engine.create(ContextSpec("sbx_test", envs={"COLOUR": "red"}), Listener())
    heard = Listener()
    await engine.execute(info.context_id, RunRequest(1, situations.SHOW_ENV), heard)
    assert heard.result() == "'red'"


async def test_a_timeout_interrupts_and_keeps_the_variables(bench: Bench) -> None:
    await bench.run(situations.SET_X)
    outcome, heard = await bench.run(situations.SLEEP, timeout_s=0.5)
    assert (outcome.status, outcome.state) == (Status.TIMEOUT, State.KEPT)
    assert heard.output() == b"started\n"
    assert outcome.elapsed_s >= 0.5
    _, heard = await bench.run(situations.GET_X)
    assert heard.result() == "41"


async def test_an_interrupt_keeps_the_variables_and_names_its_reason(bench: Bench) -> None:
    await bench.run(situations.SET_X)
    running = await bench.run_until_started(situations.SLEEP)
    assert await bench.engine.interrupt(bench.context_id, Status.CANCELLED)
    outcome, _ = await running
    assert (outcome.status, outcome.state) == (Status.CANCELLED, State.KEPT)
    _, heard = await bench.run(situations.GET_X)
    assert heard.result() == "41"


async def test_an_interrupt_where_nothing_runs_does_nothing(bench: Bench) -> None:
    assert not await bench.engine.interrupt(bench.context_id, Status.INTERRUPTED)
    outcome, _ = await bench.run(situations.PRINT_HI)
    assert outcome.status is Status.OK


async def test_code_that_ignores_the_interrupt_loses_its_variables_and_that_is_said_twice(bench: Bench) -> None:
    await bench.run(situations.SET_X)
    running = await bench.run_until_started(situations.STUBBORN)
    await bench.engine.interrupt(bench.context_id, Status.INTERRUPTED)
    outcome, _ = await running
    assert (outcome.status, outcome.state) == (Status.INTERRUPTED, State.RESET)
    outcome, _ = await bench.run(situations.GET_X)
    assert outcome.error is not None
    assert outcome.error.name == "NameError"
    assert outcome.lost_before
    outcome, _ = await bench.run(situations.PRINT_HI)
    assert not outcome.lost_before


async def test_a_worker_that_is_killed_by_a_signal_is_a_crash(bench: Bench) -> None:
    outcome, heard = await bench.run(situations.ABORT)
    assert (outcome.status, outcome.state, outcome.signal) == (Status.CRASHED, State.RESET, 6)
    assert heard.output() == b"before\n"
    outcome, heard = await bench.run(situations.PRINT_HI)
    assert outcome.status is Status.OK
    assert outcome.lost_before
    assert heard.output() == b"hi\n"


async def test_a_worker_that_exits_is_a_crash_with_its_code(bench: Bench) -> None:
    outcome, heard = await bench.run(situations.EXIT_HARD)
    assert (outcome.status, outcome.exit_code, outcome.signal) == (Status.CRASHED, 7, None)
    assert heard.output() == b"before\n"


async def test_output_after_a_run_goes_to_the_contexts_late_sink(bench: Bench) -> None:
    outcome, heard = await bench.run(situations.LATE)
    assert outcome.status is Status.OK
    await bench.late.something()
    assert heard.output() == b""
    assert bench.late.output() == b"from a thread\n"


async def test_a_sink_that_wants_time_gets_it_and_all_of_the_output(bench: Bench) -> None:
    heard = Listener()
    waits = 0

    async def later() -> None:
        nonlocal waits
        await asyncio.sleep(0)
        waits += 1

    def slow(chunk: Chunk) -> object:
        heard(chunk)
        return later()

    request = RunRequest(1, situations.LONG)
    outcome = await bench.engine.execute(bench.context_id, request, slow)  # type: ignore[arg-type]  # a coroutine is awaitable
    assert outcome.status is Status.OK
    assert heard.output() == b"x" * 100_000 + b"\n"
    assert waits == len(heard.chunks)


async def test_a_sink_that_fails_ends_its_run_with_its_own_exception(bench: Bench) -> None:
    async def lost() -> None:
        await asyncio.sleep(0)
        raise ConnectionAbortedError("the reader went away")

    def failing(_chunk: Chunk) -> object:
        return lost()

    request = RunRequest(1, situations.SLEEP)
    with pytest.raises(ConnectionAbortedError):
        await bench.engine.execute(bench.context_id, request, failing)  # type: ignore[arg-type]  # a coroutine is awaitable
    outcome, heard = await bench.run(situations.PRINT_HI)
    assert (outcome.status, heard.output()) == (Status.OK, b"hi\n")


async def test_contexts_run_side_by_side(engine: Engine, bench: Bench) -> None:
    running = await bench.run_until_started(situations.SLEEP)
    other = await engine.create(ContextSpec("sbx_other"), Listener())
    outcome = await engine.execute(other.context_id, RunRequest(1, situations.PRINT_HI), Listener())
    assert outcome.status is Status.OK
    assert not running.done()
    await engine.interrupt(bench.context_id, Status.INTERRUPTED)
    assert (await running)[0].status is Status.INTERRUPTED


async def test_deleting_a_context_ends_its_run_as_cancelled_and_forgets_it(engine: Engine, bench: Bench) -> None:
    running = await bench.run_until_started(situations.SLEEP)
    await engine.delete(bench.context_id)
    assert (await running)[0].status is Status.CANCELLED
    with pytest.raises(UnknownContext):
        await bench.run(situations.PRINT_HI)
    await engine.delete(bench.context_id)


async def test_deleting_a_sandbox_deletes_its_contexts_and_no_others(engine: Engine, bench: Bench) -> None:
    other = await engine.create(ContextSpec("sbx_other"), Listener())
    await engine.delete_sandbox("sbx_test")
    with pytest.raises(UnknownContext):
        await bench.run(situations.PRINT_HI)
    outcome = await engine.execute(other.context_id, RunRequest(1, situations.PRINT_HI), Listener())
    assert outcome.status is Status.OK
    await engine.delete_sandbox("sbx_never_was")


async def test_an_unknown_context_is_the_callers_error(bench: Bench) -> None:
    with pytest.raises(UnknownContext):
        await bench.engine.execute("ctx_nobody", RunRequest(1, situations.PRINT_HI), Listener())


async def test_giving_up_an_execute_resets_the_context_and_it_is_usable_at_once(bench: Bench) -> None:
    await bench.run(situations.SET_X)
    running = await bench.run_until_started(situations.SLEEP)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    outcome, _ = await bench.run(situations.GET_X)
    assert outcome.error is not None
    assert outcome.error.name == "NameError"
    assert outcome.lost_before


async def test_closing_twice_is_closing_once(engine: Engine, bench: Bench) -> None:
    await engine.close()
    await engine.close()
