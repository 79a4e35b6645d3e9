"""One live context: its queue, the run that is on, and the reports that are due."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import structlog

from mcp_server.engine.base import Engine
from mcp_server.errors import CodeInterpreterError, InternalError, LimitReached, NothingToReport, UnknownContext
from mcp_server.model import (
    Chunk,
    ContextInfo,
    ContextRecord,
    Conversation,
    Outcome,
    OutputChunk,
    RunCall,
    RunRequest,
    Sink,
    Status,
    Stream,
)
from mcp_server.service.limits import MAX_DUE_REPORTS, MAX_QUEUED_RUNS, ServiceLimits
from mcp_server.service.observer import RunKey, ServiceObserver
from mcp_server.service.run import Run
from mcp_server.service.store import Late, RunStore
from mcp_server.shaping.stream import StreamShaper

MAX_FILE_LINKS = 20
"""A report lists as many files by name."""

LATE_WINDOW_CHARS = 2_000
"""How much of what background threads print between runs is kept to be shown."""

LATE_RAW_BYTES = 256 * 1024
"""How much of it is kept as it came: for the file that a report names, and for a run whose chunks are streamed."""

_log = structlog.get_logger(__name__)


class LateOutput:
    """Keeps what a context prints while no run is on, until the next run tells it; or a `listener` takes it at once."""

    def __init__(self) -> None:
        self.listener: Sink | None = None
        self._shaper: StreamShaper | None = None
        self._head = bytearray()
        self._tail = bytearray()
        self._missing_bytes = 0

    def take(self, chunk: Chunk) -> Awaitable[None] | None:
        if self.listener is not None:
            return self.listener(chunk)
        if isinstance(chunk, OutputChunk):
            if self._shaper is None:
                self._shaper = StreamShaper(LATE_WINDOW_CHARS)
            self._shaper.feed(chunk.data)
            room = LATE_RAW_BYTES // 2 - len(self._head)
            self._head += chunk.data[:room]
            self._tail += chunk.data[room:]
            over = len(self._tail) - LATE_RAW_BYTES // 2
            if over > 0:
                self._missing_bytes += over
                del self._tail[:over]
        return None

    def cut(self) -> Late | None:
        """What has come since the last cut; None where nothing has."""
        if self._shaper is None:
            return None
        gap = b"\n[%d bytes printed between runs were left out]\n" % self._missing_bytes if self._missing_bytes else b""
        late = Late(self._shaper.finish(), b"".join((self._head, gap, self._tail)), not self._missing_bytes)
        self._shaper = None
        self._head.clear()
        self._tail.clear()
        self._missing_bytes = 0
        return late


class LiveContext:
    """Runs go through here first in, first out. `on_idle` is called whenever the queue has run empty."""

    def __init__(
        self,
        engine: Engine,
        limits: ServiceLimits,
        info: ContextInfo,
        owner: Conversation,
        late: LateOutput,
        on_idle: Callable[[LiveContext], None],
        observer: ServiceObserver,
    ) -> None:
        self.info = info
        self.owner = owner
        self.created_at = self.last_used_at = datetime.now(UTC)
        self.touched_s = 0.0
        self.deleted = False
        self._engine = engine
        self._limits = limits
        self._late = late
        self._on_idle = on_idle
        self._observer = observer
        self._runs = 0
        self._queue: deque[Run] = deque()
        self._current: Run | None = None
        self._due: deque[Run] = deque()
        self._dropped = 0
        self._pump: asyncio.Task[None] | None = None
        self._errands: set[asyncio.Task[bool]] = set()

    @property
    def idle(self) -> bool:
        return self._current is None and not self._queue

    def submit(self, call: RunCall, raw: Sink | None = None) -> Run:
        """Queue code; with `raw`, its chunks go there and no report is ever due. Raises LimitReached."""
        if len(self._queue) >= MAX_QUEUED_RUNS:
            raise LimitReached(
                f"Context {self.info.context_id} has {len(self._queue)} runs waiting, the most it may have. "
                "Wait for them (run_code with empty code), or use interrupt=true.",
                "queued_runs",
            )
        self._runs += 1
        window = call.max_output_chars or self._limits.max_output_chars
        timeout_s = self._limits.default_timeout_s if call.timeout_s is None else call.timeout_s
        key = RunKey(self.owner, self.info.context_id, self._runs)
        run = Run(key, call, timeout_s, window, raw)
        self._queue.append(run)
        self._observer.run_queued(key, call, streamed=run.streamed)
        if raw is None:
            self._make_due(run)
        if self._pump is None:
            self._pump = asyncio.get_running_loop().create_task(self._run_queue())
        return run

    def _make_due(self, run: Run) -> None:
        self._due.append(run)
        oldest = self._due[0]
        if len(self._due) > MAX_DUE_REPORTS and oldest.done and not oldest.waiters:
            self._due.popleft().dropped()
            self._dropped += 1

    def oldest_due(self) -> Run:
        """The run whose report an empty code asks for. Raises NothingToReport."""
        if not self._due:
            raise NothingToReport(
                f"code is empty, and context {self.info.context_id} has nothing running or waiting to be reported. "
                "Give code to run."
            )
        return self._due[0]

    def queued_behind(self, run: Run) -> int:
        """How many runs of this context come before this one."""
        if run not in self._queue:
            return 0
        return self._queue.index(run) + (self._current is not None)

    async def _end(self, run: Run, outcome: Outcome) -> None:
        self._observer.run_printed(run.key, run.output_bytes)
        self._observer.run_ended(run.key, outcome)
        files = self._engine.files(self.info.context_id)
        if files is None or run.streamed:
            run.end(outcome)
            return
        changes, incomplete = await files.changes(outcome.elapsed_s)
        run.end(outcome, changes, [files.link(change) for change in changes[:MAX_FILE_LINKS]], incomplete)

    def _log_end(self, run: Run, outcome: Outcome) -> None:
        _log.info(
            "run.ended",
            context_id=self.info.context_id,
            run=run.number,
            status=outcome.status,
            state=outcome.state,
            elapsed_s=round(outcome.elapsed_s, 4),
        )

    def _fail(self, run: Run, error: CodeInterpreterError) -> None:
        self._observer.run_failed(run.key, error)
        run.fail(error)

    def reported(self, run: Run) -> None:
        """The report of the run's end has been given."""
        if run in self._due:
            self._due.remove(run)

    def notices(self, run: Run) -> list[str]:
        """What the reader of this run's report should know of the others."""
        due = [str(other.number) for other in self._due if other.number < run.number and not other.waiters]
        notices = []
        if due:
            one = f"The report of run {due[0]} is still due: run_code with empty code returns it."
            several = (
                f"The reports of runs {', '.join(due)} are still due: run_code with empty code returns the oldest."
            )
            notices.append(one if len(due) == 1 else several)
        if self._dropped:
            notices.append(f"{self._dropped} older reports that nobody fetched were dropped.")
            self._dropped = 0
        return notices

    async def interrupt(self) -> bool:
        """Stop what is running; False where nothing is. What is queued stays."""
        return await self._engine.interrupt(self.info.context_id, Status.INTERRUPTED)

    def listen(self, sink: Sink | None) -> None:
        """Have what is printed between runs go to `sink` at once; None keeps it for the next run again."""
        self._late.listener = sink

    def abandon(self, run: Run) -> None:
        """The call of a run was cancelled and no other waits: take it from the queue, or interrupt it."""
        self.reported(run)
        run.dropped()
        if run in self._queue:
            self._queue.remove(run)
            outcome = Outcome(Status.CANCELLED, detail="it was cancelled before it began")
            self._observer.run_ended(run.key, outcome)
            run.end(outcome)
        elif run is self._current:
            errand = asyncio.get_running_loop().create_task(
                self._engine.interrupt(self.info.context_id, Status.CANCELLED)
            )
            self._errands.add(errand)
            errand.add_done_callback(self._errands.discard)

    def fail_queued(self, error: CodeInterpreterError) -> None:
        """Begin none of the runs that wait for their turn."""
        while self._queue:
            self._fail(self._queue.popleft(), error)

    async def delete(self) -> None:
        """End the context. Queued runs fail; a running one ends as cancelled."""
        self.deleted = True
        self.fail_queued(UnknownContext(self.info.context_id))
        await self._engine.delete(self.info.context_id)

    def record(self) -> ContextRecord:
        current = self._current
        return ContextRecord(
            context_id=self.info.context_id,
            cwd=self.info.cwd,
            created_at=self.created_at,
            last_used_at=self.last_used_at,
            activity="idle" if self.idle else "running",
            runs=self._runs,
            expires_after_idle_s=self._limits.idle_expiry_s,
            running_since=current.running_since if current else None,
            last_line=current.progress().last_line if current else "",
        )

    async def _run_queue(self) -> None:
        try:
            while self._queue:
                self._current = self._queue.popleft()
                await self._carry_out(self._current)
                self._current = None
                self.last_used_at = datetime.now(UTC)
        finally:
            self._current = None
            self._pump = None
            self._on_idle(self)

    async def _carry_out(self, run: Run) -> None:
        request = RunRequest(run.number, run.call.code, run.timeout_s, run.call.envs)
        files = self._engine.files(self.info.context_id)
        try:
            outputs = await files.begin(run.number) if files is not None and not run.streamed else None
            late = self._late.cut()
            run.begin(late, RunStore(outputs))
            self._observer.run_began(run.key)
            if late is not None and run.streamed:
                wait = run.take(OutputChunk(Stream.STDOUT, late.data))
                if wait is not None:
                    await wait
            outcome = await self._engine.execute(self.info.context_id, request, run.take)
        except CodeInterpreterError as error:
            _log.warning("run.failed", context_id=self.info.context_id, run=run.number, error=type(error).__name__)
            self._fail(run, error)
        else:
            await self._end(run, outcome)
            asyncio.get_running_loop().call_soon(self._log_end, run, outcome)  # whoever waits for the run comes first
        finally:
            if not run.done:
                fault = InternalError("The run could not be carried out: a fault of the server's, see its log.")
                self._fail(run, fault)
