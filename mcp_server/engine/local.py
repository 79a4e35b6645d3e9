"""The engine on this machine: contexts are workers in a cell. The I/O of one worker is in `process`."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

import structlog

from mcp_server.engine.base import ContextFiles
from mcp_server.engine.cells import Cells
from mcp_server.engine.files import LocalFiles, SandboxFiles
from mcp_server.engine.process import Died, WorkerProcess
from mcp_server.engine.turn import Ended
from mcp_server.errors import CodeInterpreterError, EngineUnavailable, UnknownContext
from mcp_server.model import (
    ContextInfo,
    ContextSpec,
    EngineCapabilities,
    Outcome,
    RunRequest,
    Sink,
    State,
    Status,
)
from mcp_server.sandbox.cell import Cell, WorkerExit
from mcp_server.sandbox.limits import Ceilings, Excess, MemoryKeeper, Unlimited, memory_keeper

HANDLE_BYTES = 16
"""128 bits from a secure source: without authentication, knowing a handle is the right to use it."""

NAME_CHARS = 12
"""Within its sandbox a context is called by the beginning of its handle: enough to be its own, not the whole secret."""

OUTPUTS_QUOTA_BYTES = 256 * 1024 * 1024
"""Per sandbox, of complete outputs on file."""

INTERRUPT_GRACE_S = 2.0
"""How long code may take to end after SIGINT before it is killed and its variables are lost."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Worker:
    """A process, the cell it lives in, and who watches its memory."""

    cell: Cell
    process: WorkerProcess
    memory: MemoryKeeper
    tag: int

    def judge(self, worker_exit: WorkerExit) -> None:
        """Tell the process of its end, and which limit it was killed for."""
        excess = self.memory.excess(self.tag) if worker_exit.signal == signal.SIGKILL else None
        self.process.on_exit(
            replace(
                worker_exit,
                out_of_memory=excess is Excess.MEMORY,
                too_many_processes=excess is Excess.PROCESSES,
            )
        )

    async def end(self) -> None:
        """Kill it and all that it started, then close what the host holds of it. Idempotent."""
        destroyed = self.cell.destroy(self.process.worker_id)
        self.process.kill()  # at once, while the cell still looks for the others
        await destroyed
        self.memory.release(self.tag)
        self.process.on_exit(
            WorkerExit(exit_code=None, signal=signal.SIGKILL)
        )  # whoever still waits; an exit seen before stands
        await self.process.close()


@dataclass(slots=True)
class _Context:
    """One context of the registry. ``worker`` is None from the loss of one until the next run starts another.

    ``lost`` says why the variables are gone, until a run has said it. ``stop_reason`` is why the present run was told
    to stop; the first reason stands.
    """

    info: ContextInfo
    spec: ContextSpec
    late: Sink
    worker: _Worker | None = None
    lost: str = ""
    running: bool = False
    stop_reason: Status | None = None
    grace: asyncio.TimerHandle | None = None
    deleted: bool = False
    files: LocalFiles | None = None
    home: Cell | None = None

    @property
    def name(self) -> str:
        """What it is called within its sandbox."""
        return self.info.context_id[:NAME_CHARS]


