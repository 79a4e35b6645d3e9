"""Top-level await: one event loop for the life of a context.

Tasks that a cell leaves behind stay on the loop; they go on whenever a later run awaits.
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

_MACHINERY = (os.path.dirname(os.path.abspath(asyncio.__file__)) + os.sep, os.path.abspath(selectors.__file__))
_OWN = os.path.dirname((lambda: None).__code__.co_filename) + os.sep
_MOST_CANCELS = 3
"""A task may catch its cancellation; one that does so this often is left pending."""


class Awaiter:
    """Runs the coroutines of one context's cells."""

    def __init__(self, interrupts: Interrupts, context: contextvars.Context) -> None:
        self._interrupts = interrupts
        self._context = context
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, cell: Cell, namespace: dict[str, Any]) -> Any:
        """The value of the cell's last expression. An interrupt ends the cell and leaves the loop usable."""
        loop = self._open_loop()
        coroutine = _run_cell(cell, namespace)
        if sys.version_info >= (3, 11):
            task = loop.create_task(coroutine, context=self._context)
        else:
            task = loop.create_task(coroutine)
        self._interrupts.divert = _Diversion(task)
        try:
            return loop.run_until_complete(task)
        except KeyboardInterrupt:
            self._cancel(loop, task)
            raise
        except asyncio.CancelledError as error:
            if self._interrupts.divert.used:
                raise KeyboardInterrupt().with_traceback(error.__traceback__) from None
            raise
        finally:
            self._interrupts.divert = None

    def _open_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        return self._loop

    def _cancel(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        for _ in range(_MOST_CANCELS):
            if task.done():
                break
            task.cancel()
            try:
                loop.run_until_complete(asyncio.wait([task], timeout=1))
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
    """Turns an interrupt that hits the event loop's own code into the cancellation of the cell's task.

    Raising there would lose whatever the loop was about to call. In user code it is raised where it hits.
    """

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self.used = False

    def __call__(self, frame: FrameType | None) -> bool:
        while frame is not None and frame.f_code.co_filename.startswith(_OWN):
            frame = frame.f_back  # a stream's write: what matters is who called it
        if frame is None or not frame.f_code.co_filename.startswith(_MACHINERY):
            return False
        if self.used or self._task.done():
            return False
        self.used = True
        self._task.cancel()
        self._task.get_loop().call_soon_threadsafe(lambda: None)  # wakes a loop that waits for I/O
        return True
