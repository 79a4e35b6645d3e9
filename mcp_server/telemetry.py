"""The log: one event a line on stderr, JSON unless a terminal reads it. Never code, output or argument values.

An event's name is stable; `EVENTS` lists them all. What users control (paths, header values) is escaped, so that no
control character of theirs reaches an operator's terminal, and handles are shortened, since knowing one is the right to
use it. Nothing here waits for whoever reads stderr: a client that does not read it loses lines, which are counted, and
hangs nobody.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import queue
import re
import select
import sys
import threading
import traceback
from collections.abc import MutableMapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, TextIO

import structlog

from mcp_server.settings import LogFormat, LogLevel

EVENTS = MappingProxyType(
    {
        "call.failed": "a tool call met a fault of the server's",
        "call.refused": "a tool call could not be carried out as asked",
        "cell.hung_up": "the channel to a cell broke",
        "cell.leftovers": "processes or files of a cell could not be removed",
        "cell.not_needed": "a cell was no longer needed before it was ready",
        "cell.not_warm": "a cell could not load its modules; contexts import them themselves",
        "cell.no_outputs": "the directory for complete outputs cannot be had",
        "cell.lost": "a cell's zygote died; the next context starts another",
        "cell.unshared": "what a cell has loaded is not behind a file; contexts take more memory and time",
        "cell.warm": "a cell has loaded its modules, and serves from now on",
        "context.created": "a context was made",
        "context.deleted": "a context was ended",
        "context.expired": "a context was not used for its idle time",
        "context.survivors": "processes of a deleted context are still there",
        "context.over_memory": "a context was ended for the memory that it took",
        "issuer.keys": "the keys of the authorization server were fetched",
        "issuer.silent": "the authorization server did not answer as it should",
        "library.message": "a library's own warning",
        "log.dropped": "log lines were lost because nobody read stderr",
        "memory.keeper": "what holds contexts to their memory",
        "outputs.given_up": "complete outputs of a run can no longer be stored",
        "preload.failed": "a module that was to be preloaded could not be imported",
        "run.ended": "a run came to its end",
        "run.failed": "a run could not be carried out",
        "sandbox.files_left": "files of a sandbox could not be removed",
        "sandbox.not_kept_alive": "a sandbox on a server elsewhere could not be told that it is still used",
        "sandbox.not_deleted": "a sandbox on a server elsewhere could not be removed",
        "server.listening": "HTTP requests are taken",
        "server.started": "the server is ready",
        "server.stopping": "the server was told to stop, or its client went away",
        "service.closed": "every context has ended",
        "service.started": "the engine is ready",
        "spares.missing": "contexts could not be kept ready; new ones take longer",
        "tokens.kept": "the token file cannot be used as it is now; what was read before holds on",
        "tokens.loaded": "the token file was read again",
        "transcript.failed": "lines of a transcript could not be written",
        "toolbox.call_failed": "a call of the toolbox door met a fault of the server's",
        "worker.died_idle": "a context's interpreter ended between runs",
    }
)

MAX_VALUE_CHARS = 2_000
MAX_WAITING_LINES = 1_000
"""Lines kept while nobody reads stderr; about 300 KiB."""

FLUSH_S = 1.0
"""How long the end of the process waits for the log to be read."""

_HANDLE = re.compile(r"(ctx_[\w-]{8})[\w-]{8,}")

_NUMBERS = (int, float, type(None))
"""What stays as it is; a bool is an int."""

_CLIENT_HAS_GONE = ("ClientDisconnect",)
"""Exceptions that libraries log as errors although nothing failed: whoever asked has hung up. By name, so that
starlette need not be loaded for it."""

Event = MutableMapping[str, Any]


class StderrWriter:
    """Writes a line where stderr takes it at once, else hands it to a thread: a full pipe blocks the thread alone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._fd = _descriptor(stream)
        self._poll = select.poll()
        if self._fd is not None:
            self._poll.register(self._fd, select.POLLOUT)
        self._lock = threading.Lock()
        self._lines: queue.Queue[str | threading.Event] = queue.Queue(MAX_WAITING_LINES)
        self._dropped = 0
        threading.Thread(target=self._write_all, name="log", daemon=True).start()

    def msg(self, message: str) -> None:
        with self._lock:
            if not self._dropped and not self._lines.unfinished_tasks and self._written_at_once(message):
                return
            try:
                if self._dropped:
                    told = {"event": "log.dropped", "lines": self._dropped, "level": "warning"}
                    self._lines.put_nowait(json.dumps(told))
                    self._dropped = 0
                self._lines.put_nowait(message)
            except queue.Full:
                self._dropped += 1

    debug = info = warning = error = critical = exception = msg

    def flush(self) -> None:
        """Wait until all is written, `FLUSH_S` at most."""
        written = threading.Event()
        try:
            self._lines.put(written, timeout=FLUSH_S)
        except queue.Full:
            return
        written.wait(FLUSH_S)

    def _written_at_once(self, message: str) -> bool:
        """What is writable takes `PIPE_BUF` bytes without waiting (POSIX), and none of them between others."""
        data = f"{message}\n".encode("utf-8", "backslashreplace")
        if self._fd is None or len(data) > select.PIPE_BUF or not self._poll.poll(0):
            return False
        with suppress(OSError):  # stderr was closed: there is nobody to tell
            os.write(self._fd, data)
        return True

    def _write_all(self) -> None:
        while True:
            line = self._lines.get()
            try:
                if isinstance(line, threading.Event):
                    line.set()
                else:
                    self._write(line)
            except (OSError, ValueError):  # stderr was closed: there is nobody to tell
                return
            finally:
                self._lines.task_done()

    def _write(self, line: str) -> None:
        """Past the stream's buffer where that can be: who flushes it, as `logging` at the end, waits for its lock."""
        if self._fd is None:
            self._stream.write(line + "\n")
            self._stream.flush()
            return
        data = f"{line}\n".encode("utf-8", "backslashreplace")
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # whoever started us shares it, and does not want to be blocked
                select.select((), (self._fd,), ())


