"""The engines that the contract is held against."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mcp_server.engine.base import Engine
from mcp_server.engine.local import LocalEngine
from mcp_server.engine.scripted import ScriptedEngine
from mcp_server.model import EngineCapabilities
from mcp_server.sandbox.cell import Cell
from mcp_server.sandbox.policy import CellPlan, Tier
from mcp_server.sandbox.probe import probe
from mcp_server.service import Service
from mcp_server.toolbox.client_engine import ToolboxEngine
from tests.contract import situations
from tests.toolbox.toolbox_server import serving, serving_here


def local_engine(plan: CellPlan) -> LocalEngine:
    return LocalEngine(lambda: Cell(plan), EngineCapabilities("local", plan.tier))


@pytest.fixture(scope="session")
def toolbox_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a toolbox server in another process, over an engine that runs code."""
    with serving(tmp_path_factory.mktemp("toolbox")) as server:
        yield server.url


@pytest.fixture(params=["scripted", "local", "local-strong", "local-strong-cell", "toolbox-here", "toolbox-elsewhere"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    match request.param:
        case "scripted":
            yield ScriptedEngine(situations.SCRIPTS)
        case "local":
            yield local_engine(CellPlan(python=sys.executable, state_dir=str(tmp_path / "state")))
        case "local-strong":
            yield local_engine(CellPlan(python=sys.executable, state_dir=str(tmp_path / "state"), tier=Tier.STRONG))
        case "local-strong-cell":
            if not probe().works("bubblewrap"):
                pytest.skip("bwrap builds no cell here")
            tier = Tier.STRONG_CELL
            yield local_engine(CellPlan(python=sys.executable, state_dir=str(tmp_path / "state"), tier=tier))
        case "toolbox-here":
            async with serving_here(Service(ScriptedEngine(situations.SCRIPTS))) as url:
                yield ToolboxEngine(url)
        case "toolbox-elsewhere":
            yield ToolboxEngine(request.getfixturevalue("toolbox_elsewhere"))
        case unknown:
            raise ValueError(unknown)
