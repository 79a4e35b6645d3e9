"""Signals: SIGINT reaches the user's code while a run is on, and no handler of the user's runs outside one.

Python runs signal handlers in the main thread between any two instructions. A handler that raises would tear a frame
or lose a request if it ran in the worker's own code, so between runs, and while a frame is sent, the user's handlers
are replaced by one that remembers the signal; the next moment of user code gets it.
"""

from __future__ import annotations

import builtins
import importlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

globals()["__builtins__"] = dict(vars(builtins))

# The functions behind `signal`'s: without the enum conversions (1 µs each), and out of reach of a patched `signal`.
_signal = importlib.import_module("_signal")
_getsignal: Callable[[int], Any] = _signal.getsignal
_setsignal: Callable[[int, Any], Any] = _signal.signal
_sigmask: Callable[[int, tuple[int, ...]], Any] = _signal.pthread_sigmask
_thread_id = threading.get_ident
_process_id = os.getpid
_send_signal = os.kill

_SIGINT = int(signal.SIGINT)
_UNBLOCK = int(signal.SIG_UNBLOCK)
_HOLDABLE = tuple(sorted(int(number) for number in signal.valid_signals() if number < signal.SIGRTMIN))


class Interrupts:
    """The state of one process. All but `shield` belongs to the main thread."""

    def __init__(self) -> None:
        self._main_thread = _thread_id()
        self._armed = False
        self._shields = 0
        self._remembered: set[int] = set()
        self._held: dict[int, Any] = {}
        # Told apart from the user's handlers by `is`: their `==` would be the user's code.
        self._interrupt: Callable[..., None] = self._on_sigint
        self._remember: Callable[..., None] = self._on_signal_held
        self.divert: Callable[[FrameType | None], bool] | None = None
        """Asked before an interrupt is raised; answers True where it will make the code stop in its own way."""

    def take_over(self) -> None:
        """Be the handler of SIGINT from now on, ignoring it until a run begins."""
        _setsignal(_SIGINT, self._interrupt)

    def begin(self) -> None:
        """A run starts: interrupts count, and handlers that user code set in an earlier run act again."""
        _sigmask(_UNBLOCK, (_SIGINT,))
        _setsignal(_SIGINT, self._interrupt)
        self._remembered.discard(_SIGINT)
        self._armed = True
        self._release()

    def end(self) -> None:
        """A run is over. Returns once no signal can raise any more; may be called again."""
        while True:
            try:
                self._armed = False
                self.divert = None
                self._hold()
                _setsignal(_SIGINT, self._interrupt)
            except BaseException:  # noqa: S112  (a handler of the user's, or the last interrupt of the run)
                continue
            return

    def arm_child(self) -> None:
        """A forked child is the user's alone: it keeps no run and is interrupted like any program."""
        self._armed = True
        self._shields = 0
        self._main_thread = _thread_id()

    def shield(self) -> _Shield:
        """A block in which no signal raises; what came is delivered at its end."""
        return _Shield(self)

    def _on_sigint(self, _number: int, frame: FrameType | None) -> None:
        if not self._armed:
            return
        if self._shields:
            self._remembered.add(_SIGINT)
        elif self.divert is None or not self.divert(frame):
            raise KeyboardInterrupt

    def _on_signal_held(self, number: int, _frame: FrameType | None) -> None:
        self._remembered.add(number)

    def _hold(self) -> None:
        for number in _HOLDABLE:
            handler = _getsignal(number)
            if callable(handler) and handler is not self._interrupt and handler is not self._remember:
                self._held[number] = handler
                _setsignal(number, self._remember)

    def _release(self) -> None:
        while self._held:
            number, handler = self._held.popitem()
            if _getsignal(number) is self._remember:
                _setsignal(number, handler)
        while self._remembered:
            _send_signal(_process_id(), self._remembered.pop())

    def enter_shield(self) -> None:
        if _thread_id() == self._main_thread:
            self._shields += 1
            self._hold()

    def leave_shield(self) -> None:
        if _thread_id() == self._main_thread:
            self._shields -= 1
            if not self._shields and self._armed:
                self._release()


class _Shield:
    __slots__ = ("_interrupts",)

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts

    def __enter__(self) -> None:
        self._interrupts.enter_shield()

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._interrupts.leave_shield()
