"""Closing an engine ends what it has, and what is only on its way."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from mcp_server.engine.local import LocalEngine
from mcp_server.errors import EngineUnavailable
from mcp_server.model import ContextSpec
from tests.bench import Listener

pytestmark = pytest.mark.anyio

PATIENCE_S = 30.0


async def test_a_context_that_is_taking_on_its_environment_while_the_engine_closes_is_refused(
    local_engine: LocalEngine, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    spec = ContextSpec("sbx_test", str(tmp_path), {"TZ": f":{gate}"})  # the C library reads the file that TZ names
    creating = asyncio.create_task(local_engine.create(spec, Listener()))
    async with asyncio.timeout(PATIENCE_S):
        writing = await asyncio.to_thread(os.open, gate, os.O_WRONLY)  # opens once the worker opens the other end
        try:
            await local_engine.close()
            with pytest.raises(EngineUnavailable):
                await creating
        finally:
            os.close(writing)
