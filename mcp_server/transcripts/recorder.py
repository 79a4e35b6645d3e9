"""Writes down what happens in each conversation, to a file of its own. No run waits for it, and none fails with it."""

from __future__ import annotations

import atexit
import hashlib
import os
import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from mcp_server.errors import CodeInterpreterError, SetupFailed
from mcp_server.model import ContextInfo, ContextSpec, Conversation, Outcome, Report, RunCall
from mcp_server.service import ServiceLimits, ServiceObserver
from mcp_server.service.observer import RunKey
from mcp_server.transcripts import lines

MAX_WAITING_BYTES = 64 * 1024 * 1024
"""Of lines that a slow disk has not taken yet; what comes beyond is lost, and that is counted."""

FLUSH_S = 5.0
"""How long the end of the process waits for the disk."""

_log = structlog.get_logger(__name__)


class TranscriptRecorder(ServiceObserver):
    """Records each conversation below `directory`; contexts outside of any conversation have a file each.

    `version` is the server's. With `with_envs` the values of environment variables are written down as well. Raises
    SetupFailed where the directory cannot be had.
    """

    def __init__(self, directory: Path, limits: ServiceLimits, version: str, *, with_envs: bool = False) -> None:
        self._writer = FileWriter(directory)
        self._limits = limits
        self._version = version
        self._with_envs = with_envs
        # Of this server alone, so that the next one begins files of its own.
        self._prefix = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}"
        atexit.register(self._writer.flush)

    @property
    def lost(self) -> int:
        """How many lines could not be written."""
        return self._writer.lost

    def flush(self) -> None:
        """Return when all is written that was said until now, after `FLUSH_S` at most."""
        self._writer.flush()

    def context_created(self, owner: Conversation, info: ContextInfo, spec: ContextSpec, *, default: bool) -> None:
        created = lines.ContextCreated(
            context_id=info.context_id,
            cwd=info.cwd,
            asked_cwd=spec.cwd,
            envs=self._shown(spec.envs),
            default=default,
        )
        self._write(owner, info.context_id, created)

    def context_deleted(self, owner: Conversation, context_id: str) -> None:
        self._write(owner, context_id, lines.ContextDeleted(context_id=context_id))

    def run_queued(self, run: RunKey, call: RunCall, *, streamed: bool) -> None:
        queued = lines.RunQueued(
            context_id=run.context_id,
            run=run.number,
            code=call.code,
            timeout_s=call.timeout_s,
            wait_s=call.wait_s,
            max_output_chars=call.max_output_chars,
            interrupt=call.interrupt,
            envs=self._shown(call.envs),
            streamed=streamed,
        )
        self._write(run.owner, run.context_id, queued)

    def run_began(self, run: RunKey) -> None:
        self._write(run.owner, run.context_id, lines.RunBegan(context_id=run.context_id, run=run.number))

    def run_ended(self, run: RunKey, outcome: Outcome) -> None:
        error = outcome.error
        ended = lines.RunEnded(
            context_id=run.context_id,
            run=run.number,
            status=outcome.status.value,
            state=outcome.state.value,
            elapsed_s=round(outcome.elapsed_s, 4),
            error=lines.Failure(name=error.name, message=error.message) if error is not None else None,
            exit_code=outcome.exit_code,
            signal=outcome.signal,
        )
        self._write(run.owner, run.context_id, ended)

    def run_failed(self, run: RunKey, error: CodeInterpreterError) -> None:
        failed = lines.RunFailed(context_id=run.context_id, run=run.number, reason=str(error))
        self._write(run.owner, run.context_id, failed)

    def report_given(self, run: RunKey, report: Report) -> None:
        images = tuple(
            lines.Image(mime=image.mime, size_bytes=len(image.data), sha256=hashlib.sha256(image.data).hexdigest())
            for image in report.images
        )
        given = lines.ReportGiven(
            context_id=run.context_id, run=run.number, record=dict(report.record), text=report.text, images=images
        )
        self._write(run.owner, run.context_id, given)

    def _write(self, owner: Conversation, context_id: str, line: lines.Line) -> None:
        key = owner.key or context_id
        # The key is what a client chose: it goes into the file, never into its name.
        digest = hashlib.sha256(f"{owner.principal}\0{key}".encode("utf-8", "surrogatepass")).hexdigest()
        header = lines.Header(
            version=lines.VERSION,
            server=self._version,
            conversation=key,
            principal=owner.principal,
            timeout_s=self._limits.default_timeout_s,
            max_output_chars=self._limits.max_output_chars,
        )
        self._writer.put(_Entry(f"{self._prefix}-{digest[:32]}.jsonl", header, line.encode()))

    def _shown(self, envs: Mapping[str, str]) -> dict[str, str | None]:
        return {name: value if self._with_envs else None for name, value in envs.items()}


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line for a file, and what the file begins with where it is new."""

    name: str
    header: lines.Header
    line: bytes


class FileWriter:
    """Appends lines to files in a thread; keeps no file open, and remembers nothing of those that are well.

    A line that cannot be written leaves no part of itself. How many were lost is said in the file by a line of its
    own, as soon as one can be written again.
    """

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SetupFailed(f"--transcript {directory}: {error.strerror}.") from None
        if not os.access(directory, os.W_OK | os.X_OK):
            os.close(self._directory)
            raise SetupFailed(f"--transcript {directory}: this user may not write there.")
        self.lost = 0
        self._lost_of: dict[str, int] = {}
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._entries: queue.SimpleQueue[_Entry | threading.Event] = queue.SimpleQueue()
        threading.Thread(target=self._write_all, name="transcripts", daemon=True).start()

    def put(self, entry: _Entry) -> None:
        with self._lock:
            if self._waiting_bytes > MAX_WAITING_BYTES:
                self._lose(entry.name, "the disk is too slow")
                return
            self._waiting_bytes += len(entry.line)
        self._entries.put(entry)

    def flush(self) -> None:
        written = threading.Event()
        self._entries.put(written)
        written.wait(FLUSH_S)

    def _write_all(self) -> None:
        while True:
            entry = self._entries.get()
            if isinstance(entry, threading.Event):
                entry.set()
                continue
            with self._lock:
                lost = self._lost_of.get(entry.name, 0)
            try:
                self._append(entry, lines.LinesLost(lines=lost).encode() if lost else b"")
            except OSError as error:
                with self._lock:
                    self._lose(entry.name, error.strerror or str(error))
            else:
                self._told(entry.name, lost)
            with self._lock:
                self._waiting_bytes -= len(entry.line)

    def _told(self, name: str, lost: int) -> None:
        """The file says now that so many were lost before."""
        if lost:
            with self._lock:
                self._lost_of[name] -= lost
                if not self._lost_of[name]:
                    del self._lost_of[name]

    def _append(self, entry: _Entry, gap: bytes) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(entry.name, flags, 0o600, dir_fd=self._directory)
        try:
            before = os.fstat(fd).st_size
            data = memoryview((b"" if before else entry.header.encode()) + gap + entry.line)
            try:
                while data:
                    data = data[os.write(fd, data) :]
            except OSError:
                os.ftruncate(fd, before)
                raise
        finally:
            os.close(fd)

    def _lose(self, name: str, reason: str) -> None:
        """With the lock held."""
        if name not in self._lost_of:
            _log.error("transcript.failed", file=name, reason=reason)
        self._lost_of[name] = self._lost_of.get(name, 0) + 1
        self.lost += 1
