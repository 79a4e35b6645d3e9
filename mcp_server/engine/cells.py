"""Which cell serves a sandbox: one for all, or each its own. Starts them, replaces lost ones, ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from mcp_server.errors import EngineUnavailable, SetupFailed
from mcp_server.sandbox.cell import Cell
from mcp_server.sandbox.limits import MemoryKeeper, Unlimited
from mcp_server.sandbox.spares import Spares

SPARE_CELLS = 1
"""Where each sandbox has a cell of its own: ready for the next one, as starting a cell starts an interpreter."""

FOR_ALL = ""
"""Stands for every sandbox where they share a cell."""

_log = structlog.get_logger(__name__)


class Cells:
    """The cells of an engine. ``new_cell`` makes an unstarted one, and so decides whether sandboxes share it.

    ``memory`` is what the workers of all of them are held by; it is set before `start`.
    """

    def __init__(self, new_cell: Callable[[], Cell]) -> None:
        self.memory: MemoryKeeper = Unlimited()
        self._new_cell = new_cell
        self._shared = True
        self._serving: dict[str, Cell] = {}
        self._coming: dict[str, asyncio.Task[Cell]] = {}
        self._alive: set[Cell] = set()
        self._spares = Spares(self._make_another, SPARE_CELLS)
        self._closed = False

    async def start(self) -> None:
        """Start the first cell, so that one that cannot be had is known now. Raises SetupFailed."""
        cell = await self._make()
        self._shared = not cell.is_sandbox
        if cell not in self._alive:  # it has ended already: the first context gets another, or the reason
            return
        if self._shared:
            self._serving[FOR_ALL] = cell
        else:
            self._spares.put(cell)

    async def serving(self, sandbox_id: str) -> Cell:
        """The cell of a sandbox, started where there is none. Raises EngineUnavailable. Safe to cancel."""
        if self._closed:
            raise EngineUnavailable("The engine is closed.")
        key = FOR_ALL if self._shared else sandbox_id
        cell = self._serving.get(key)
        if cell is not None:
            return cell
        coming = self._coming.get(key)
        if coming is None:
            coming = self._coming[key] = asyncio.get_running_loop().create_task(self._provide(key))
            coming.add_done_callback(lambda done: self._on_provided(key, done))
        return await asyncio.shield(coming)

    async def delete_sandbox(self, sandbox_id: str) -> None:
        """End what a sandbox has: its part of a cell, or its cell. Unknown ids pass."""
        key = FOR_ALL if self._shared else sandbox_id
        coming = self._coming.get(key)
        if coming is not None:
            await asyncio.wait([coming])
        cell = self._serving.get(key)
        if cell is None:
            return
        if self._shared:
            await cell.delete_sandbox(sandbox_id)
        else:
            del self._serving[key]
            await self._end(cell)

    def refuse(self) -> None:
        """Serve no sandbox any more: the end is near."""
        self._closed = True

    async def close(self) -> None:
        """End all cells. Idempotent."""
        self.refuse()
        self._spares.close()
        self._serving.clear()
        while self._alive or self._coming:
            await asyncio.gather(*(self._end(cell) for cell in list(self._alive)))
            if self._coming:
                await asyncio.wait(self._coming.values())
        self._spares.close()  # whoever was to get a cell may have asked for a spare

    async def _provide(self, key: str) -> Cell:
        cell = await self._make_another() if self._shared else await self._take_spare()
        if cell not in self._alive:
            raise EngineUnavailable("The process that makes contexts died; try again.")
        self._serving[key] = cell
        return cell

    async def _take_spare(self) -> Cell:
        while (cell := await self._spares.take()) not in self._alive:
            pass  # it died waiting
        return cell

    def _on_provided(self, key: str, done: asyncio.Task[Cell]) -> None:
        del self._coming[key]
        if not done.cancelled():
            done.exception()  # whoever waited may have been cancelled

    async def _make_another(self) -> Cell:
        """Where one like it could be built before, a failure is of this moment."""
        try:
            return await self._make()
        except SetupFailed as error:
            raise EngineUnavailable(str(error)) from error

    async def _make(self) -> Cell:
        if self._closed:
            raise EngineUnavailable("The engine is closed.")
        cell = self._new_cell()
        cell.on_lost = lambda: self._on_lost(cell)
        cell.memory = self.memory
        self._alive.add(cell)
        try:
            await cell.start()
        except BaseException:
            self._alive.discard(cell)
            raise
        return cell

    async def _end(self, cell: Cell) -> None:
        self._alive.discard(cell)
        await cell.close()

    def _on_lost(self, cell: Cell) -> None:
        _log.error("cell.lost")
        self._alive.discard(cell)
        for key in [key for key, serving in self._serving.items() if serving is cell]:
            del self._serving[key]
