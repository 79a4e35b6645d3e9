"""One run: from its place in the queue to its report."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from mcp_server.errors import CodeInterpreterError
from mcp_server.model import (
    Chunk,
    DisplayChunk,
    FileChange,
    Outcome,
    OutputChunk,
    Progress,
    Report,
    ResourceLink,
    RunCall,
    Sink,
    Status,
    StoredOutput,
    Stream,
)
from mcp_server.service.observer import RunKey
from mcp_server.service.store import LATE, Late, RunStore
from mcp_server.shaping.report import RunRecord, compose
from mcp_server.shaping.stream import StreamShaper
from mcp_server.shaping.window import NOTHING, ShapedText

MAX_DISPLAYS = 100
MAX_DISPLAY_BYTES = 32 * 1024 * 1024
"""Per report. The worker holds back well before; code that forges frames is held back here."""


class DisplayShelf:
    """The values that a run has shown since its last report: the first ones, and always the result."""

    def __init__(self) -> None:
        self.kept: list[DisplayChunk] = []
        self._bytes = 0
        self._dropped = 0

    def put(self, chunk: DisplayChunk) -> None:
        size = sum(len(form.data) for form in chunk.representations)
        if len(self.kept) >= MAX_DISPLAYS + chunk.is_result or self._bytes + size > MAX_DISPLAY_BYTES:
            self._dropped += 1
            return
        self._bytes += size
        self.kept.append(chunk)

    def notices(self) -> list[str]:
        if not self._dropped:
            return []
        return [f"{self._dropped} displayed values were left out: a report takes {MAX_DISPLAYS}"]


class Run:
    """What one code does and what is known of it. Feeds its shapers as chunks come; keeps nothing else of the output.

    `waiters` counts the calls that wait for it now. It is *due* until a report of its end has been given. With `raw`,
    its chunks go there unshaped, and there is no report.
    """

    def __init__(
        self,
        key: RunKey,
        call: RunCall,
        timeout_s: float,
        window_chars: int,
        raw: Sink | None = None,
    ) -> None:
        self.key = key
        self.number = key.number
        self.context_id = key.context_id
        self.call = call
        self.timeout_s = timeout_s
        self.status = Status.QUEUED
        self.done = False
        self.running_since: datetime | None = None
        self.failure: CodeInterpreterError | None = None
        self.on_change: list[Callable[[], None]] = []
        self._awaited: list[asyncio.Future[None]] = []
        self._created_s = time.monotonic()
        self._began_s = 0.0
        self._window_chars = window_chars
        self._shapers: dict[Stream, StreamShaper] = {}
        self._last_shaper: StreamShaper | None = None
        self._displays = DisplayShelf()
        self.outcome: Outcome | None = None
        self._raw = raw
        self._raw_bytes = 0
        self._final: RunRecord | None = None
        self._reported_before = False
        self._late: Late | None = None
        self._store = RunStore(None)
        self._files: Sequence[FileChange] = ()
        self._notices: list[str] = []
        self._file_links: Sequence[ResourceLink] = ()

    @property
    def waiters(self) -> int:
        return len(self._awaited)

    @property
    def streamed(self) -> bool:
        return self._raw is not None

    # -- what happens to it ---------------------------------------------------------------------------------------

    def begin(self, late: Late | None, store: RunStore) -> None:
        """It leaves the queue. `late` is what its context printed since the run before."""
        self._store = store
        self.status = Status.RUNNING
        self.running_since = datetime.now(UTC)
        self._began_s = time.monotonic()
        self._late = late
        self._changed()

    def take(self, chunk: Chunk) -> Awaitable[None] | None:
        """The sink of its execution."""
        if self._raw is not None:
            if isinstance(chunk, OutputChunk):
                self._raw_bytes += len(chunk.data)
            return self._raw(chunk)
        if isinstance(chunk, OutputChunk):
            self._last_shaper = self._shapers.get(chunk.stream) or self._begin_stream(chunk.stream)
            self._last_shaper.feed(chunk.data)
            self._store.take(chunk)
        else:
            self._displays.put(self._store.put(chunk))
        self._changed()
        return None

    def end(
        self,
        outcome: Outcome,
        files: Sequence[FileChange] = (),
        links: Sequence[ResourceLink] = (),
        incomplete: str = "",
    ) -> None:
        """It has ended; `files` are those that it made or changed, `incomplete` why not all may be among them."""
        self.outcome = outcome
        if incomplete:
            self._notices.append(incomplete)
        self._files, self._file_links = files, links
        self._store.finish()
        self.status = outcome.status
        self._finish()

    def fail(self, error: CodeInterpreterError) -> None:
        """It could not be carried out: whoever waits gets the error."""
        self.failure = error
        self.status = Status.CANCELLED
        self._finish()

    async def wait(self, seconds: float) -> None:
        """Return when it has ended, or so many seconds have gone by; `math.inf` for no such limit."""
        if self.done:
            return
        loop = asyncio.get_running_loop()
        awaited: asyncio.Future[None] = loop.create_future()
        self._awaited.append(awaited)
        timer = loop.call_later(max(seconds, 0), _resolve, awaited) if seconds != math.inf else None
        try:
            await awaited
        finally:
            self._awaited.remove(awaited)
            if timer is not None:
                timer.cancel()

    def _finish(self) -> None:
        self.done = True
        for awaited in self._awaited:
            _resolve(awaited)

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

    @property
    def output_bytes(self) -> int:
        """What it has printed so far."""
        return self._raw_bytes + sum(shaper.total_bytes for shaper in self._shapers.values())

    def progress(self) -> Progress:
        last_line = self._last_shaper.last_line() if self._last_shaper is not None else ""
        return Progress(self.status, self.elapsed_s, last_line)

    def report(self, budget_chars: int, queued_behind: int, notices: Sequence[str]) -> Report:
        """The report as of now: of its end where it has ended, else of what is new since the report before.

        Raises what kept the run from being carried out.
        """
        if self.failure is not None:
            raise self.failure
        if self._final is not None:
            return self._compose(self._final, budget_chars)
        ended = self.outcome is not None
        stdout, stderr = self._shaped(Stream.STDOUT, final=ended), self._shaped(Stream.STDERR, final=ended)
        record = self._record(stdout, stderr, queued_behind, notices)
        self._reported_before = self.status is not Status.QUEUED
        if ended:
            self._final = record
        else:
            self._displays = DisplayShelf()
        return self._compose(record, budget_chars)

    def _begin_stream(self, stream: Stream) -> StreamShaper:
        """Most runs print on one stream or on none."""
        shaper = self._shapers[stream] = StreamShaper(self._window_chars)
        return shaper

    def _shaped(self, stream: Stream, *, final: bool) -> ShapedText:
        shaper = self._shapers.get(stream)
        if shaper is None:
            return NOTHING
        return shaper.finish() if final else shaper.cut()

    def settled(self) -> None:
        """Its last report has been given."""
        self._store.close()

    def dropped(self) -> None:
        """Nobody will ask for its report: nothing of it need be kept."""
        self._store.remove()

    def _compose(self, record: RunRecord, budget_chars: int) -> Report:
        """The report; what it leaves out is put on file, and the report names the file."""
        report = compose(record, budget_chars)
        cut = _cut(report.record) if report.record["truncated"] else ()
        if cut:
            stored = {name: self._keep(name) for name in cut}
            record = replace(
                record,
                stored_stdout=stored.get(Stream.STDOUT),
                stored_stderr=stored.get(Stream.STDERR),
                stored_late=stored.get(LATE),
            )
            report = compose(record, budget_chars)
        links = (*self._store.links, *self._file_links)
        return replace(report, links=links) if links else report

    def _keep(self, name: str) -> StoredOutput | None:
        if name == LATE:
            return None if self._late is None else self._store.keep_late(self._late)
        return self._store.keep(Stream(name))

    def _record(self, stdout: ShapedText, stderr: ShapedText, queued_behind: int, notices: Sequence[str]) -> RunRecord:
        outcome = self.outcome or Outcome(self.status)
        return RunRecord(
            status=self.status,
            context_id=self.context_id,
            run=self.number,
            elapsed_s=self.elapsed_s,
            state=outcome.state,
            limit_s=self.timeout_s,
            error=outcome.error,
            exit_code=outcome.exit_code,
            signal=outcome.signal,
            detail=outcome.detail,
            lost_before=outcome.lost_before,
            displays=self._displays.kept,
            stdout=stdout,
            stderr=stderr,
            late=None if self._late is None or self._reported_before else self._late.text,
            notices=[*notices, *self._notices, *self._displays.notices()],
            continued=self._reported_before,
            queued_behind=queued_behind,
            files=self._files,
        )

    def ended(self) -> Outcome:
        """How it ended. Raises what kept it from being carried out."""
        if self.failure is not None:
            raise self.failure
        if self.outcome is None:
            raise RuntimeError("the run has not ended")
        return self.outcome


def _cut(record: Mapping[str, Any]) -> list[str]:
    """The outputs of which a report shows less than all."""
    told = [name for name in (Stream.STDOUT, Stream.STDERR, LATE) if name in record]
    return [name for name in told if record[name]["shown_chars"] < record[name]["total_chars"]]


def _resolve(awaited: asyncio.Future[None]) -> None:
    if not awaited.done():
        awaited.set_result(None)
