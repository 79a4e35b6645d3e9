"""Workers of one sandbox in one room, the cell: the zygote's side of the tier whose cells bubblewrap builds.

They are one party, and share processes, files and scratch space; each is sealed. What one of them started is found by
its tag. The zygote shares their user: it is the first process of the cell, so that no signal from inside ends it, and
neither it nor a worker that is not sealed yet can be looked into.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any, Dict

from . import birth, confine, linux, view

if TYPE_CHECKING:
    from .birth import Order
    from .zygote import Zygote


class OneRoom:
    """Houses workers where the zygote itself is."""

    def __init__(self, zygote: "Zygote") -> None:
        self._zygote = zygote

    def open(self) -> None:
        """Make ready, before anything foreign runs here. Raises OSError."""
        os.environ.pop("PWD", None)  # bwrap's
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # which the kernel keeps from the first process
        confine.die_first_of_memory()  # inherited by workers, so that none has to be dumpable for it
        linux.set_dumpable(False)

    def prepare(self, order: "Order") -> None:
        """Fork a worker that waits for its context."""
        try:
            self._zygote.fork_worker(order, _Steps(order))
        except OSError as error:
            self._zygote.say_failed(order.worker, "fork: %s" % error.strerror)
        finally:
            order.close()

    def house(self, message: Dict[str, Any]) -> None:
        """Let a worker that waits go to work."""
        self._zygote.place_worker(message)

    def destroy(self, worker: int) -> None:
        self._zygote.destroy_tagged(worker)

    def open_work(self, _name: str) -> int:
        """A descriptor of the sandbox's directory. Raises OSError."""
        return os.open(view.WORK, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def forget(self, _name: str) -> None:
        """Nothing to do: a sandbox ends with its cell."""

    def end(self) -> None:
        """Nothing to do: everything here ends with its first process."""


class _Steps:
    """Of one worker, which is where it shall be, as who it shall be: all of it can be sealed ahead."""

    def __init__(self, order: "Order") -> None:
        self._order = order

    def arrive(self) -> None:
        pass

    def settle(self) -> None:
        birth.seal(self._order)

    def move_in(self, _message: Dict[str, Any]) -> None:
        self._order.enter(view.WORK)
