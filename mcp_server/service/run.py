"""One run: from its place in the queue to its report."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from mcp_server.errors import CodeInterpreterError
from mcp_server.model import (
    Chunk,
    DisplayChunk,
    Outcome,
    OutputChunk,
    Progress,
    Report,
    RunCall,
    Sink,
    Status,
    Stream,
)
from mcp_server.shaping.report import RunRecord, compose
from mcp_server.shaping.stream import ShapedText, StreamShaper


class Run:
    """What one code does and what is known of it. Feeds its shapers as chunks come; keeps nothing else of the output.

    `waiters` counts the calls that wait for it now. It is *due* until a report of its end has been given. With `raw`, its
    chunks go there unshaped, and there is no report.
    """

    def __init__(self, number: int, context_id: str, call: RunCall, window_chars: int, raw: Sink | None = None) -> None:
        self.number = number
        self.context_id = context_id
        self.call = call
        self.status = Status.QUEUED
        self.done = asyncio.Event()
        self.waiters = 0
        self.running_since: datetime | None = None
        self.failure: CodeInterpreterError | None = None
        self.on_change: list[Callable[[], None]] = []
        self._created_s = time.monotonic()
        self._began_s = 0.0
        self._stdout = StreamShaper(window_chars)
        self._stderr = StreamShaper(window_chars)
        self._displays: list[DisplayChunk] = []
        self._last_stream = self._stdout
        self.outcome: Outcome | None = None
        self._raw = raw
        self._final: RunRecord | None = None
        self._yielded = False
        self._late: ShapedText | None = None

    # -- what happens to it ---------------------------------------------------------------------------------------

    def begin(self, late: ShapedText | None) -> None:
        """It leaves the queue. `late` is what its context printed since the run before."""
        self.status = Status.RUNNING
        self.running_since = datetime.now(UTC)
        self._began_s = time.monotonic()
        self._late = late
        self._changed()

    def take(self, chunk: Chunk) -> Awaitable[None] | None:
        """The sink of its execution."""
        if self._raw is not None:
            return self._raw(chunk)
        if isinstance(chunk, OutputChunk):
            self._last_stream = self._stdout if chunk.stream is Stream.STDOUT else self._stderr
            self._last_stream.feed(chunk.data)
        else:
            self._displays.append(chunk)
        self._changed()
        return None

    def end(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.status = outcome.status
        self.done.set()

    def fail(self, error: CodeInterpreterError) -> None:
        """It could not be carried out: whoever waits gets the error."""
        self.failure = error
        self.status = Status.CANCELLED
        self.done.set()

    def _changed(self) -> None:
        for tell in self.on_change:
            tell()

    # -- what is known of it --------------------------------------------------------------------------------------

    @property
    def elapsed_s(self) -> float:
        """Seconds of running; of waiting while it is queued."""
        if self.outcome is not None:
            return self.outcome.elapsed_s
        return time.monotonic() - (self._began_s if self.status is Status.RUNNING else self._created_s)

    def progress(self) -> Progress:
        return Progress(self.status, self.elapsed_s, self._last_stream.last_line())

    def report(self, budget_chars: int, queued_behind: int, notices: Sequence[str]) -> Report:
        """The report as of now: of the whole run where it has ended, else of what is new since the last one.

        Raises what kept the run from being carried out.
        """
        if self.failure is not None:
            raise self.failure
        if self.outcome is None:
            record = self._record(self._stdout.cut(), self._stderr.cut(), queued_behind, notices)
            self._yielded = True
        else:
            if self._final is None:
                self._final = self._record(self._stdout.finish(), self._stderr.finish(), 0, notices)
            record = self._final
        return compose(record, budget_chars)

    def ended(self) -> Outcome:
        """How it ended. Raises what kept it from being carried out."""
        if self.failure is not None:
            raise self.failure
        if self.outcome is None:
            raise RuntimeError("the run has not ended")
        return self.outcome