class LocalEngine:
    """See `engine.base.Engine`. ``new_cell`` makes an unstarted cell; a cell that dies is replaced by another.

    ``new_bare_cell`` makes one that serves while such a cell loads its modules; without it the first contexts wait.
    """

    def __init__(
        self,
        new_cell: Callable[[], Cell],
        capabilities: EngineCapabilities,
        interrupt_grace_s: float = INTERRUPT_GRACE_S,
        outputs_quota_bytes: int = OUTPUTS_QUOTA_BYTES,
        ceilings: Ceilings | None = None,
        new_bare_cell: Callable[[], Cell] | None = None,
    ) -> None:
        self._cells = Cells(new_cell, new_bare_cell)
        self._capabilities = capabilities
        self._grace_s = interrupt_grace_s
        self._outputs_quota_bytes = outputs_quota_bytes
        self._sandbox_files: dict[str, SandboxFiles] = {}
        self._ceilings = ceilings
        self._memory: MemoryKeeper = Unlimited()
        self._contexts: dict[str, _Context] = {}
        self._beginning: set[_Worker] = set()
        self._errands: set[asyncio.Task[None]] = set()

    @property
    def capabilities(self) -> EngineCapabilities:
        return self._capabilities

    async def start(self) -> None:
        if self._ceilings is not None:
            self._memory = memory_keeper(self._ceilings, lambda _tag: _log.warning("context.over_memory"))
            _log.info("memory.keeper", keeper=self._memory.name, ceiling_bytes=self._ceilings.memory_bytes)
            self._cells.memory = self._memory
        await self._cells.start()

    async def warmed(self) -> None:
        """Return when new contexts find loaded what is to be preloaded, or it is known that they never will."""
        await self._cells.warmed()

    async def create(self, spec: ContextSpec, late: Sink) -> ContextInfo:
        context_id = "ctx_" + secrets.token_urlsafe(HANDLE_BYTES)
        context = _Context(ContextInfo(context_id, spec.cwd), spec, late)
        worker, cwd = await self._start_worker(context)
        context.info = ContextInfo(context_id, cwd)
        self._contexts[context_id] = context
        self._attach(context, worker)
        return context.info

    async def execute(self, context_id: str, request: RunRequest, sink: Sink) -> Outcome:
        context = self._contexts.get(context_id)
        if context is None:
            raise UnknownContext(context_id)
        if context.running:
            raise RuntimeError("runs of one context must not overlap")
        context.running = True
        context.stop_reason = None
        try:
            outcome = await self._attempt(context, request, sink)
            if outcome is None:  # the worker had died unnoticed, and no code has run
                outcome = await self._attempt(context, request, sink)
            if outcome is None:
                raise EngineUnavailable("The interpreter ended as soon as it had started, twice.")
            return outcome
        finally:
            context.running = False

    async def interrupt(self, context_id: str, reason: Status) -> bool:
        context = self._contexts.get(context_id)
        if context is None or not context.running:
            return False
        self._stop(context, reason)
        return True

    def files(self, context_id: str) -> ContextFiles | None:
        context = self._contexts.get(context_id)
        return context.files if context is not None else None

    async def delete(self, context_id: str) -> None:
        context = self._contexts.pop(context_id, None)
        if context is None:
            return
        context.deleted = True
        context.stop_reason = Status.CANCELLED
        await self._end_worker(context)
        if context.files is not None:
            context.files.remove()

    async def delete_sandbox(self, sandbox_id: str) -> None:
        for context_id in [key for key, context in self._contexts.items() if context.spec.sandbox_id == sandbox_id]:
            await self.delete(context_id)
        files = self._sandbox_files.pop(sandbox_id, None)
        if files is not None:
            files.close()
        await self._cells.delete_sandbox(sandbox_id)

    async def close(self) -> None:
        self._cells.refuse()
        for context_id in list(self._contexts):
            await self.delete(context_id)
        await asyncio.gather(*(worker.end() for worker in self._beginning))
        if self._errands:
            await asyncio.wait(self._errands)
        for files in self._sandbox_files.values():
            files.close()
        self._sandbox_files.clear()
        await self._cells.close()
        self._memory.close()

    # -- one run --------------------------------------------------------------------------------------------------

    async def _attempt(self, context: _Context, request: RunRequest, sink: Sink) -> Outcome | None:
        """Run the code; None where the worker was dead before the code could reach it."""
        lost_before = context.lost
        if context.worker is None:
            self._attach(context, (await self._start_worker(context))[0])
        context.lost = ""
        worker = context.worker
        if worker is None or context.deleted:  # the context was deleted while its worker was starting
            await self._end_worker(context)
            return Outcome(Status.CANCELLED, State.RESET, lost_before=lost_before, detail="the context was deleted")
        began_s = time.monotonic()
        timer = self._arm_timeout(context, request.timeout_s)
        end: Ended | Died | None = None
        try:
            if context.stop_reason is not None:  # told to stop while the worker was starting
                self._stop(context, context.stop_reason)
            self._memory.busy(worker.tag)
            end = await worker.process.run(request, sink)
        finally:
            self._memory.idle(worker.tag)
            for handle in (timer, context.grace):
                if handle is not None:
                    handle.cancel()
            context.grace = None
            if end is None:  # given up, or the sink failed: nobody waits for this code any more
                context.lost = "the run before this one was given up, and its interpreter was ended"
                context.worker = None
                self._errand(worker.end())
        elapsed_s = time.monotonic() - began_s
        if isinstance(end, Died):
            await self._end_worker(context)
            if end.unreached and not context.deleted:
                context.lost = f"its interpreter ended between runs ({end})"
                return None
            context.lost = f"the interpreter ended during the run before this one ({end})"
            return _outcome_of_death(end, context, elapsed_s, lost_before)
        return _outcome_of_end(end, context.stop_reason, elapsed_s, lost_before)

    def _arm_timeout(self, context: _Context, timeout_s: float) -> asyncio.TimerHandle | None:
        if timeout_s <= 0:
            return None
        return asyncio.get_running_loop().call_later(timeout_s, self._stop, context, Status.TIMEOUT)

    def _stop(self, context: _Context, reason: Status) -> None:
        """Interrupt what runs, and arm the kill that follows an interrupt that is ignored."""
        if context.stop_reason is None:
            context.stop_reason = reason
        if context.worker is None or context.grace is not None:
            return
        process = context.worker.process
        process.interrupt()
        context.grace = asyncio.get_running_loop().call_later(self._grace_s, process.kill)

    # -- workers --------------------------------------------------------------------------------------------------

    async def _start_worker(self, context: _Context) -> tuple[_Worker, str]:
        """A worker for a context, and the directory it stands in. Nothing is left of it where this fails."""
        sandbox_id = context.spec.sandbox_id
        cell = await self._cells.serving(sandbox_id)
        exits: asyncio.Future[WorkerExit] = asyncio.get_running_loop().create_future()
        own_directory = not context.spec.cwd and cell.plan.workspace is None
        spawned = await cell.spawn(sandbox_id, exits.set_result, context.name, own_directory=own_directory)
        worker = _Worker(cell, WorkerProcess(spawned, context.late), self._memory, spawned.tag)
        exits.add_done_callback(lambda done: worker.judge(done.result()))
        self._beginning.add(worker)
        try:
            own = cell.work_dir(sandbox_id)
            cwd = context.spec.cwd or (os.path.join(own, context.name) if own_directory else own)
            return worker, await worker.process.begin(cwd, context.spec.envs)
        except CodeInterpreterError:
            await worker.end()
            raise
        except asyncio.CancelledError:
            self._errand(worker.end())
            raise
        finally:
            self._beginning.discard(worker)

    def _files_of(self, context: _Context, cell: Cell) -> LocalFiles | None:
        if not cell.stores_outputs:
            return None
        sandbox_id = context.spec.sandbox_id
        files = self._sandbox_files.get(sandbox_id)
        if files is None or files.cell is not cell:
            files = self._sandbox_files[sandbox_id] = SandboxFiles(cell, sandbox_id, self._outputs_quota_bytes)
        return files.of_context(context.info.context_id, context.name)

    def _attach(self, context: _Context, worker: _Worker) -> None:
        context.worker = worker
        if context.home is not worker.cell:
            context.home, context.files = worker.cell, self._files_of(context, worker.cell)
        worker.process.died.add_done_callback(lambda died: self._on_death(context, worker, died.result()))

    def _on_death(self, context: _Context, worker: _Worker, died: Died) -> None:
        """A worker that dies while no run is on is noticed here; one that dies in a run, by that run."""
        if context.running or context.worker is not worker:
            return
        context.lost = f"its interpreter ended between runs ({died})"
        _log.warning("worker.died_idle", context_id=context.info.context_id, how=str(died))
        self._errand(self._end_worker(context))

    async def _end_worker(self, context: _Context) -> None:
        worker, context.worker = context.worker, None
        if worker is not None:
            await worker.end()

    def _errand(self, work: Coroutine[Any, Any, None]) -> None:
        """Work that nobody waits for but `close`."""
        task = asyncio.get_running_loop().create_task(work)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)


def _outcome_of_end(ended: Ended, reason: Status | None, elapsed_s: float, lost_before: str) -> Outcome:
    """The reason for which the host sent an interrupt stands over what the code says of itself."""
    status = reason or (Status.OK if ended.error is None else Status.ERROR)
    return Outcome(
        status=status, elapsed_s=elapsed_s, error=ended.error, exit_code=ended.exit_code, lost_before=lost_before
    )


def _outcome_of_death(died: Died, context: _Context, elapsed_s: float, lost_before: str) -> Outcome:
    status, detail = Status.CRASHED, str(died)
    if context.deleted:
        status, detail = Status.CANCELLED, "the context was deleted"
    elif died.exit.out_of_memory:
        status = Status.OUT_OF_MEMORY
    elif context.stop_reason is not None:
        status = context.stop_reason
        detail = "it went on after the interrupt and was killed"
    return Outcome(
        status=status,
        state=State.RESET,
        elapsed_s=elapsed_s,
        exit_code=died.exit.exit_code,
        signal=died.exit.signal,
        lost_before=lost_before,
        detail=detail,
    )
