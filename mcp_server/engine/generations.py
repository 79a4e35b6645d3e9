"""Two generations of cells: a bare one serves while the warm one loads, so that who comes early does not wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from mcp_server.errors import EngineUnavailable, SetupFailed
from mcp_server.sandbox.cell import Cell

StartCell = Callable[[], Awaitable[Cell]]
"""Gives a started cell. Raises SetupFailed, and EngineUnavailable where the engine is closed."""

_log = structlog.get_logger(__name__)


class Generations:
    """Starts cells: warm ones, with modules imported, and bare ones, which are there much sooner.

    ``start_bare`` is None where nothing is preloaded: the two would be alike. ``on_warm`` gets the warm cell that was
    started beside a bare one. Where that cannot be had, bare cells serve from then on, and the log says why.
    """

    def __init__(self, start_warm: StartCell, start_bare: StartCell | None, on_warm: Callable[[Cell], None]) -> None:
        self._start_warm = start_warm
        self._start_bare = start_bare
        self._on_warm = on_warm
        self._warming: asyncio.Task[None] | None = None
        self._is_bare_for_good = False

    @property
    def is_warming(self) -> bool:
        return self._warming is not None and not self._warming.done()

    async def first(self) -> Cell:
        """The cell that can be had soonest; where that is a bare one, the warm one is on its way. Raises SetupFailed.

        Cancelling this, or its failure, leaves the warm one on its way: `stop` ends that.
        """
        if self._start_bare is None:
            return await self._start_warm()
        if not self.is_warming and not self._is_bare_for_good:
            self._warming = asyncio.get_running_loop().create_task(self._warm_up())
        return await self._start_bare()

    async def another(self) -> Cell:
        """One more, as warm as can be had. Raises SetupFailed."""
        if self._start_bare is not None and self._is_bare_for_good:
            return await self._start_bare()
        return await self._start_warm()

    async def warmed(self) -> None:
        """Return when no warm cell is on its way. Safe to cancel."""
        if self._warming is not None:
            await asyncio.wait([self._warming])

    async def stop(self) -> None:
        """End the cell that is on its way."""
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.wait([self._warming])

    async def _warm_up(self) -> None:
        try:
            cell = await self._start_warm()
        except SetupFailed as error:
            self._is_bare_for_good = True
            _log.error("cell.not_warm", reason=str(error), instead="contexts import everything themselves")
        except EngineUnavailable:
            _log.info("cell.not_needed")  # the engine was closed
        else:
            if cell.warmth is not None:
                _log.info("cell.warm", preloaded=cell.warmth.preloaded, failed=dict(cell.warmth.failed))
            self._on_warm(cell)
