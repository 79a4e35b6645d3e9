"""How `ToolboxEngine` reaches contexts: over the mux where a server offers it, else by the plain protocol."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, Protocol

from mcp_server.errors import (
    CodeInterpreterNotFoundError,
    CodeInterpreterValidationError,
    EngineUnavailable,
    InvalidArgument,
    ToolboxError,
    UnknownContext,
    UnknownSandbox,
)
from mcp_server.model import Chunk, ErrorInfo, Outcome, OutputChunk, RunRequest, Sink, State, Status, Stream
from mcp_server.toolbox.client_api_async import AsyncInterpreterApi
from mcp_server.toolbox.client_mux import MuxCall, MuxClient
from mcp_server.toolbox.client_sandboxes import RemoteSandbox
from mcp_server.toolbox.mux import LOST, RunOrder
from mcp_server.toolbox.wire import INTERRUPTED, NO_CONTEXT, Close, CloseCode, ExecuteRequest, FrameType

PLAIN_GAPS = (
    "The value of the last expression is not shown: print what is to be seen.",
    "Figures and other images are not shown.",
    "Output that is not UTF-8 arrives as replacement characters.",
)
"""What the plain protocol has no words for."""


class Line(Protocol):
    """Contexts of a server by the server's own ids. Raises UnknownContext, InvalidArgument, EngineUnavailable."""

    async def create(self, sandbox: RemoteSandbox, cwd: str, envs: Mapping[str, str], late: Sink) -> tuple[str, str]:
        """Make a context; its id and directory."""

    async def attend(self, sandbox: RemoteSandbox, context_id: str, late: Sink) -> None:
        """Be sure that what it prints between runs arrives, also after a connection was lost."""

    async def execute(
        self, sandbox: RemoteSandbox, context_id: str, request: RunRequest, sink: Sink, stop: asyncio.Future[Status]
    ) -> Outcome:
        """Run code; a result of `stop` interrupts it. Cancelling this stops the code and waits for nothing."""

    async def delete(self, sandbox: RemoteSandbox, context_id: str) -> None:
        """End a context."""

    async def close(self) -> None:
        """Let go of the connections."""


class MuxLine:
    """All contexts over one socket, which is opened anew where it was lost."""

    def __init__(self) -> None:
        self._client: MuxClient | None = None
        self._opening = asyncio.Lock()
        self._attended: set[str] = set()

    async def create(self, sandbox: RemoteSandbox, cwd: str, envs: Mapping[str, str], late: Sink) -> tuple[str, str]:
        client = await self._usable(sandbox)
        context_id, where = await client.create(sandbox.sandbox_id, cwd, envs, late)
        self._attended.add(context_id)
        return context_id, where

    async def attend(self, sandbox: RemoteSandbox, context_id: str, late: Sink) -> None:
        client = await self._usable(sandbox)
        if context_id not in self._attended:
            await client.listen(sandbox.sandbox_id, context_id, late)
            self._attended.add(context_id)

    async def execute(
        self, sandbox: RemoteSandbox, context_id: str, request: RunRequest, sink: Sink, stop: asyncio.Future[Status]
    ) -> Outcome:
        client = await self._usable(sandbox)
        order = RunOrder(sandbox.sandbox_id, context_id, request.code, request.timeout_s, request.envs)
        run = await client.begin_run(order)
        stopping = asyncio.get_running_loop().create_task(_stop_when_told(run, stop))
        try:
            async with aclosing(client.events(run)) as events:
                async for event in events:
                    if isinstance(event, Outcome):
                        return event
                    await _give(sink, event)
        finally:
            stopping.cancel()
        raise EngineUnavailable(LOST)

    async def delete(self, sandbox: RemoteSandbox, context_id: str) -> None:
        self._attended.discard(context_id)
        await (await self._usable(sandbox)).delete(sandbox.sandbox_id, context_id)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def _usable(self, sandbox: RemoteSandbox) -> MuxClient:
        async with self._opening:
            if self._client is None or not self._client.usable:
                self._attended.clear()
                if self._client is not None:
                    await self._client.close()
                self._client = MuxClient(sandbox.toolboxes)
                try:
                    await self._client.open()
                except ToolboxError as error:
                    raise EngineUnavailable(f"The toolbox server cannot be reached: {error}.") from error
            return self._client


async def _stop_when_told(run: MuxCall, stop: asyncio.Future[Status]) -> None:
    await asyncio.shield(stop)
    with suppress(EngineUnavailable):  # then the run itself hears of it
        await run.stop()


