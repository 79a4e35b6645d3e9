"""The local engine with real workers."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mcp_server.engine.local import LocalEngine
from mcp_server.model import ContextSpec, EngineCapabilities
from mcp_server.sandbox.cell import Cell
from mcp_server.sandbox.policy import CellPlan
from tests.bench import Bench, Listener


@pytest.fixture
async def local_engine(tmp_path: Path) -> AsyncIterator[LocalEngine]:
    plan = CellPlan(sys.executable, str(tmp_path / "state"), spare_workers=0)  # tests count descriptors
    engine = LocalEngine(lambda: Cell(plan), EngineCapabilities("local", plan.tier))
    await engine.start()
    yield engine
    await engine.close()


@pytest.fixture
async def bench(local_engine: LocalEngine) -> Bench:
    late = Listener()
    info = await local_engine.create(ContextSpec("sbx_test"), late)
    return Bench(local_engine, info.context_id, late)