def _descriptor(stream: TextIO) -> int | None:
    """None for a stream that has none, such as one in memory."""
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


class _LibraryHandler(logging.Handler):
    """Brings what libraries log through `logging` into the same stream."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[0] is not None and record.exc_info[0].__name__ in _CLIENT_HAS_GONE:
            return
        log = structlog.get_logger("library")
        fields = {"library": record.name, "message": record.getMessage()}
        log.log(record.levelno, "library.message", exc_info=record.exc_info or None, **fields)


def configure(level: LogLevel, log_format: LogFormat, stream: TextIO | None = None) -> StderrWriter:
    """Set the log up for this process; `stream` is stderr unless given."""
    stream = stream or sys.stderr
    console = log_format is LogFormat.CONSOLE or (log_format is LogFormat.AUTO and stream.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    writer = StderrWriter(stream)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _place_of_fault,
            escape_values,
            _console_renderer(stream) if console else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=True,
    )
    # Libraries' chatter below a warning may repeat what clients sent.
    logging.basicConfig(handlers=[_LibraryHandler()], level=max(number, logging.WARNING), force=True)
    atexit.register(writer.flush)
    return writer


def escape_values(_logger: object, _method: str, event: Event) -> Event:
    """Strings become printable and bounded, without whole handles; what is neither text nor number becomes text."""
    for key, value in event.items():
        if not isinstance(value, _NUMBERS):
            text = printable(str(value))
            event[key] = _HANDLE.sub(r"\1…", text) if "ctx_" in text else text
    return event


def printable(text: str) -> str:
    """Control, format and lone surrogate characters as escapes, at most `MAX_VALUE_CHARS` of it."""
    shown = text[:MAX_VALUE_CHARS]
    if not shown.isprintable():
        shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in shown)
    return shown if len(text) <= MAX_VALUE_CHARS else shown + f"… (+{len(text) - MAX_VALUE_CHARS} characters)"


def _place_of_fault(_logger: object, _method: str, event: Event) -> Event:
    """An exception as its type and where it came from. Its message may repeat code or arguments, so it stays out."""
    info = event.pop("exc_info", None)
    if not info:
        return event
    if not isinstance(info, tuple):
        info = sys.exc_info() if info is True else (type(info), info, info.__traceback__)
    kind, error, _ = info
    if kind is not None and error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        event["error"] = kind.__qualname__
        event["at"] = " < ".join(f"{os.path.basename(f.filename)}:{f.lineno} {f.name}" for f in reversed(frames))
    return event


def _console_renderer(stream: TextIO) -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(colors=stream.isatty() and "NO_COLOR" not in os.environ)
