"""`sys.stdin`, `sys.stdout` and `sys.stderr` of a context, and the descriptors under them.

The descriptors 1 and 2 are pipes that the host reads, so child processes and C code need nothing from here. What user
code does to them, or to the objects in `sys`, holds until its run ends.
"""

from __future__ import annotations

import builtins
import fcntl
import importlib
import io
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

globals()["__builtins__"] = dict(vars(builtins))

_other_threads: Callable[[], int] = importlib.import_module("_thread")._count  # noqa: SLF001  (no public name tells it as cheaply)
_thread_id = threading.get_ident
_live_frames = sys._current_frames  # noqa: SLF001  (knows threads made without `threading` too)
_plain_write = io.TextIOWrapper.write
_plain_flush = io.TextIOWrapper.flush
_fstat = os.fstat
_dup2 = os.dup2
_get_blocking = os.get_blocking
_set_blocking = os.set_blocking

_flush_c: Callable[[None], int] | None = None

_LONGEST_PART_CHARS = 8192
"""A line without end is passed on in parts of this size, as `io.TextIOWrapper` does."""

NO_INPUT = (
    "There is no standard input here: nobody can type an answer. "
    "Put the value into the code, or read it from a file or an environment variable."
)


class LineStream(io.TextIOWrapper):
    """A text stream over a descriptor, line-buffered; lines of several threads are never mixed.

    `print` writes a text and its line end apart, and the descriptor's write lets another thread in between. So while
    there are other threads, each has the begin of its line kept until the line is whole or the thread flushes.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        raw = io.FileIO(descriptor, "w", closefd=False)
        raw.name = name
        super().__init__(
            io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", newline="\n", line_buffering=True
        )
        self.mode = "w"  # type: ignore[misc]  # `open` sets it so as well
        self._begun: dict[int, str] = {}
        self._lock = threading.RLock()

    def write(self, text: str, /) -> int:
        if not _other_threads() and not self._begun:
            return _plain_write(self, text)
        return self._write_whole_lines(text)

    def flush(self) -> None:
        if not _other_threads() and not self._begun:
            _plain_flush(self)
            return
        self._write_out(_thread_id())
        with self._lock:
            _plain_flush(self)

    def settle(self) -> None:
        """Flush for all threads that are no more, and for this one."""
        if self._begun:
            alive = _live_frames().keys() - {_thread_id()}
            for thread in list(self._begun.keys() - alive):
                self._write_out(thread)
        self.flush()

    def hold(self) -> None:
        """Before a fork: no other thread may be within a write, or the child could never write."""
        self._lock.acquire()

    def release(self) -> None:
        """After a fork, in parent and child."""
        self._lock.release()

    def forget_other_threads(self) -> None:
        """In a forked child: the threads that had begun lines are not here."""
        own = self._begun.get(_thread_id())
        self._begun = {} if own is None else {_thread_id(): own}

    def _write_whole_lines(self, text: str) -> int:
        if not isinstance(text, str):
            return _plain_write(self, text)
        thread = _thread_id()
        line = self._begun.pop(thread, "") + text
        whole = max(line.rfind("\n"), line.rfind("\r")) + 1
        if len(line) - whole > _LONGEST_PART_CHARS:
            whole = len(line)
        if whole:
            with self._lock:
                _plain_write(self, line[:whole])
        if whole < len(line):
            self._begun[thread] = line[whole:]
        return len(text)

    def _write_out(self, thread: int) -> None:
        begun = self._begun.pop(thread, "")
        with self._lock:
            _plain_write(self, begun)


class _NoInput(io.RawIOBase):
    """Fails where a program would wait for ever, with a sentence that says what to do."""

    name = "<stdin>"
    mode = "r"

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 0

    def readinto(self, _buffer: Any, /) -> int:
        raise EOFError(NO_INPUT)


class Streams:
    """Gives each run usable streams and descriptors, whatever the run before did to them."""

    def __init__(self) -> None:
        """Where the descriptors 1 and 2 are pipes, if not yet those that count."""
        self._spares: dict[int, int] = {}
        self._files: dict[int, tuple[int, int] | None] = {}
        self._held: tuple[LineStream, ...] = ()
        self._replaced = (sys.stdin, sys.stdout, sys.stderr)  # taking them apart would write to pages that are shared
        self._make_output()
        self._make_input()

    def open(self, place: int) -> None:
        """The pipes are there. Near the descriptor `place` copies are safe from code that closes the low ones."""
        lowest = max(3, place - 2)
        for number in (1, 2):
            self._spares[number] = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, lowest)
            self._files[number] = _identity(number)
        os.register_at_fork(before=self._hold, after_in_parent=self._release, after_in_child=self._release_in_child)

    def begin(self) -> None:
        """Put our streams into `sys`."""
        if not (_usable(self.stdout) and _usable(self.stderr)):
            self._make_output()
        if not _usable(self.stdin):
            self._make_input()
        sys.stdin = sys.__stdin__ = self.stdin  # type: ignore[misc]  # final for others; this is who sets it
        sys.stdout = sys.__stdout__ = self.stdout  # type: ignore[misc]
        sys.stderr = sys.__stderr__ = self.stderr  # type: ignore[misc]

    def end(self) -> None:
        """Flush what a run wrote, into the descriptors as it left them; into ours where that fails.

        The buffers of C code are flushed where `ctypes` is loaded (numpy loads it), as nothing else reaches them.
        """
        flushed = self._flush()
        _flush_c_streams()
        if not flushed:
            self.restore()
            self._flush()

    def restore(self) -> None:
        """Put the descriptors back, whatever a run did to them. The host need not wait for that."""
        for number, spare in self._spares.items():
            if _identity(number) != self._files[number]:
                _dup2(spare, number)
            if not _get_blocking(number):  # a child process may have changed what it shares with us
                _set_blocking(number, True)
        try:
            _get_blocking(0)
        except OSError:
            _dup2(os.open(os.devnull, os.O_RDONLY), 0)

    def _make_output(self) -> None:
        self.stdout = LineStream(1, "<stdout>")
        self.stderr = LineStream(2, "<stderr>")

    def _make_input(self) -> None:
        self.stdin = io.TextIOWrapper(io.BufferedReader(_NoInput()), encoding="utf-8")

    def _flush(self) -> bool:
        """False where some of it could not be written."""
        done = True
        for stream in (self.stdout, self.stderr):
            try:
                stream.settle()
            except Exception:  # the descriptor is closed; the stream is closed or detached; its methods are the user's
                done = False
        return done

    def _hold(self) -> None:
        self._held = (self.stdout, self.stderr)
        for stream in self._held:
            stream.hold()

    def _release(self) -> None:
        for stream in self._held:
            stream.release()

    def _release_in_child(self) -> None:
        self._release()
        for stream in self._held:
            stream.forget_other_threads()


def _flush_c_streams() -> None:
    try:
        flush = c_flush()
        if flush is not None:
            flush(None)
    except BaseException:  # an audit hook of the user's, which is asked before calls of C: there it stays
        return


def c_flush() -> Callable[[None], int] | None:
    """C's fflush, which flushes all of C's streams when it is called with None. None where `ctypes` is not loaded.

    The zygote asks for it, so that no context has to make it.
    """
    global _flush_c
    if _flush_c is None:
        _flush_c = _find_c_flush()
    return _flush_c


def _find_c_flush() -> Callable[[None], int] | None:
    loader: Any = getattr(sys.modules.get("ctypes"), "CDLL", None)
    if loader is None:  # it may be within an import, by a thread
        return None
    flush: Callable[[None], int] = loader(None).fflush
    return flush


def _identity(descriptor: int) -> tuple[int, int] | None:
    """Which file a descriptor stands for; None where it is closed."""
    try:
        status = _fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _usable(stream: io.TextIOWrapper) -> bool:
    try:
        return not stream.closed and (stream.line_buffering or not stream.writable())
    except ValueError:  # detached
        return False
