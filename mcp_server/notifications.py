"""Progress notifications: how a run stands, told to a client that may read slowly or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from mcp_server.model import Progress, Status

SendProgress = Callable[[float, str], Awaitable[None]]
"""Sends one notification: the progress value and the message. May wait for the client to read."""


class ProgressFeed:
    """Between the service, which tells and never waits, and the client: a slow one gets the latest and misses the rest.

    Progress values are the seconds since the start and always increase, as the protocol asks.
    """

    def __init__(self, send: SendProgress) -> None:
        self._send = send
        self._latest: Progress | None = None
        self._told = asyncio.Event()
        self._last_value = 0.0

    def tell(self, progress: Progress) -> None:
        self._latest = progress
        self._told.set()

    async def forward(self) -> None:
        """Send what is told until cancelled."""
        while True:
            await self._told.wait()
            self._told.clear()
            if self._latest is not None:
                self._last_value = max(round(self._last_value + 0.001, 3), round(self._latest.elapsed_s, 3))
                await self._send(self._last_value, message_of(self._latest))


def message_of(progress: Progress) -> str:
    """The last line of output where there is one; else how the run stands."""
    if progress.status is Status.QUEUED:
        return "queued behind another run"
    return progress.last_line or f"running for {progress.elapsed_s:.0f} s"


@asynccontextmanager
async def progress_feed(send: SendProgress) -> AsyncIterator[Callable[[Progress], None]]:
    """Gives the function to tell progress to, for as long as the call lasts."""
    feed = ProgressFeed(send)
    task = asyncio.create_task(feed.forward())
    try:
        yield feed.tell
    finally:
        task.cancel()  # not awaited: a client that reads nothing must not hold the result back
