"""The engines that the contract is held against."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from mcp_server.engine.base import Engine
from mcp_server.engine.scripted import ScriptedEngine
from tests.contract import situations


@pytest.fixture(params=["scripted"])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    match request.param:
        case "scripted":
            yield ScriptedEngine(situations.SCRIPTS)
        case unknown:
            raise ValueError(unknown)
