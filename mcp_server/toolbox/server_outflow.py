"""From a run's chunks to what is sent of them: joined while the reader is slow, never more than a bounded amount."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from mcp_server.model import Chunk, OutputChunk
from mcp_server.toolbox.mux import WINDOW_BYTES, chunk_message, cost, encode
from mcp_server.toolbox.wire import Frame, FrameType, TextDecoder, displayed_text, encode_frame, pieces

MAX_WAITING = 512 * 1024
"""Characters or bytes that may wait to be sent before the program is held back: two reads of its pipe."""

MAX_JOINED_BYTES = 16 * 1024
"""Up to here a chunk that waits takes in the next one; beyond, copying costs more than another message."""


class Gate:
    """Counts what waits to be sent, and holds the program back while that is more than `MAX_WAITING`.

    After `open_for_good` nobody is held any more.
    """

    def __init__(self) -> None:
        self._waiting = 0
        self._room = asyncio.Event()
        self._room.set()
        self.stopped = False

    def add(self, amount: int) -> Awaitable[None] | None:
        """More waits; what a sink is to return for it."""
        self._waiting += amount
        if self._waiting <= MAX_WAITING or self.stopped:
            return None
        self._room.clear()
        return self._have_room()

    def subtract(self, amount: int) -> None:
        self._waiting -= amount
        if self._waiting <= MAX_WAITING:
            self._room.set()

    def open_for_good(self) -> None:
        self.stopped = True
        self._room.set()

    async def _have_room(self) -> None:
        await self._room.wait()


class Outflow:
    """Takes the chunks of one run and sends their frames, in order, over the plain protocol.

    `take` is a `Sink`. `pump` does the sending, until `complete`. After `stop` everything is dropped.
    """

    def __init__(self, send: Callable[[str], Awaitable[None]]) -> None:
        self._send = send
        self._decoder = TextDecoder()
        self._gate = Gate()
        self._waiting: list[tuple[FrameType, str]] = []
        self._something = asyncio.Event()
        self._complete = False

    def take(self, chunk: Chunk) -> Awaitable[None] | None:
        if self._gate.stopped:
            return None
        if isinstance(chunk, OutputChunk):
            return self._add(FrameType(chunk.stream.value), self._decoder.feed(chunk.stream, chunk.data))
        return self._add(FrameType.STDOUT, displayed_text(chunk))

    async def pump(self) -> None:
        """Send what waits, until `complete`. Raises what sending raises."""
        while True:
            await self._something.wait()
            self._something.clear()
            complete = self._complete
            batch, self._waiting = self._waiting, []
            for kind, text in _joined(batch):
                for piece in pieces(text):
                    await self._send(encode_frame(Frame(kind, piece)))
            self._gate.subtract(sum(len(text) for _, text in batch))
            if complete:
                return

    def complete(self) -> None:
        """No chunk comes any more: `pump` returns when it has sent the rest."""
        for stream, text in self._decoder.rest():
            self._add(FrameType(stream.value), text)
        self._complete = True
        self._something.set()

    def stop(self) -> None:
        """Nobody reads any more."""
        self._gate.open_for_good()

    def _add(self, kind: FrameType, text: str) -> Awaitable[None] | None:
        if not text:
            return None
        self._waiting.append((kind, text))
        self._something.set()
        return self._gate.add(len(text))


class MuxOutflow:
    """Takes the chunks of one call and sends them over the mux as its credit allows.

    `take` is a `Sink`. `pump` does the sending, until `complete`. After `stop` everything is dropped.
    """

    def __init__(self, call: int, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._call = call
        self._send = send
        self._gate = Gate()
        self._waiting: deque[Chunk] = deque()
        self._credit_bytes = WINDOW_BYTES
        self._change = asyncio.Event()
        self._complete = False

    def take(self, chunk: Chunk) -> Awaitable[None] | None:
        if self._gate.stopped:
            return None
        last = self._waiting[-1] if self._waiting else None
        joins = isinstance(last, OutputChunk) and len(last.data) < MAX_JOINED_BYTES
        if isinstance(chunk, OutputChunk) and isinstance(last, OutputChunk) and joins and last.stream is chunk.stream:
            self._waiting[-1] = OutputChunk(chunk.stream, last.data + chunk.data)
        else:
            self._waiting.append(chunk)
        self._change.set()
        return self._gate.add(_size(chunk))

    def credit(self, amount: int) -> None:
        """The reader has taken so much."""
        self._credit_bytes += amount
        self._change.set()

    async def pump(self) -> None:
        """Send what waits while there is credit, until `complete`. Raises what sending raises."""
        while True:
            while self._waiting and self._credit_bytes > 0:
                chunk = self._waiting.popleft()
                message = chunk_message(self._call, chunk)
                self._credit_bytes -= cost(message)
                await self._send(encode(message))
                self._gate.subtract(_size(chunk))
            if self._complete and not self._waiting:
                return
            self._change.clear()
            await self._change.wait()

    def complete(self) -> None:
        """No chunk comes any more: `pump` returns when it has sent the rest."""
        self._complete = True
        self._change.set()

    def stop(self) -> None:
        """Nobody reads any more."""
        self._gate.open_for_good()


def _size(chunk: Chunk) -> int:
    if isinstance(chunk, OutputChunk):
        return len(chunk.data)
    return sum(len(part.data) for part in chunk.representations)


def _joined(batch: Iterable[tuple[FrameType, str]]) -> Iterable[tuple[FrameType, str]]:
    """Neighbours of one type as one text."""
    kind: FrameType | None = None
    texts: list[str] = []
    for next_kind, text in batch:
        if next_kind is not kind and kind is not None:
            yield kind, "".join(texts)
            texts = []
        kind = next_kind
        texts.append(text)
    if kind is not None:
        yield kind, "".join(texts)
