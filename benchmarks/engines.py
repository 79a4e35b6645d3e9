"""Engines as the command line makes them, and small services over them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from mcp_server import composition
from mcp_server.engine.base import Engine
from mcp_server.model import Chunk, ContextSpec, Outcome, RunRequest, Status
from mcp_server.service import Service
from mcp_server.settings import Settings

BARE: tuple[str, ...] = ()

SPARES_SETTLE_S = 0.05
"""Between creations that shall find spares: many times what it takes to make one."""


def settings(**given: Any) -> Settings:
    """The defaults, but room for a thousand contexts in one conversation."""
    return Settings.load(**{"contexts_per_conversation": 5_000, "contexts": 5_000, **given})


@asynccontextmanager
async def started(
    *, spare_workers: int | None = None, spare_rooms: int | None = None, **given: Any
) -> AsyncIterator[Engine]:
    """An engine as `mcp-code-interpreter` starts it, in the best tier, but for how many it keeps ready."""
    engine, cells = composition.local_engine(settings(**given))
    if spare_workers is not None:
        cells._plan = replace(cells._plan, spare_workers=spare_workers)
    if spare_rooms is not None:
        cells._plan = replace(cells._plan, spare_rooms=spare_rooms)
    await engine.start()
    await engine.warmed()
    if cells.warmth is not None and cells.warmth.failed:
        raise RuntimeError(f"not everything could be preloaded: {dict(cells.warmth.failed)}")
    try:
        yield engine
    finally:
        await engine.close()


@asynccontextmanager
async def service(**given: Any) -> AsyncIterator[Service]:
    """A service over such an engine."""
    wanted = settings(**given)
    engine, _ = composition.local_engine(wanted)
    served = composition.service_over(engine, wanted)
    await served.start()
    await engine.warmed()
    try:
        yield served
    finally:
        await served.close()


def discard(_chunk: Chunk) -> None:
    """A sink for what nobody reads."""


class Contexts:
    """Makes and uses contexts of one engine, and keeps count of their runs."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._runs = 0
        self._sandboxes = 0

    def new_sandbox(self) -> str:
        self._sandboxes += 1
        return f"sbx_bench_{self._sandboxes}"

    async def create(self, sandbox: str = "sbx_bench") -> str:
        return (await self.engine.create(ContextSpec(sandbox), discard)).context_id

    async def run(self, context_id: str, code: str) -> Outcome:
        """Raises where the code does not end well."""
        self._runs += 1
        outcome = await self.engine.execute(context_id, RunRequest(self._runs, code), discard)
        if outcome.status is not Status.OK:
            raise RuntimeError(f"{code!r} ended with {outcome}")
        return outcome

    async def delete(self, *context_ids: str) -> None:
        await asyncio.gather(*(self.engine.delete(context_id) for context_id in context_ids))

    async def settle(self) -> None:
        """Let the engine do what it does between calls, such as making spares."""
        await asyncio.sleep(SPARES_SETTLE_S)
