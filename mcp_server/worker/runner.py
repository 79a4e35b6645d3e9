"""One run: a cell compiled, executed, its result shown, and how it ended as bytes for the host."""

from __future__ import annotations

import builtins
import contextvars
import json
import linecache
import os
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

from . import commands, frames, plaintext, tracebacks
from .cells import Cell, Compiler
from .channel import Channel
from .display import Display
from .interrupts import Interrupts
from .rebirth import BlasThreads
from .sources import SourceStore
from .streams import Streams

globals()["__builtins__"] = dict(vars(builtins))

_process_id = os.getpid
_exit_process = os._exit
_write = os.write
_environ = os.environ
_set_time_zone = time.tzset
_get_recursion_limit = sys.getrecursionlimit
_set_recursion_limit = sys.setrecursionlimit
_get_trace = sys.gettrace
_set_trace = sys.settrace
_evaluate = eval

_LEAST_RECURSION = 1000
"""Python's default; reporting an error needs some depth too."""

_REHEARSAL = "<rehearsal>"

_quoted: Callable[[str], str] = json.encoder.encode_basestring_ascii


class Ending(NamedTuple):
    """How a run ended: with an error, with an exit code, or (neither) at the end of its code."""

    failure: tracebacks.Failure | None = None
    exit_code: int | None = None


class Context:
    """The globals of one context and everything that a run needs. Lives in the main thread."""

    def __init__(self, channel: Channel, streams: Streams, interrupts: Interrupts, blas: BlasThreads) -> None:
        self._channel = channel
        self._streams = streams
        self._interrupts = interrupts
        self._blas = blas
        self._display = Display(channel)
        self._compiler = Compiler(SourceStore())
        self._variables = contextvars.copy_context()
        self._awaiter: Any = None
        self._owner = 0
        self._trace: Any = None
        self._replaced: dict[str, str | None] = {}
        self._globals: dict[str, Any] = {}
        self._replaced_main = sys.modules.get("__main__")  # taking it apart would write to pages that contexts share
        sys.argv[:] = [""]
        sys.path[:] = ["", *filter(None, sys.path)]
        builtins.__dict__[commands.CALL] = commands.run

    def begin(self) -> None:
        """This process is the context's."""
        self._owner = _process_id()
        self._globals = _fresh_main()

    def rehearse(self, request: frames.Frame) -> None:
        """Go through what every run does, with a cell of its own that leaves nothing."""
        self._streams.begin()
        self._display.begin()
        self._interrupts.begin()
        self._interrupts.end()
        source = request.body.decode("utf-8", "surrogatepass")
        cell = Compiler(SourceStore()).compile(source, _REHEARSAL)
        self._blas.before(source)
        self._variables.run(_evaluate_cell, cell, {})
        plaintext.plain_text(0)
        self._streams.end()
        _end_frame(request.header["run"], Ending())
        self._streams.restore()
        linecache.cache.pop(_REHEARSAL, None)

    def run(self, request: frames.Frame) -> None:
        """Carry out one RUN and answer it. Raises nothing of the user's."""
        number = request.header["run"]
        ending = self._attempt(request)
        if _process_id() != self._owner:
            self._leave_child(ending)
        if self._replaced:  # here, where no interrupt can cut it short
            before, self._replaced = self._replaced, {}
            _restore(before)
        self._streams.end()
        self._channel.end(_end_frame(number, ending))
        self._streams.restore()

    def _attempt(self, request: frames.Frame) -> Ending:
        ending = Ending()
        self._streams.begin()
        self._channel.begin()
        self._display.begin()
        try:
            try:
                self._interrupts.begin()
                try:
                    self._execute(request)
                except BaseException as error:
                    ending = self._ending_of(error)
                if _process_id() == self._owner:
                    self._display.finish()
            finally:
                if _get_recursion_limit() < _LEAST_RECURSION:
                    _set_recursion_limit(_LEAST_RECURSION)
                self._trace = _get_trace()
                if self._trace is not None:
                    _set_trace(None)
                self._interrupts.end()
        except BaseException as late:  # an interrupt while the error was being described
            self._interrupts.end()
            name = type(late).__name__
            ending = Ending(tracebacks.Failure(name, "", name))
        return ending

    def _execute(self, request: frames.Frame) -> None:
        source = request.body.decode("utf-8", "surrogatepass")
        envs = request.header["envs"]
        if envs:
            self._replaced = {name: _environ.get(name) for name in envs}
            _environ.update(envs)
            _renew_time_zone(envs)
        self._execute_cell(source, request.header["run"])

    def _execute_cell(self, source: str, number: int) -> None:
        cell = self._compiler.compile(source, "<cell %d>" % number)
        self._blas.before(source)
        if self._trace is not None:
            _set_trace(self._trace)
        self._globals.pop("__warningregistry__", None)  # else a warning is shown once per line number of all cells
        value = self._await(cell) if cell.awaits else self._variables.run(_evaluate_cell, cell, self._globals)
        if value is not None:
            builtins._ = value  # type: ignore[attr-defined]
            if cell.shown:
                self._display.show_result(value)

    def _await(self, cell: Cell) -> Any:
        if self._awaiter is None:
            with self._interrupts.shield():  # an import that is cut short cannot be made up for
                from .coroutines import Awaiter  # asyncio is dear to import, where nothing awaits

            self._awaiter = Awaiter(self._interrupts, self._variables)
        return self._awaiter.run(cell, self._globals)

    def _ending_of(self, error: BaseException) -> Ending:
        if isinstance(error, SystemExit):
            return Ending(exit_code=self._exit_code(error.code))
        return Ending(tracebacks.describe(error))

    def _exit_code(self, code: object) -> int:
        """As the interpreter takes what `exit` was given: nothing is 0, a text goes to stderr and is 1."""
        if code is None:
            return 0
        if isinstance(code, int):
            return int(code) if -(2**31) <= code < 2**31 else -1
        self._streams.stderr.write("%s\n" % (code,))
        return 1

    def _leave_child(self, ending: Ending) -> NoReturn:
        """End a forked child that came back from the cell: the run is its parent's."""
        if ending.failure is not None:
            _write(2, ending.failure.traceback.encode("utf-8", "backslashreplace") + b"\n")
        self._streams.end()
        _exit_process((ending.exit_code or 0) & 0xFF if ending.failure is None else 1)


