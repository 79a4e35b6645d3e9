"""Output is read as it comes, in large pieces, and none is left when a run has ended."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from mcp_server.engine import pipes
from mcp_server.engine.pipes import LITTLE_BYTES, OutputPipes
from mcp_server.model import Stream
from tests.bench import Listener

pytestmark = pytest.mark.anyio


@pytest.fixture
async def piped() -> AsyncIterator[tuple[int, OutputPipes, Listener]]:
    """The writing end of a pipe, what reads it, and what hears it."""
    readable, writable = os.pipe()
    os.set_blocking(readable, False)
    heard = Listener()
    failures: list[BaseException] = []
    reader = OutputPipes({readable: Stream.STDOUT}, heard, failures.append)
    yield writable, reader, heard
    os.close(writable)
    reader.close()
    assert failures == []


async def test_a_program_that_prints_little_by_little_is_not_read_for_each_line(
    piped: tuple[int, OutputPipes, Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipes, "PAUSE_S", 3600)
    writable, reader, heard = piped
    os.write(writable, b"first\n")
    await heard.something()
    for line in (b"second\n", b"third\n"):
        os.write(writable, line)
        await asyncio.sleep(0)
    assert heard.output() == b"first\n"
    await reader.drain()
    assert [chunk.data for chunk in heard.chunks if hasattr(chunk, "data")] == [b"first\n", b"second\nthird\n"]


async def test_reading_goes_on_after_a_pause(piped: tuple[int, OutputPipes, Listener]) -> None:
    writable, _, heard = piped
    for line in (b"first\n", b"second\n"):
        heard.forget()
        os.write(writable, line)
        await heard.something()
    assert heard.output() == b"first\nsecond\n"


async def test_a_flood_is_read_without_pauses(
    piped: tuple[int, OutputPipes, Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipes, "PAUSE_S", 3600)
    writable, _, heard = piped
    for _ in range(3):
        heard.forget()
        os.write(writable, b"x" * LITTLE_BYTES)
        await heard.something()
    assert len(heard.output()) == 3 * LITTLE_BYTES


async def test_pipes_can_be_closed_in_a_pause(piped: tuple[int, OutputPipes, Listener]) -> None:
    writable, reader, heard = piped
    os.write(writable, b"first\n")
    await heard.something()
    reader.close()
    with pytest.raises(BrokenPipeError):
        os.write(writable, b"second\n")
