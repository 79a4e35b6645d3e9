"""The calls that are on, so that a stop can take no new ones and wait for these."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from mcp_server.errors import EngineUnavailable

STOPPING = "The server is stopping and takes no new calls. Try again when it is back; its contexts do not outlive it."


class OpenCalls:
    """A context manager around each call. Entering raises EngineUnavailable once it is closed."""

    def __init__(self) -> None:
        self._open = 0
        self._closed = False
        self._none_left = asyncio.Event()

    def __enter__(self) -> None:
        if self._closed:
            raise EngineUnavailable(STOPPING)
        self._open += 1

    def __exit__(self, *_: object) -> None:
        self._open -= 1
        if self._closed and not self._open:
            self._none_left.set()

    def close(self) -> None:
        self._closed = True
        if not self._open:
            self._none_left.set()

    async def ended(self, within_s: float) -> bool:
        """Whether, after `close`, the last one has ended within that time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._none_left.wait()
        return self._none_left.is_set()
