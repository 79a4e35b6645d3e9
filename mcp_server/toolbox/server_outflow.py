"""From a run's chunks to its frames: decoded, joined while the reader is slow, never more than a bounded amount."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from mcp_server.model import Chunk, OutputChunk, Stream
from mcp_server.toolbox.wire import Frame, FrameType, TextDecoder, displayed_text, encode_frame, pieces

MAX_WAITING_CHARS = 512 * 1024
"""What may wait to be sent before the program is held back: twice what one read of its pipe brings."""

_FRAME_OF = {Stream.STDOUT: FrameType.STDOUT, Stream.STDERR: FrameType.STDERR}


class Outflow:
    """Takes the chunks of one run and sends their frames, in order.

    `take` is a `Sink`: it holds the program back while more than `MAX_WAITING_CHARS` wait to be sent. `pump` does the
    sending. After `stop` everything is dropped, and nobody is held.
    """

    def __init__(self, send: Callable[[str], Awaitable[None]]) -> None:
        self._send = send
        self._decoder = TextDecoder()
        self._waiting: list[tuple[FrameType, str]] = []
        self._waiting_chars = 0
        self._something = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._stopped = False
        self._complete = False

    def take(self, chunk: Chunk) -> Awaitable[None] | None:
        if self._stopped:
            return None
        if isinstance(chunk, OutputChunk):
            self._add(_FRAME_OF[chunk.stream], self._decoder.feed(chunk.stream, chunk.data))
        else:
            self._add(FrameType.STDOUT, displayed_text(chunk))
        if self._waiting_chars <= MAX_WAITING_CHARS:
            return None
        self._room.clear()
        return self._have_room()

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
            self._waiting_chars -= sum(len(text) for _, text in batch)
            if self._waiting_chars <= MAX_WAITING_CHARS:
                self._room.set()
            if complete:
                return

    def complete(self) -> None:
        """No chunk comes any more: `pump` returns when it has sent the rest."""
        for stream, text in self._decoder.rest():
            self._add(_FRAME_OF[stream], text)
        self._complete = True
        self._something.set()

    def stop(self) -> None:
        """Nobody reads any more."""
        self._stopped = True
        self._room.set()

    def _add(self, kind: FrameType, text: str) -> None:
        if text:
            self._waiting.append((kind, text))
            self._waiting_chars += len(text)
            self._something.set()

    async def _have_room(self) -> None:
        await self._room.wait()


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
