"""A bare cell serves while the warm one loads its modules: nobody waits for them, and nobody's files are lost."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from mcp_server.engine.local import LocalEngine
from mcp_server.model import ContextSpec, EngineCapabilities, RunRequest, Status
from mcp_server.sandbox import probe
from mcp_server.sandbox.cell import Cell
from mcp_server.sandbox.policy import CellPlan, Tier, environment_for
from tests.bench import Listener

pytestmark = pytest.mark.anyio

PATIENCE_S = 30.0

LOADED = "import sys\n'slow_module' in sys.modules"

FIND_KEPT = "import glob, os\nglob.glob(os.environ['HOME'] + '/**/kept', recursive=True)"


class Made:
    """The cells that an engine asked for."""

    def __init__(self, plan: CellPlan) -> None:
        self.warm: list[Cell] = []
        self.bare: list[Cell] = []
        self._plan = plan

    def new_cell(self) -> Cell:
        self.warm.append(Cell(self._plan))
        return self.warm[-1]

    def new_bare_cell(self) -> Cell:
        self.bare.append(Cell(replace(self._plan, bare=True)))
        return self.bare[-1]


@asynccontextmanager
async def started(plan: CellPlan) -> AsyncIterator[tuple[LocalEngine, Made]]:
    made = Made(plan)
    capabilities = EngineCapabilities("local", plan.tier)
    engine = LocalEngine(made.new_cell, capabilities, new_bare_cell=made.new_bare_cell)
    await engine.start()
    try:
        yield engine, made
    finally:
        await engine.close()


async def context(engine: LocalEngine, sandbox: str) -> Callable[[str], Awaitable[str]]:
    """What runs code in a new context, and gives its result."""
    info = await engine.create(ContextSpec(sandbox), Listener())
    numbers = iter(range(1, 1_000))

    async def run(code: str) -> str:
        heard = Listener()
        outcome = await engine.execute(info.context_id, RunRequest(next(numbers), code), heard)
        assert outcome.status is Status.OK, outcome
        return heard.result()

    return run


def is_running(cell: Cell) -> bool:
    zygote = cell._zygote
    return zygote is not None and not zygote.ended.done()


class SlowModule:
    """A module in ``directory`` whose import takes until `release`."""

    def __init__(self, directory: Path) -> None:
        self._gate = directory / "gate"
        os.mkfifo(self._gate)
        (directory / "slow_module.py").write_text(f"open({os.fspath(self._gate)!r}).read()\n")

    async def release(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            (await asyncio.to_thread(open, self._gate, "w")).close()


@pytest.fixture
def slow_plan(tmp_path: Path) -> CellPlan:
    modules = tmp_path / "modules"
    modules.mkdir()
    environment = {**environment_for(sys.executable, {}), "PYTHONPATH": os.fspath(modules)}
    return CellPlan(sys.executable, str(tmp_path / "state"), preload=("slow_module",), environment=environment)


@pytest.fixture
def slow_module(slow_plan: CellPlan) -> SlowModule:
    return SlowModule(Path(slow_plan.environment["PYTHONPATH"]))


async def test_a_run_answers_before_the_module_is_loaded_and_later_conversations_find_it(
    slow_plan: CellPlan, slow_module: SlowModule
) -> None:
    async with started(slow_plan) as (engine, made), asyncio.timeout(PATIENCE_S):
        early = await context(engine, "sbx_early")
        assert await early("import sys\nopen('kept', 'w').close()\n'slow_module' in sys.modules") == "False"
        assert made.bare[0].warmth is not None
        assert made.bare[0].warmth.installed == ("slow_module",)
        assert made.warm[0].warmth is None

        await slow_module.release()
        await engine.warmed()
        late = await context(engine, "sbx_late")
        assert await late(LOADED) == "True"

        assert await early("'slow_module' in sys.modules") == "False"
        again = await context(engine, "sbx_early")
        assert "kept" in await again(FIND_KEPT)
        assert is_running(made.bare[0])

        await engine.delete_sandbox("sbx_early")
        assert not is_running(made.bare[0])
        assert await late("1 + 1") == "2"
        assert [len(made.bare), len(made.warm)] == [1, 1]


async def test_a_bare_cell_that_nobody_came_to_ends_when_the_warm_one_is_ready(
    slow_plan: CellPlan, slow_module: SlowModule
) -> None:
    async with started(slow_plan) as (engine, made), asyncio.timeout(PATIENCE_S):
        await slow_module.release()
        await engine.warmed()
        assert made.bare[0]._zygote is not None
        await made.bare[0]._zygote.ended
        assert await (await context(engine, "sbx_one"))(LOADED) == "True"


async def test_closing_while_the_warm_cell_loads_leaves_nothing(slow_plan: CellPlan, slow_module: SlowModule) -> None:
    async with asyncio.timeout(PATIENCE_S):
        async with started(slow_plan) as (engine, made):
            await context(engine, "sbx_one")
        assert not any(is_running(cell) for cell in (*made.bare, *made.warm))


async def test_a_bare_cell_too_has_one_thread_where_generators_are_loaded_for_a_seed(
    slow_plan: CellPlan, slow_module: SlowModule
) -> None:
    async with started(replace(slow_plan, random_seed=7)) as (_, made), asyncio.timeout(PATIENCE_S):
        assert made.bare[0].warmth is not None
        assert made.bare[0].warmth.threads == 1
        await slow_module.release()


async def test_where_the_warm_cell_cannot_be_had_the_bare_one_serves_on_and_the_log_says_why(
    slow_plan: CellPlan,
) -> None:
    (Path(slow_plan.environment["PYTHONPATH"]) / "slow_module.py").write_text("import os\nos._exit(9)\n")
    with structlog.testing.capture_logs() as log:
        async with started(slow_plan) as (engine, made), asyncio.timeout(PATIENCE_S):
            await engine.warmed()
            assert await (await context(engine, "sbx_one"))("1 + 1") == "2"
            assert await (await context(engine, "sbx_two"))("2 + 2") == "4"
            assert is_running(made.bare[0])
    (told,) = [entry for entry in log if entry["event"] == "cell.not_warm"]
    assert "exit code 9" in told["reason"]


async def test_a_module_that_cannot_be_imported_is_told_unless_nobody_asked_for_it(slow_plan: CellPlan) -> None:
    plan = replace(slow_plan, preload=("no_such_module", "another"), optional=frozenset({"another"}))
    with structlog.testing.capture_logs() as log:
        async with started(plan) as (engine, _), asyncio.timeout(PATIENCE_S):
            await engine.warmed()
    (told,) = [entry for entry in log if entry["event"] == "preload.failed"]
    assert told["module"] == "no_such_module"
    assert "ModuleNotFoundError" in told["reason"]


async def test_in_the_best_tier_too_the_first_run_does_not_wait_for_what_is_preloaded(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plan = CellPlan(
        sys.executable,
        str(tmp_path / "state"),
        Tier(probe.probe(sys.executable).tier),
        preload=("matplotlib", "no_such_module"),
        environment=environment_for(sys.executable, {}),
    )
    async with started(plan) as (engine, made), asyncio.timeout(PATIENCE_S):
        early = await context(engine, "sbx_early")
        assert await early("import sys\nopen('kept', 'w').close()\n'matplotlib' in sys.modules") == "False"
        assert made.bare[0].warmth is not None
        assert made.bare[0].warmth.installed == ("matplotlib",)
        await engine.warmed()
        assert await (await context(engine, "sbx_late"))("import sys\n'matplotlib' in sys.modules") == "True"
        again = await context(engine, "sbx_early")
        assert "kept" in await again(FIND_KEPT)
        await engine.delete_sandbox("sbx_early")
        assert not is_running(made.bare[0])
