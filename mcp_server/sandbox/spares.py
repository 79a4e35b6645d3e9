"""A few of something kept ready: taken at once, made again when there is time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import structlog

from mcp_server.errors import EngineUnavailable

QUIET_S = 0.01
"""New ones are made when nobody has taken any for so long: beside a taker's own work they would slow it down."""

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class Spares(Generic[T]):
    """Keeps `wanted` of what `make` gives. Belongs to one event loop."""

    def __init__(self, make: Callable[[], Awaitable[T]], wanted: int) -> None:
        self._make = make
        self._wanted = wanted
        self._ready: deque[T] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._refilling: asyncio.Task[None] | None = None

    async def take(self) -> T:
        """One that is ready, else one that is made now. Raises what `make` raises; as safe to cancel as that is."""
        self.refill_later()
        return self._ready.popleft() if self._ready else await self._make()

    @property
    def has_ready(self) -> bool:
        """Whether one can be taken without waiting."""
        return bool(self._ready)

    def put(self, one: T) -> None:
        """Keep one that was made elsewhere."""
        self._ready.append(one)

    def refill_later(self) -> None:
        """Make what is missing, once it is quiet."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(QUIET_S, self._refill)

    def close(self) -> list[T]:
        """Make no more; gives the ones that nobody has taken."""
        if self._timer is not None:
            self._timer.cancel()
        if self._refilling is not None:
            self._refilling.cancel()
        left = list(self._ready)
        self._ready.clear()
        return left

    def _refill(self) -> None:
        if self._refilling is None or self._refilling.done():
            self._refilling = asyncio.get_running_loop().create_task(self._make_missing())

    async def _make_missing(self) -> None:
        try:
            while len(self._ready) < self._wanted:
                self._ready.append(await self._make())
        except EngineUnavailable as error:  # whoever needs one will be told
            _log.info("spares.missing", reason=str(error))
