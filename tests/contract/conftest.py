"""The engines that the contract is held against."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mcp_server.engine.base import Engine
from mcp_server.engine.local import LocalEngine
from mcp_server.engine.scripted import ScriptedEngine
from mcp_server.model import EngineCapabilities
from mcp_server.sandbox.cell import Cell
from mcp_server.sandbox.policy import CellPlan, Tier
from tests.contract import situations


def local_engine(plan: CellPlan) -> LocalEngine:
    return LocalEngine(lambda: Cell(plan), EngineCapabilities("local", plan.tier))


@pytest.fixture(params=["scripted", "local", "local-strong"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    match request.param:
        case "scripted":
            yield ScriptedEngine(situations.SCRIPTS)
        case "local":
            yield local_engine(CellPlan(python=sys.executable, state_dir=str(tmp_path / "state")))
        case "local-strong":
            yield local_engine(CellPlan(python=sys.executable, state_dir=str(tmp_path / "state"), tier=Tier.STRONG))
        case unknown:
            raise ValueError(unknown)
