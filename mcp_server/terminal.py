"""`mcp-code-interpreter run`: code in a fresh context, its output live and raw, its outcome as the exit status."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable

from mcp_server.engine.base import Engine
from mcp_server.figures import ImageShelf
from mcp_server.model import Chunk, ContextSpec, DisplayChunk, Outcome, RunRequest, Status, Stream

TIMEOUT_STATUS = 124
"""What timeout(1) exits with."""

SIGNALLED = 128
"""What shells add to the number of a signal."""


async def run(engine: Engine, code: str, timeout_s: float, shelf: ImageShelf) -> int:
    """Run `code` to its end on a started engine; Ctrl-C interrupts it. Images go to `shelf`. Gives the exit status."""
    loop = asyncio.get_running_loop()
    info = await engine.create(ContextSpec(sandbox_id="sbx_terminal"), _discard)
    stops: set[asyncio.Task[bool]] = set()

    def interrupt() -> None:
        stops.add(loop.create_task(engine.interrupt(info.context_id, Status.INTERRUPTED)))

    terminal = Terminal(interrupt, shelf)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    try:
        outcome = await engine.execute(info.context_id, RunRequest(1, code, timeout_s), terminal.show)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    if terminal.reader_left:
        return SIGNALLED + signal.SIGPIPE
    _say(outcome)
    return exit_status(outcome)


class Terminal:
    """Writes chunks where they belong. `on_reader_left` is called once, when nobody reads our output any more."""

    def __init__(self, on_reader_left: Callable[[], None], shelf: ImageShelf) -> None:
        self.reader_left = False
        self._on_reader_left = on_reader_left
        self._shelf = shelf
        self._turn = asyncio.Lock()

    async def show(self, chunk: Chunk) -> None:
        """The code waits while the terminal, or a pipe's reader, takes its time."""
        async with self._turn:  # a pipe's chunk and a shown value come side by side, and threads overtake each other
            if self.reader_left:
                return
            try:
                await asyncio.to_thread(self._write_chunk, chunk)
            except BrokenPipeError:
                self.reader_left = True
                self._on_reader_left()

    def _write_chunk(self, chunk: Chunk) -> None:
        _write(*_placed(chunk))
        if isinstance(chunk, DisplayChunk) and (said := self._shelf.take(chunk)):
            _write(2, said.encode("utf-8", "replace") + b"\n")


def exit_status(outcome: Outcome) -> int:
    """0 for ok, the code given to exit(), 1 for an exception, and what a shell gives for the rest."""
    match outcome.status:
        case Status.OK:
            return (outcome.exit_code or 0) & 0xFF
        case Status.ERROR:
            return 1
        case Status.TIMEOUT:
            return TIMEOUT_STATUS
        case Status.OUT_OF_MEMORY:
            return SIGNALLED + signal.SIGKILL
        case Status.CRASHED:
            return SIGNALLED + outcome.signal if outcome.signal else (outcome.exit_code or 1) & 0xFF
        case _:
            return SIGNALLED + signal.SIGINT


def _placed(chunk: Chunk) -> tuple[int, bytes]:
    """Descriptor and bytes."""
    if isinstance(chunk, DisplayChunk):
        texts = [part.data for part in chunk.representations if part.mime == "text/plain"]
        shown = texts or [part.alt.encode("utf-8", "replace") for part in chunk.representations[:1]]
        return 1, b"".join(shown) + b"\n"
    return (1 if chunk.stream is Stream.STDOUT else 2), chunk.data


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _say(outcome: Outcome) -> None:
    if outcome.error is not None and outcome.status is Status.ERROR:
        _write(2, outcome.error.traceback.rstrip("\n").encode("utf-8", "replace") + b"\n")
    elif outcome.status is not Status.OK:
        detail = f": {outcome.detail}" if outcome.detail else ""
        print(f"mcp-code-interpreter: {outcome.status}{detail}", file=sys.stderr)  # noqa: T201


def _discard(_chunk: Chunk) -> None:
    """Output of threads and daemons after the run has ended has no place to go."""
