"""An engine in memory, for embedders and tests: what each code does is a script of steps, and no process is started.

    engine = ScriptedEngine({"print(1)": [Write(b"1\\n")], "1/0": [Fail("ZeroDivisionError", "division by zero")]})

Code that no script is given for ends as a `NotScripted` error, so that a missing script is seen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from mcp_server.errors import UnknownContext
from mcp_server.model import (
    ContextInfo,
    ContextSpec,
    DisplayChunk,
    EngineCapabilities,
    ErrorInfo,
    Outcome,
    OutputChunk,
    Representation,
    RunRequest,
    Sink,
    State,
    Status,
    Stream,
)


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes to a stream."""

    data: bytes
    stream: Stream = Stream.STDOUT


@dataclass(frozen=True, slots=True)
class Result:
    """The text of the last expression's value."""

    text: str


@dataclass(frozen=True, slots=True)
class Assign:
    """A variable gets a value."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Recall:
    """The value of a variable as the result; a NameError where there is none."""

    name: str


@dataclass(frozen=True, slots=True)
class Fail:
    """An exception ends the run."""

    name: str
    message: str


@dataclass(frozen=True, slots=True)
class Exit:
    """The code calls exit()."""

    code: int


@dataclass(frozen=True, slots=True)
class Block:
    """The code hangs until it is stopped; `stubborn` code ignores the interrupt and is killed for it."""

    stubborn: bool = False


@dataclass(frozen=True, slots=True)
class Die:
    """The worker ends: by a signal, with an exit code, or for the memory it used."""

    signal: int | None = None
    exit_code: int | None = None
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class WriteLate:
    """Bytes that come once the run is over, as from a thread that it left behind."""

    data: bytes
    stream: Stream = Stream.STDOUT


@dataclass(frozen=True, slots=True)
class ShowEnv:
    """The value of an environment variable as the result; empty where it is not set."""

    name: str


Step = Write | Result | Assign | Recall | Fail | Exit | Block | Die | WriteLate | ShowEnv


@dataclass(slots=True)
class _Context:
    info: ContextInfo
    spec: ContextSpec
    late: Sink
    variables: dict[str, str] = field(default_factory=dict)
    lost: str = ""
    stop: asyncio.Future[Status] | None = None
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class _End:
    """How the steps of one run came to their end."""

    status: Status = Status.OK
    state: State = State.KEPT
    error: ErrorInfo | None = None
    exit_code: int | None = None
    signal: int | None = None
    detail: str = ""


class ScriptedEngine:
    """See `engine.base.Engine`. ``scripts`` maps the exact text of a code to its steps."""

    def __init__(self, scripts: Mapping[str, Sequence[Step]]) -> None:
        self.scripts = scripts
        self._contexts: dict[str, _Context] = {}
        self._numbers = count(1)

    @property
    def capabilities(self) -> EngineCapabilities:
        return EngineCapabilities(name="scripted", tier="scripted")

    async def start(self) -> None:
        """Nothing to make ready."""

    async def create(self, spec: ContextSpec, late: Sink) -> ContextInfo:
        info = ContextInfo(f"ctx_scripted{next(self._numbers):014d}", spec.cwd or "/work")
        self._contexts[info.context_id] = _Context(info, spec, late)
        return info

    async def execute(self, context_id: str, request: RunRequest, sink: Sink) -> Outcome:
        context = self._contexts.get(context_id)
        if context is None:
            raise UnknownContext(context_id)
        if context.stop is not None:
            raise RuntimeError("runs of one context must not overlap")
        loop = asyncio.get_running_loop()
        lost_before, context.lost = context.lost, ""
        stopped: asyncio.Future[Status] = loop.create_future()
        context.stop = stopped
        timer = loop.call_later(request.timeout_s, _stop, context, Status.TIMEOUT) if request.timeout_s > 0 else None
        began = time.monotonic()
        end = _End(Status.CANCELLED, State.RESET)
        try:
            end = await _Run(context, request, sink, stopped).play(self.scripts.get(request.code))
        finally:
            if timer is not None:
                timer.cancel()
            context.stop = None
            if end.state is State.RESET:
                context.variables.clear()
                context.lost = "the interpreter of the run before this one ended"
        return Outcome(
            status=end.status,
            state=end.state,
            elapsed_s=time.monotonic() - began,
            error=end.error,
            exit_code=end.exit_code,
            signal=end.signal,
            lost_before=lost_before,
            detail=end.detail,
        )

    async def interrupt(self, context_id: str, reason: Status) -> bool:
        context = self._contexts.get(context_id)
        return context is not None and _stop(context, reason)

    def files(self, context_id: str) -> None:
        """A script has no files."""

    async def delete(self, context_id: str) -> None:
        context = self._contexts.pop(context_id, None)
        if context is not None:
            context.deleted = True
            _stop(context, Status.CANCELLED)

    async def delete_sandbox(self, sandbox_id: str) -> None:
        for context_id in [key for key, context in self._contexts.items() if context.spec.sandbox_id == sandbox_id]:
            await self.delete(context_id)

    async def close(self) -> None:
        for context_id in list(self._contexts):
            await self.delete(context_id)


def _stop(context: _Context, reason: Status) -> bool:
    if context.stop is None or context.stop.done():
        return False
    context.stop.set_result(reason)
    return True


class _Run:
    """Plays the steps of one run."""

    def __init__(self, context: _Context, request: RunRequest, sink: Sink, stopped: asyncio.Future[Status]) -> None:
        self._context = context
        self._request = request
        self._sink = sink
        self._stopped = stopped

    async def play(self, steps: Sequence[Step] | None) -> _End:
        if steps is None:
            return _failure("NotScripted", f"no script for {self._request.code!r}")
        for step in steps:
            end = await self._play(step)
            if end is not None:
                return end
        return _End()

    async def _play(self, step: Step) -> _End | None:
        match step:
            case Write(data, stream):
                await _give(self._sink, OutputChunk(stream, data))
            case WriteLate(data, stream):
                late = OutputChunk(stream, data)
                asyncio.get_running_loop().call_soon(self._context.late, late)
            case Result(text):
                await self._show(text)
            case ShowEnv(name):
                await self._show(repr({**self._context.spec.envs, **self._request.envs}.get(name, "")))
            case Assign(name, value):
                self._context.variables[name] = value
            case Recall(name):
                if name not in self._context.variables:
                    return _failure("NameError", f"name {name!r} is not defined")
                await self._show(self._context.variables[name])
            case Fail(name, message):
                return _failure(name, message)
            case Exit(code):
                return _End(exit_code=code)
            case Die(signal, exit_code, out_of_memory):
                status = Status.OUT_OF_MEMORY if out_of_memory else Status.CRASHED
                return _End(status, State.RESET, exit_code=exit_code, signal=signal, detail="scripted death")
            case Block(stubborn):
                return await self._block(stubborn, self._stopped)
        return None

    async def _block(self, stubborn: bool, stopped: asyncio.Future[Status]) -> _End:
        reason = await stopped
        if self._context.deleted:
            return _End(reason, State.RESET, signal=9, detail="the context was deleted")
        if stubborn:
            return _End(reason, State.RESET, signal=9, detail="it did not end after the interrupt and was killed")
        return _End(reason, error=_error("KeyboardInterrupt", ""))

    async def _show(self, text: str) -> None:
        await _give(self._sink, DisplayChunk(True, (Representation("text/plain", text.encode()),)))


async def _give(sink: Sink, chunk: OutputChunk | DisplayChunk) -> None:
    wait = sink(chunk)
    if wait is not None:
        await wait


def _error(name: str, message: str) -> ErrorInfo:
    last = f"{name}: {message}" if message else name
    return ErrorInfo(name, message, f"Traceback (most recent call last):\n{last}")


def _failure(name: str, message: str) -> _End:
    return _End(Status.ERROR, error=_error(name, message))
