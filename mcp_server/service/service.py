"""The service behind every door: finds the context of a call, runs the code, waits, and reports."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog

from mcp_server.engine.base import ContextFiles, Engine
from mcp_server.errors import EngineUnavailable, InvalidArgument, UnknownContext
from mcp_server.model import (
    NO_ENVS,
    ContextRecord,
    ContextSpec,
    Conversation,
    EngineCapabilities,
    Outcome,
    OutputPage,
    Progress,
    Report,
    RunCall,
    Sink,
    Stream,
)
from mcp_server.service.calls import STOPPING, OpenCalls
from mcp_server.service.context import LateOutput, LiveContext
from mcp_server.service.limits import (
    ServiceLimits,
    check_call,
    check_cwd,
    check_envs,
    check_room_for_context,
)
from mcp_server.service.observer import Observers, ServiceObserver, ToldRefusals
from mcp_server.service.progress import ProgressMeter
from mcp_server.service.run import Run
from mcp_server.shielding import shielded

_log = structlog.get_logger(__name__)

T = TypeVar("T")

INTERRUPTED_CALLS_S = 5.0
"""For the reports of runs that a stop interrupted: code that goes on is killed after two seconds."""


@dataclass(slots=True)
class _Sandbox:
    """What one conversation owns; a context outside of any conversation has one to itself.

    ``kept``: it was opened, and stays, with its files, until it is closed. ``envs`` are of every context made in it.
    ``making`` makes the default context, for all who ask for it meanwhile, and goes on when their calls are cancelled.
    """

    sandbox_id: str
    conversation: Conversation
    kept: bool = False
    closed: bool = False
    envs: Mapping[str, str] = field(default_factory=lambda: NO_ENVS)
    contexts: dict[str, LiveContext] = field(default_factory=dict)
    default: LiveContext | None = None
    making: asyncio.Task[LiveContext] | None = None
    coming: int = 0


class Service:
    """One service, one event loop. `start` it before use and `close` it after.

    Everything that a caller can do wrong raises a `CallerError`; what user code does wrong is in its report.
    """

    def __init__(
        self, engine: Engine, limits: ServiceLimits | None = None, observers: Sequence[ServiceObserver] = ()
    ) -> None:
        self._engine = engine
        self._limits = limits or ServiceLimits()
        self.observer = Observers(observers) if observers else ServiceObserver()
        self._calls = OpenCalls()
        self._contexts: dict[str, LiveContext] = {}
        self._sandbox_of: dict[str, _Sandbox] = {}
        self._conversations: dict[Conversation, _Sandbox] = {}
        self._expiries: dict[str, asyncio.TimerHandle] = {}
        self._errands: set[asyncio.Task[Any]] = set()
        self._coming = 0
        self._of_principal: Counter[str] = Counter()
        self._has_started = False

    @property
    def capabilities(self) -> EngineCapabilities:
        return self._engine.capabilities

    @property
    def limits(self) -> ServiceLimits:
        return self._limits

    @property
    def load(self) -> tuple[int, int]:
        """How many contexts there are, and how many there may be."""
        return len(self._contexts) + self._coming, self._limits.contexts

    def load_of(self, principal: str) -> tuple[int, int]:
        """The same of one principal; without one, of the server."""
        if not principal:
            return self.load
        return self._of_principal[principal], min(self._limits.contexts_per_principal, self._limits.contexts)

    async def start(self) -> None:
        """Raises `SetupFailed` where the engine cannot start."""
        await self._engine.start()
        self._has_started = True
        _log.info("service.started", engine=self.capabilities.name, tier=self.capabilities.tier)

    async def drain(self, grace_s: float) -> None:
        """Take no new calls, let those that are on end within `grace_s`, and then interrupt their code.

        Returns when the last call has its report, or `INTERRUPTED_CALLS_S` after the interrupt. Runs that no call waits
        for get no grace: nobody could fetch their reports. Cancelling this leaves the rest to `close`.
        """
        self._calls.close()
        if await self._calls.ended(grace_s):
            return
        for context in list(self._contexts.values()):
            context.fail_queued(EngineUnavailable(STOPPING))
            self._errand(context.interrupt())
        await self._calls.ended(INTERRUPTED_CALLS_S)

    async def close(self) -> None:
        """End every context. Runs that are on end as cancelled. Also undoes a `start` that failed or was cancelled."""
        for handle in self._expiries.values():
            handle.cancel()
        self._expiries.clear()
        for context in list(self._contexts.values()):
            await self._remove(context)
        if self._errands:
            await asyncio.wait(self._errands)
        await self._engine.close()
        if self._has_started:
            _log.info("service.closed")

    # -- the four doors' four calls -------------------------------------------------------------------------------

    async def run(self, call: RunCall, on_progress: Callable[[Progress], None] | None = None) -> Report:
        """Carry out one call of `run_code`: queue its code or rejoin the oldest due run, wait, and report.

        Cancelling this interrupts the run if nobody else waits for it, and keeps the variables.
        """
        with self._calls:
            return await self._run(call, on_progress)

    async def _run(self, call: RunCall, on_progress: Callable[[Progress], None] | None) -> Report:
        deadline_s = time.monotonic() + (self._limits.wait_s if call.wait_s is None else call.wait_s)
        empty = not call.code.strip()
        with ToldRefusals(self.observer, call.conversation):
            check_call(call)
            context, notices = await self._context_for(call, empty)
            if call.interrupt:
                await context.interrupt()
            run = context.oldest_due() if empty else context.submit(call)
        self._touch(context)
        await self._wait(context, run, deadline_s, on_progress)
        if run.done:
            context.reported(run)
        budget = call.max_output_chars or self._limits.max_output_chars
        report = run.report(budget, context.queued_behind(run), [*notices, *context.notices(run)])
        if run.done and not run.waiters:
            run.settled()
        self.observer.report_given(run.key, report)
        return report

    async def stream(self, call: RunCall, sink: Sink, stop: asyncio.Future[None] | None = None) -> Outcome:
        """Run code with its chunks going to `sink` as they come, unshaped; `wait_s` and the output budget do not apply.

        Cancelling this interrupts the run and keeps the variables. So does a result of `stop`, which takes the run
        from the queue where it has not begun, and whose outcome then still comes.
        """
        with self._calls:
            return await self._stream(call, sink, stop)

    async def _stream(self, call: RunCall, sink: Sink, stop: asyncio.Future[None] | None) -> Outcome:
        with ToldRefusals(self.observer, call.conversation):
            check_call(call)
            context, _ = await self._context_for(call, empty=False)
            if call.interrupt:
                await context.interrupt()
            run = context.submit(call, sink)
        self._touch(context)
        if stop is not None:
            stop.add_done_callback(lambda _: context.abandon(run))
        await self._wait(context, run, math.inf, None)
        return run.ended()

    async def create_context(
        self, conversation: Conversation, cwd: str = "", envs: Mapping[str, str] = NO_ENVS
    ) -> ContextRecord:
        """Make a context. Raises LimitReached, InvalidArgument (cwd, envs), EngineUnavailable."""
        with self._calls, ToldRefusals(self.observer, conversation):
            check_cwd(cwd)
            check_envs(envs)
            return (await self._create(self._sandbox(conversation), cwd, envs)).record()

    async def list_contexts(self, conversation: Conversation, *, with_default: bool = False) -> list[ContextRecord]:
        """The conversation's contexts, oldest first; none where no conversation is known."""
        sandbox = self._conversations.get(conversation) if conversation.key else None
        if sandbox is None:
            return []
        return [
            context.record() for context in sandbox.contexts.values() if with_default or context is not sandbox.default
        ]

    def has_context(self, conversation: Conversation, context_id: str) -> bool:
        """Whether it is among those that `list_contexts` gives: for doors that must reach no other conversation's."""
        sandbox = self._conversations.get(conversation) if conversation.key else None
        context = sandbox.contexts.get(context_id) if sandbox is not None else None
        return sandbox is not None and context is not None and context is not sandbox.default

    async def delete_context(self, conversation: Conversation, context_id: str) -> None:
        """End a context with everything that it started. Raises UnknownContext, InvalidArgument for a default one."""
        context = self._find(conversation, context_id)
        if self._sandbox_of[context_id].default is context:
            raise InvalidArgument(
                "The default context cannot be deleted. Use create_context for contexts with a life of their own."
            )
        await asyncio.shield(self._errand(self._remove(context)))

    # -- what reports left out ------------------------------------------------------------------------------------

    async def read_output(
        self, conversation: Conversation, context_id: str, run: int, stream: Stream, offset: int, limit: int
    ) -> OutputPage:
        """Lines of a stored output. Raises UnknownContext; another CallerError where it is not stored."""
        return await self._files(conversation, context_id).read_output(run, stream, offset, limit)

    async def read_shown(
        self, conversation: Conversation, context_id: str, run: int, name: str, limit_bytes: int
    ) -> bytes:
        """A displayed value that became a file. Raises UnknownContext; another CallerError where it is not stored."""
        return await self._files(conversation, context_id).read_shown(run, name, limit_bytes)

    async def read_file(self, conversation: Conversation, context_id: str, path: str, limit_bytes: int) -> bytes:
        """A file beneath the context's work directory. Raises UnknownContext; another CallerError if it is refused."""
        return await self._files(conversation, context_id).read_file(path, limit_bytes)

    def _files(self, conversation: Conversation, context_id: str) -> ContextFiles:
        self._find(conversation, context_id)
        files = self._engine.files(context_id)
        if files is None:
            raise InvalidArgument("The engine behind this context keeps no outputs or files that could be read.")
        return files

    # -- conversations with a life of their own -------------------------------------------------------------------

    def open_conversation(self, conversation: Conversation, envs: Mapping[str, str] = NO_ENVS) -> None:
        """Keep the sandbox of a conversation, with its files, until `close_conversation`.

        `envs` are given to every context made in it from now on. Raises InvalidArgument.
        """
        check_envs(envs)
        sandbox = self._sandbox(conversation)
        sandbox.kept, sandbox.envs = True, dict(envs)

    async def close_conversation(self, conversation: Conversation) -> None:
        """End all contexts of a conversation, the default one as well, and remove its files. Unknown ones pass."""
        sandbox = self._conversations.get(conversation)
        if sandbox is not None:
            await asyncio.shield(self._errand(self._close_sandbox(sandbox)))

    def listen(self, conversation: Conversation, context_id: str, sink: Sink | None) -> None:
        """Have what a context prints between its runs go to `sink` at once; None keeps it for the next run again."""
        self._find(conversation, context_id).listen(sink)

    # -- which context --------------------------------------------------------------------------------------------

    async def _context_for(self, call: RunCall, empty: bool) -> tuple[LiveContext, list[str]]:
        if call.context_id:
            return self._find(call.conversation, call.context_id), []
        if not call.conversation.key:
            if empty:
                raise InvalidArgument(
                    "code is empty and no context_id is given: name the context to wait for, or give code."
                )
            context = await self._create(self._sandbox(call.conversation))
            return context, [
                f"A new context was made for this call. To go on in it, pass context_id={context.info.context_id!r}."
            ]
        sandbox = self._sandbox(call.conversation)
        if sandbox.default is not None:
            return sandbox.default, []
        if sandbox.making is None or sandbox.making.done():
            sandbox.making = self._begin_creating(sandbox, default=True)
        return await shielded(sandbox.making), []

    def _find(self, conversation: Conversation, context_id: str) -> LiveContext:
        context = self._contexts.get(context_id)
        if context is None or context.deleted or context.owner.principal != conversation.principal:
            raise UnknownContext(context_id)
        return context

    def _sandbox(self, conversation: Conversation) -> _Sandbox:
        if not conversation.key:
            return _Sandbox(_new_sandbox_id(), conversation)
        sandbox = self._conversations.get(conversation)
        if sandbox is None:
            sandbox = self._conversations[conversation] = _Sandbox(_new_sandbox_id(), conversation)
        return sandbox

    async def _create(self, sandbox: _Sandbox, cwd: str = "", envs: Mapping[str, str] = NO_ENVS) -> LiveContext:
        task = self._begin_creating(sandbox, cwd, envs)
        try:
            return await shielded(task)
        except asyncio.CancelledError:  # nobody will ever know its handle
            task.add_done_callback(self._remove_made)
            raise

    def _begin_creating(
        self, sandbox: _Sandbox, cwd: str = "", envs: Mapping[str, str] = NO_ENVS, *, default: bool = False
    ) -> asyncio.Task[LiveContext]:
        """Make a context in a task of its own: a cancelled call leaves nothing half made. Raises LimitReached."""
        principal = sandbox.conversation.principal
        check_room_for_context(
            self._limits,
            len(sandbox.contexts) + sandbox.coming,
            self._of_principal[principal] if principal else 0,
            len(self._contexts) + self._coming,
        )
        sandbox.coming += 1
        self._coming += 1
        self._of_principal[principal] += 1
        return self._errand(
            self._create_now(sandbox, ContextSpec(sandbox.sandbox_id, cwd, {**sandbox.envs, **envs}), default)
        )

    async def _create_now(self, sandbox: _Sandbox, spec: ContextSpec, default: bool) -> LiveContext:
        late = LateOutput()
        began_s = time.monotonic()
        try:
            info = await self._engine.create(spec, late.take)
        except BaseException:
            sandbox.coming -= 1
            self._forget_one(sandbox.conversation.principal)
            await self._drop_if_empty(sandbox)
            raise
        finally:
            self._coming -= 1
        sandbox.coming -= 1
        context = LiveContext(
            self._engine, self._limits, info, sandbox.conversation, late, self._on_idle, self.observer
        )
        self.observer.context_created(sandbox.conversation, info, spec, default=default)
        self.observer.context_took(info.context_id, time.monotonic() - began_s)
        self._contexts[info.context_id] = context
        self._sandbox_of[info.context_id] = sandbox
        sandbox.contexts[info.context_id] = context
        if sandbox.closed:
            await self._remove(context)
            raise UnknownContext(info.context_id)
        if default:
            sandbox.default = context
        self._touch(context)
        _log.info("context.created", context_id=info.context_id, contexts=len(self._contexts))
        return context

    def _remove_made(self, task: asyncio.Task[LiveContext]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._errand(self._remove(task.result()))

    def _errand(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Work that a cancelled call must not tear apart; `close` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)
        return task

    # -- waiting --------------------------------------------------------------------------------------------------

    async def _wait(
        self, context: LiveContext, run: Run, deadline_s: float, on_progress: Callable[[Progress], None] | None
    ) -> None:
        """Return when the run has ended or the deadline has come. Where this is cancelled, see `Service.run`."""
        meter = None
        if on_progress is not None:
            meter = ProgressMeter(run.progress, on_progress)
            run.on_change.append(meter.touch)
        try:
            await run.wait(deadline_s - time.monotonic())
        except asyncio.CancelledError:
            if not run.waiters:
                context.abandon(run)
            raise
        finally:
            if meter is not None:
                run.on_change.remove(meter.touch)
                meter.close()

    # -- the end of contexts --------------------------------------------------------------------------------------

    def _on_idle(self, context: LiveContext) -> None:
        if not context.deleted:
            self._touch(context)

    def _touch(self, context: LiveContext) -> None:
        """The context was used: its idle time begins anew. A timer that is set stays, and looks again as it rings."""
        loop = asyncio.get_running_loop()
        context.touched_s = loop.time()
        if context.info.context_id not in self._expiries:
            self._expire_in(self._limits.idle_expiry_s, context)

    def _expire_in(self, seconds: float, context: LiveContext) -> None:
        timer = asyncio.get_running_loop().call_later(seconds, self._expire, context)
        self._expiries[context.info.context_id] = timer

    def _expire(self, context: LiveContext) -> None:
        del self._expiries[context.info.context_id]
        if not context.idle:  # the end of its last run begins the idle time
            return
        left_s = context.touched_s + self._limits.idle_expiry_s - asyncio.get_running_loop().time()
        if left_s > 0:
            self._expire_in(left_s, context)
            return
        _log.info("context.expired", context_id=context.info.context_id)
        self._errand(self._remove(context))

    async def _remove(self, context: LiveContext) -> None:
        context_id = context.info.context_id
        sandbox = self._sandbox_of.pop(context_id, None)
        if sandbox is None:
            return
        del self._contexts[context_id], sandbox.contexts[context_id]
        self._forget_one(context.owner.principal)
        if sandbox.default is context:
            sandbox.default = None
        handle = self._expiries.pop(context_id, None)
        if handle is not None:
            handle.cancel()
        await context.delete()
        self.observer.context_deleted(context.owner, context_id)
        _log.info("context.deleted", context_id=context_id, contexts=len(self._contexts))
        await self._drop_if_empty(sandbox)

    def _forget_one(self, principal: str) -> None:
        """One context less; who has none left is forgotten."""
        self._of_principal[principal] -= 1
        if not self._of_principal[principal]:
            del self._of_principal[principal]

    async def _close_sandbox(self, sandbox: _Sandbox) -> None:
        sandbox.closed = True
        self._conversations.pop(sandbox.conversation, None)
        for context in list(sandbox.contexts.values()):
            await self._remove(context)
        sandbox.kept = False
        await self._drop_if_empty(sandbox)

    async def _drop_if_empty(self, sandbox: _Sandbox) -> None:
        """A sandbox goes, with its files, when its last context has gone, none is coming, and none is to be kept."""
        if sandbox.kept or sandbox.contexts or sandbox.coming:
            return
        if self._conversations.get(sandbox.conversation) is sandbox:
            del self._conversations[sandbox.conversation]
        await self._engine.delete_sandbox(sandbox.sandbox_id)


def _new_sandbox_id() -> str:
    return "sbx_" + secrets.token_hex(8)
