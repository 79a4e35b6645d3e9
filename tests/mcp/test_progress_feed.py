"""Progress on its way to a client that may read slowly or not at all."""

from __future__ import annotations

import asyncio

import pytest

from mcp_server.model import Progress, Status
from mcp_server.notifications import message_of, progress_feed

pytestmark = pytest.mark.anyio


class Client:
    """Takes a notification only when it is let to."""

    def __init__(self) -> None:
        self.offered = asyncio.Event()
        self._reads = asyncio.Semaphore(0)
        self._taken: asyncio.Queue[tuple[float, str]] = asyncio.Queue()

    async def take(self, value: float, message: str) -> None:
        self.offered.set()
        await self._reads.acquire()
        self._taken.put_nowait((value, message))

    async def read(self) -> tuple[float, str]:
        self._reads.release()
        async with asyncio.timeout(5):
            return await self._taken.get()

    @property
    def has_taken(self) -> bool:
        return not self._taken.empty()


def running(elapsed_s: float, line: str = "") -> Progress:
    return Progress(Status.RUNNING, elapsed_s, line)


async def test_a_slow_client_gets_the_latest_and_misses_what_lies_between() -> None:
    client = Client()
    async with progress_feed(client.take) as tell:
        tell(running(1.0, "first"))
        await client.offered.wait()
        for number in range(1_000):
            tell(running(2.0 + number, f"line {number}"))
        assert await client.read() == (1.0, "first")
        assert await client.read() == (1001.0, "line 999")
    assert not client.has_taken


async def test_values_always_rise_though_time_does_not() -> None:
    client = Client()
    values = []
    async with progress_feed(client.take) as tell:
        for elapsed_s in (0.0, 0.0, 5.0, 4.0):
            tell(running(elapsed_s))
            values.append((await client.read())[0])
    assert values == sorted(set(values))
    assert values[0] > 0


async def test_a_client_that_reads_nothing_holds_no_result_back() -> None:
    client = Client()
    async with asyncio.timeout(5):
        async with progress_feed(client.take) as tell:
            tell(running(1.0))
            await client.offered.wait()
    assert not client.has_taken


@pytest.mark.parametrize(
    ("progress", "message"),
    [
        (Progress(Status.QUEUED, 1.0), "queued behind another run"),
        (running(12.4), "running for 12 s"),
        (running(12.4, "epoch 3"), "epoch 3"),
    ],
)
def test_the_message_is_the_last_line_or_how_the_run_stands(progress: Progress, message: str) -> None:
    assert message_of(progress) == message
