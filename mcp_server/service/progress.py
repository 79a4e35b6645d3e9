"""When a waiting call hears how its run stands: at once, then at most four times a second, at least every ten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mcp_server.model import Progress

LEAST_INTERVAL_S = 0.25
HEARTBEAT_S = 10.0
"""Clients that watch for signs of life give up after 30 s or more; this leaves room for two losses."""


class ProgressMeter:
    """Turns "something changed" into calls of `tell`, rate-limited. Close it when the call ends."""

    def __init__(self, read: Callable[[], Progress], tell: Callable[[Progress], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._read = read
        self._tell = tell
        self._last_s = self._loop.time() - LEAST_INTERVAL_S
        self._next = self._loop.call_later(HEARTBEAT_S, self._emit)

    def touch(self) -> None:
        """Something changed. Cheap: it is called for each chunk of output."""
        due = self._last_s + LEAST_INTERVAL_S
        if due <= self._loop.time():
            self._emit()
        elif self._next.when() > due:
            self._next.cancel()
            self._next = self._loop.call_at(due, self._emit)

    def close(self) -> None:
        self._next.cancel()

    def _emit(self) -> None:
        self._next.cancel()
        self._last_s = self._loop.time()
        self._next = self._loop.call_later(HEARTBEAT_S, self._emit)
        self._tell(self._read())
