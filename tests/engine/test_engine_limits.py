"""Limits as the engine reports them: each with its own status, and the context usable afterwards."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mcp_server.engine.local import LocalEngine
from mcp_server.model import ContextSpec, EngineCapabilities, State, Status
from mcp_server.sandbox.cell import Cell
from mcp_server.sandbox.limits import Ceilings
from mcp_server.sandbox.policy import CellPlan, Limits, Tier
from mcp_server.sandbox.probe import probe
from tests.bench import Bench, Listener

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
BEST_TIER = probe(sys.executable).tier


@pytest.fixture(params=sorted({Tier.NONE, BEST_TIER}))
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    limits = Limits(data_bytes=300 * MIB, file_bytes=MIB, open_files=64, cpu_s=0, disk_bytes=16 * MIB)
    plan = CellPlan(python=sys.executable, state_dir=str(tmp_path / "state"), tier=request.param, limits=limits)
    engine = LocalEngine(
        lambda: Cell(plan), EngineCapabilities("local", plan.tier), ceilings=Ceilings(400 * MIB, processes=48)
    )
    await engine.start()
    late = Listener()
    info = await engine.create(ContextSpec("sbx_test"), late)
    yield Bench(engine, info.context_id, late)
    await engine.close()


async def lives(bench: Bench) -> None:
    outcome, heard = await bench.run("6 * 7")
    assert (outcome.status, heard.result()) == (Status.OK, "42")


async def test_one_process_that_wants_too_much_gets_a_memory_error_and_keeps_its_context(bench: Bench) -> None:
    await bench.run("x = 41")
    outcome, _ = await bench.run("data = bytearray(10**9)")
    assert (outcome.status, outcome.state) == (Status.ERROR, State.KEPT)
    assert outcome.error is not None
    assert outcome.error.name == "MemoryError"
    assert (await bench.run("x"))[1].result() == "41"


async def test_many_processes_that_want_too_much_together_are_out_of_memory(bench: Bench) -> None:
    outcome, _ = await bench.run(
        "import os, time\n"
        "for _ in range(4):\n"
        "    if os.fork() == 0:\n"
        "        data = bytearray(150 * 1024 * 1024)\n"
        "        for start in range(0, len(data), 4096): data[start] = 1\n"
        "        time.sleep(600)\n"
        "data = bytearray(150 * 1024 * 1024)\n"
        "for start in range(0, len(data), 4096): data[start] = 1\n"
        "os.wait()\n"
        "raise SystemExit(9)",
        timeout_s=60,
    )
    if outcome.status is Status.OK:  # the kernel took a child: only that was too much
        assert outcome.exit_code == 9
    else:
        assert (outcome.status, outcome.state) == (Status.OUT_OF_MEMORY, State.RESET)
        assert "memory" in outcome.detail
    await lives(bench)


async def test_a_file_over_the_limit_is_an_error(bench: Bench) -> None:
    outcome, _ = await bench.run("open('big', 'wb').write(b'x' * 2_000_000)")
    assert outcome.status is Status.ERROR
    assert outcome.error is not None
    assert outcome.error.name == "OSError"
    await lives(bench)


async def test_too_many_open_files_are_an_error_and_the_context_goes_on(bench: Bench) -> None:
    outcome, _ = await bench.run("files = [open('/dev/null') for _ in range(500)]")
    assert outcome.status is Status.ERROR
    assert outcome.error is not None
    assert "Too many open files" in outcome.error.message
    outcome, _ = await bench.run("files = None")
    assert outcome.status is Status.OK
    await lives(bench)


async def test_a_fork_bomb_ends_and_its_context_is_usable(bench: Bench) -> None:
    outcome, _ = await bench.run(
        "import os, time\n"
        "made = 0\n"
        "try:\n"
        "    while made < 400:\n"
        "        if os.fork() == 0: time.sleep(600)\n"
        "        made += 1\n"
        "except OSError as error: print('refused after', made)\n",
        timeout_s=60,
    )
    assert outcome.status in (Status.OK, Status.CRASHED, Status.OUT_OF_MEMORY)
    assert (outcome.status is Status.OK) == (outcome.state is State.KEPT)
    if outcome.status is Status.CRASHED:
        assert "processes" in outcome.detail
    if outcome.state is State.RESET:
        await lives(bench)


async def test_a_full_disk_is_an_error_where_the_sandbox_has_one_of_its_own(bench: Bench) -> None:
    if bench.engine.capabilities.tier not in (Tier.STRONG, Tier.STRONG_CELL):
        pytest.skip("this tier has no file system of its own")
    outcome, _ = await bench.run("for number in range(32): open(f'part-{number}', 'wb').write(b'x' * 1_000_000)")
    assert outcome.status is Status.ERROR
    assert outcome.error is not None
    assert "No space left" in outcome.error.message
    await lives(bench)
