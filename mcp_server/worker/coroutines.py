"""Top-level await: one event loop for the life of a context.

Tasks that a cell leaves behind stay on the loop; they go on whenever a later run awaits.

An interrupt is raised only in the user's own code. Raised in the loop's, it would lose what the loop was about to call,
or leave the loop half stopped; there it cancels the cell's task instead, as `asyncio.run` does.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import selectors
import sys
from types import FrameType
from typing import Any

from .cells import Cell, is_coroutine
from .interrupts import Interrupts

_THIS = (lambda: None).__code__.co_filename
_OWN = os.path.dirname(_THIS) + os.sep
_MACHINERY = (os.path.dirname(os.path.abspath(asyncio.__file__)) + os.sep, os.path.abspath(selectors.__file__))

_MOST_CANCELS = 3
_PATIENCE_S = 0.5
"""A task may catch its cancellation; one that goes on after these is left pending. Together they are less than the two
seconds that a run which is interrupted has to end."""


class Awaiter:
    """Runs the cells of one context that await."""

    def __init__(self, interrupts: Interrupts, context: contextvars.Context) -> None:
        self._interrupts = interrupts
        self._context = context
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, cell: Cell, namespace: dict[str, Any]) -> Any:
        """The value of the cell's last expression. An interrupt ends the cell and leaves the loop usable."""
        diversion = _Diversion()
        self._interrupts.divert = diversion
        try:
            loop = self._open_loop()
            task = diversion.task = self._task(loop, cell, namespace)
            if diversion.came:
                task.cancel()
            value = self._finish(loop, task, diversion)
            if diversion.came_late:
                raise KeyboardInterrupt
            return value
        finally:
            self._interrupts.divert = None

    def _finish(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any], diversion: _Diversion) -> Any:
        try:
            return loop.run_until_complete(task)
        except KeyboardInterrupt:
            self._cancel(loop, task)
            raise
        except asyncio.CancelledError as error:
            if diversion.came:
                raise KeyboardInterrupt().with_traceback(error.__traceback__) from None
            raise

    def _open_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        return self._loop

    def _task(self, loop: asyncio.AbstractEventLoop, cell: Cell, namespace: dict[str, Any]) -> asyncio.Task[Any]:
        coroutine = _run_cell(cell, namespace)
        if sys.version_info >= (3, 11):
            return loop.create_task(coroutine, context=self._context)
        return loop.create_task(coroutine)

    def _cancel(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        for _ in range(_MOST_CANCELS):
            if task.done():
                break
            task.cancel()
            try:
                loop.run_until_complete(asyncio.wait([task], timeout=_PATIENCE_S))
            except KeyboardInterrupt:
                continue
        if task.done() and not task.cancelled():
            task.exception()  # looked at, so that its end is not reported as "never retrieved"


async def _run_cell(cell: Cell, namespace: dict[str, Any]) -> Any:
    """All of a cell on the loop, also the half that does not await: it may make tasks."""
    value = None
    for code in (cell.body, cell.last):
        if code is not None:
            value = eval(code, namespace)  # noqa: S307  (what the worker is for)
            if is_coroutine(code):
                value = await value
    return value if cell.last is not None else None


class _Diversion:
    """What becomes of interrupts while a cell awaits: called by the signal's handler, in the main thread."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Any] | None = None
        self.came = False
        self.came_late = False
        """The task had ended by itself, and what follows it is still to be interrupted."""

    def __call__(self, frame: FrameType | None) -> bool:
        while frame is not None and _is_passage(frame):
            frame = frame.f_back
        if frame is not None and not frame.f_code.co_filename.startswith((_THIS, *_MACHINERY)):
            return False
        if self.task is None:
            self.came = True
        elif self.task.done():
            self.came_late = True
        else:
            self.came = True
            self.task.cancel()
            self.task.get_loop().call_soon_threadsafe(lambda: None)  # wakes a loop that waits for I/O
        return True


def _is_passage(frame: FrameType) -> bool:
    """Worker code that only stands between the user's and the loop's, such as the write of a stream."""
    filename = frame.f_code.co_filename
    return filename.startswith(_OWN) and (filename != _THIS or frame.f_code is _run_cell.__code__)
