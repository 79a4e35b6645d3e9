"""An engine with one context at hand, and a sink that a test can wait for."""

from __future__ import annotations

import asyncio

from mcp_server.engine.base import Engine
from mcp_server.model import Chunk, DisplayChunk, Outcome, OutputChunk, RunRequest, Stream


class Listener:
    """A sink that keeps everything, and lets a test wait for it."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self._something = asyncio.Event()

    def __call__(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        self._something.set()

    async def something(self) -> None:
        """Returns once anything has come."""
        async with asyncio.timeout(20):
            await self._something.wait()

    def forget(self) -> None:
        """Have `something` wait for what comes from now on."""
        self._something.clear()

    def output(self, stream: Stream = Stream.STDOUT) -> bytes:
        return b"".join(
            chunk.data for chunk in self.chunks if isinstance(chunk, OutputChunk) and chunk.stream is stream
        )

    def result(self) -> str:
        (shown,) = [chunk for chunk in self.chunks if isinstance(chunk, DisplayChunk) and chunk.is_result]
        return shown.representations[0].data.decode()


class Bench:
    """An engine with one context, and short ways to use it."""

    def __init__(self, engine: Engine, context_id: str, late: Listener) -> None:
        self.engine = engine
        self.context_id = context_id
        self.late = late
        self._number = 0

    async def run(
        self, code: str, timeout_s: float = 0, envs: dict[str, str] | None = None, heard: Listener | None = None
    ) -> tuple[Outcome, Listener]:
        self._number += 1
        heard = heard or Listener()
        request = RunRequest(self._number, code, timeout_s, envs or {})
        return await self.engine.execute(self.context_id, request, heard), heard

    async def run_until_started(self, code: str) -> asyncio.Task[tuple[Outcome, Listener]]:
        """The task of a run that has printed something and goes on."""
        heard = Listener()
        task = asyncio.create_task(self.run(code, heard=heard))
        await heard.something()
        return task
