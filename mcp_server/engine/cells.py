"""Which cell serves a sandbox: one for all, or each its own. Starts them, replaces lost ones, ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from mcp_server.engine.generations import Generations
from mcp_server.errors import EngineUnavailable, SetupFailed
from mcp_server.sandbox.cell import Cell
from mcp_server.sandbox.limits import MemoryKeeper, Unlimited
from mcp_server.sandbox.spares import Spares
from mcp_server.shielding import shielded

SPARE_CELLS = 1
"""Where each sandbox has a cell of its own: ready for the next one, as starting a cell starts an interpreter."""

MOST_EARLY = 8
"""Sandboxes that a bare cell takes in. Each of their contexts imports everything itself: a crowd that does so on all
processors is served sooner where it waits for the warm cell."""

FOR_ALL = ""
"""Stands for every sandbox where they share a cell."""

_log = structlog.get_logger(__name__)


class Cells:
    """The cells of an engine. ``new_cell`` makes an unstarted one, and so decides whether sandboxes share it.

    ``new_bare_cell`` makes one that imports nothing, and so is there sooner; it serves until one of the others is
    ready. A sandbox stays in the cell that it began in, where its files are; a bare cell ends with its last sandbox.
    ``memory`` is what the workers of all of them are held by; it is set before `start`.
    """

    def __init__(self, new_cell: Callable[[], Cell], new_bare_cell: Callable[[], Cell] | None = None) -> None:
        self.memory: MemoryKeeper = Unlimited()
        self._shared = True
        self._newest: Cell | None = None  # where cells are shared: for all sandboxes to come; else for the next one
        self._homes: dict[str, Cell] = {}
        self._coming: dict[str, asyncio.Task[Cell]] = {}
        self._alive: set[Cell] = set()
        self._endings: set[asyncio.Task[None]] = set()
        start_bare = None if new_bare_cell is None else lambda: self._start(new_bare_cell)
        self._generations = Generations(lambda: self._start(new_cell), start_bare, self._on_warm)
        self._spares = Spares(self._another, SPARE_CELLS)
        self._closed = False

    async def start(self) -> None:
        """Start the first cell, so that one that cannot be had is known now. Raises SetupFailed."""
        try:
            cell = await self._generations.first()
        except BaseException:
            await self._generations.stop()
            raise
        self._shared = not cell.is_sandbox
        self._offer(cell)

    async def warmed(self) -> None:
        """Return when no cell is loading that others serve in place of."""
        await self._generations.warmed()

    async def serving(self, sandbox_id: str) -> Cell:
        """The cell of a sandbox, started where there is none. Raises EngineUnavailable. Safe to cancel."""
        while True:
            if self._closed:
                raise EngineUnavailable("The engine is closed.")
            cell = self._homes.get(sandbox_id)
            if cell is not None:
                return cell
            if not self._shared:
                return await shielded(self._come(sandbox_id))
            if self._newest is None:
                await shielded(self._come(FOR_ALL))
            elif self._is_crowded():
                await self._generations.warmed()
            else:
                self._homes[sandbox_id] = self._newest

    async def delete_sandbox(self, sandbox_id: str) -> None:
        """End what a sandbox has: its part of a cell, or its cell. Unknown ids pass."""
        coming = self._coming.get(sandbox_id)
        if coming is not None:
            await asyncio.wait([coming])
        cell = self._homes.pop(sandbox_id, None)
        if cell is None:
            return
        if self._shared:
            await cell.delete_sandbox(sandbox_id)
            await self._end_unused(cell)
        else:
            await self._end(cell)

    def refuse(self) -> None:
        """Serve no sandbox any more: the end is near."""
        self._closed = True

    async def close(self) -> None:
        """End all cells. Idempotent."""
        self.refuse()
        self._spares.close()
        self._homes.clear()
        self._newest = None
        await self._generations.stop()
        while self._alive or self._coming:
            await asyncio.gather(*(self._end(cell) for cell in list(self._alive)))
            if self._coming:
                await asyncio.wait(self._coming.values())
        if self._endings:
            await asyncio.wait(self._endings)
        self._spares.close()  # whoever was to get a cell may have asked for a spare

    def _is_crowded(self) -> bool:
        return self._generations.is_warming and len(self._homes) >= MOST_EARLY

    def _come(self, key: str) -> asyncio.Task[Cell]:
        """The one task that provides a cell for a sandbox, or for all."""
        coming = self._coming.get(key)
        if coming is None:
            coming = self._coming[key] = asyncio.get_running_loop().create_task(self._provide(key))
            coming.add_done_callback(lambda done: self._on_provided(key, done))
        return coming

    async def _provide(self, key: str) -> Cell:
        if self._shared:
            cell = await _of_this_moment(self._generations.first())
            if cell not in self._alive:
                raise EngineUnavailable("The process that makes contexts died; try again.")
            self._offer(cell)
        elif self._newest is not None and not self._spares.has_ready:
            cell = self._homes[key] = self._newest
            self._newest = None
            if not self._generations.is_warming:
                self._spares.refill_later()
        else:
            cell = self._homes[key] = await self._take_spare()
        return cell

    async def _take_spare(self) -> Cell:
        while (cell := await self._spares.take()) not in self._alive:
            pass  # it died waiting
        return cell

    def _on_provided(self, key: str, done: asyncio.Task[Cell]) -> None:
        del self._coming[key]
        if not done.cancelled():
            done.exception()  # whoever waited may have been cancelled

    # -- generations ------------------------------------------------------------------------------------------------

    def _offer(self, cell: Cell) -> None:
        """A first cell is there: it serves, unless it has ended already or a warm one was quicker."""
        if cell in self._alive:
            if self._newest is None and not self._spares.has_ready:
                self._newest = cell
            else:
                self._end_later(cell)

    def _on_warm(self, cell: Cell) -> None:
        if cell not in self._alive:
            return
        before = self._newest
        if cell.is_sandbox:
            self._newest = None
            self._spares.put(cell)
        else:
            self._newest = cell
        if before is not None:
            self._end_later(before)

    async def _another(self) -> Cell:
        return await _of_this_moment(self._generations.another())

    async def _start(self, new_cell: Callable[[], Cell]) -> Cell:
        if self._closed:
            raise EngineUnavailable("The engine is closed.")
        cell = new_cell()
        cell.on_lost = lambda: self._on_lost(cell)
        cell.memory = self.memory
        self._alive.add(cell)
        try:
            await cell.start()
        except BaseException:
            self._alive.discard(cell)
            raise
        return cell

    # -- their ends -------------------------------------------------------------------------------------------------

    def _end_later(self, cell: Cell) -> None:
        ending = asyncio.get_running_loop().create_task(self._end_unused(cell))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    async def _end_unused(self, cell: Cell) -> None:
        """End a cell that is nobody's home and will be nobody's."""
        if cell is not self._newest and cell not in self._homes.values():
            await self._end(cell)

    async def _end(self, cell: Cell) -> None:
        self._alive.discard(cell)
        await cell.close()

    def _on_lost(self, cell: Cell) -> None:
        _log.error("cell.lost")
        self._alive.discard(cell)
        if self._newest is cell:
            self._newest = None
        for sandbox_id in [sandbox_id for sandbox_id, home in self._homes.items() if home is cell]:
            del self._homes[sandbox_id]


async def _of_this_moment(starting: Coroutine[Any, Any, Cell]) -> Cell:
    """Where one like it could be built before, a failure is of this moment."""
    try:
        return await starting
    except SetupFailed as error:
        raise EngineUnavailable(str(error)) from error