class PlainLine:
    """One connection a run, by the protocol that any toolbox server speaks; see `PLAIN_GAPS`.

    The envs of a context are given with each of its runs.
    """

    def __init__(self) -> None:
        self._apis: dict[str, AsyncInterpreterApi] = {}
        self._envs: dict[str, Mapping[str, str]] = {}

    async def create(
        self,
        sandbox: RemoteSandbox,
        cwd: str,
        envs: Mapping[str, str],
        late: Sink,  # noqa: ARG002 - the protocol has no words for it
    ) -> tuple[str, str]:
        try:
            made = await self._api(sandbox).create_interpreter_context(cwd or None)
        except CodeInterpreterNotFoundError as error:
            raise UnknownSandbox(str(error)) from error
        except CodeInterpreterValidationError as error:
            raise InvalidArgument(str(error)) from error
        except ToolboxError as error:
            raise EngineUnavailable(str(error)) from error
        self._envs[made.id] = dict(envs)
        return made.id, made.cwd

    async def attend(self, sandbox: RemoteSandbox, context_id: str, late: Sink) -> None:
        """The server itself shows it at the beginning of the next run."""

    async def execute(
        self, sandbox: RemoteSandbox, context_id: str, request: RunRequest, sink: Sink, stop: asyncio.Future[Status]
    ) -> Outcome:
        envs = {**self._envs.get(context_id, {}), **request.envs}
        wanted = ExecuteRequest(request.code, context_id, math.ceil(request.timeout_s), envs)
        began_s = time.monotonic()
        listening = asyncio.get_running_loop().create_task(self._listen(sandbox, wanted, sink))
        try:
            ends: set[asyncio.Future[Any]] = {listening, stop}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not listening.done():  # hanging up is how this protocol interrupts
                detail = "its connection was closed, which interrupts it; what it did then is not known"
                return Outcome(stop.result(), elapsed_s=time.monotonic() - began_s, detail=detail)
            outcome = listening.result()
        finally:
            listening.cancel()
            await asyncio.wait({listening})
        return replace(outcome, elapsed_s=time.monotonic() - began_s)

    async def delete(self, sandbox: RemoteSandbox, context_id: str) -> None:
        self._envs.pop(context_id, None)
        try:
            await self._api(sandbox).delete_interpreter_context(context_id)
        except CodeInterpreterNotFoundError:
            raise UnknownContext(context_id) from None
        except ToolboxError as error:
            raise EngineUnavailable(str(error)) from error

    async def close(self) -> None:
        for api in self._apis.values():
            await api.close()

    def _api(self, sandbox: RemoteSandbox) -> AsyncInterpreterApi:
        api = self._apis.get(sandbox.sandbox_id)
        if api is None:
            api = self._apis[sandbox.sandbox_id] = AsyncInterpreterApi.at(sandbox.toolbox, mux=False)
        return api

    async def _listen(self, sandbox: RemoteSandbox, request: ExecuteRequest, sink: Sink) -> Outcome:
        """Deliver the output of one run; how it ended, as far as frames and closing frame tell."""
        error: ErrorInfo | None = None
        interrupted = False
        try:
            async with aclosing(self._api(sandbox).execute_interpreter_code(request)) as events:
                async for event in events:
                    if isinstance(event, Close):
                        return _outcome(event, error, interrupted, request.context_id)
                    match event.type:
                        case FrameType.ERROR:
                            error = ErrorInfo(event.name, event.value, event.traceback)
                        case FrameType.CONTROL:
                            interrupted = event.text == INTERRUPTED
                        case _:
                            await _give(sink, OutputChunk(Stream(event.type.value), event.text.encode()))
        except CodeInterpreterNotFoundError as gone:
            raise UnknownSandbox(str(gone)) from gone
        except ToolboxError as failure:
            raise EngineUnavailable(str(failure)) from failure
        raise EngineUnavailable(LOST)


def _outcome(close: Close, error: ErrorInfo | None, interrupted: bool, context_id: str) -> Outcome:
    match close.code:
        case CloseCode.DONE:
            status = Status.INTERRUPTED if interrupted else Status.OK if error is None else Status.ERROR
            return Outcome(status, error=error)
        case CloseCode.TIMEOUT:
            return Outcome(Status.TIMEOUT, detail=close.reason)
        case CloseCode.GONE:
            return Outcome(Status.CRASHED, State.RESET, detail=close.reason)
        case CloseCode.REFUSED if close.reason.startswith(NO_CONTEXT):
            raise UnknownContext(context_id)
        case CloseCode.REFUSED | CloseCode.BAD_MESSAGE:
            raise InvalidArgument(f"The toolbox server refused the code: {close.reason}.")
        case _:
            raise EngineUnavailable(close.reason or LOST)


async def _give(sink: Sink, chunk: Chunk) -> None:
    wait = sink(chunk)
    if wait is not None:
        await wait