def _evaluate_cell(cell: Cell, namespace: dict[str, Any]) -> Any:
    """The value of the last expression, None where there is none."""
    if cell.body is not None:
        _evaluate(cell.body, namespace)
    return None if cell.last is None else _evaluate(cell.last, namespace)


def _fresh_main() -> dict[str, Any]:
    """The namespace of a new `__main__`. It has no `__file__`, which `multiprocessing` would run again in children."""
    module = ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = module
    return module.__dict__


def _restore(before: dict[str, str | None]) -> None:
    try:
        for name, value in before.items():
            if value is None:
                _environ.pop(name, None)
            else:
                _environ[name] = value
        _renew_time_zone(before)
    except Exception:
        _write(2, b"[the environment could not be restored: its functions have been replaced]\n")


def _renew_time_zone(names: dict[str, Any]) -> None:
    if "TZ" in names:
        _set_time_zone()


def _end_frame(number: int, ending: Ending) -> bytes:
    """Written by hand: it must not depend on anything that user code can spoil."""
    failure = ending.failure
    error = "null"
    if failure is not None:
        parts = (_quoted(failure.name), _quoted(failure.message), _quoted(failure.traceback))
        error = '{"name":%s,"message":%s,"traceback":%s}' % parts
    header = b'{"run":%d,"status":"%s","error":%s,"exit_code":%s}' % (
        number,
        b"ok" if failure is None else b"error",
        error.encode("ascii"),
        b"null" if ending.exit_code is None else b"%d" % ending.exit_code,
    )
    return frames.PREFIX.pack(frames.END, len(header), 0) + header
