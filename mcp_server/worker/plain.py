"""Workers without namespaces: the zygote's side of the tiers that share the host's processes and files.

A sandbox's files are a directory of the host's. What a worker started is found by its tag.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Dict, Optional

from . import birth, frames, linux, reaping, statedir, tags, trees, view

if TYPE_CHECKING:
    from .birth import Order
    from .zygote import Zygote


class Plain:
    """Houses workers in directories below the cell's own: `s1/work` and `s1/tmp` of each sandbox, `outputs/s1`.

    A workspace stands in for every sandbox's `work`.
    """

    def __init__(self, zygote: "Zygote", plan: Dict[str, Any]) -> None:
        self._zygote = zygote
        self._workspace: Optional[Dict[str, Any]] = plan["workspace"]
        self._cell_dir: str = plan["cell_dir"]
        self._outputs = os.path.join(self._cell_dir, "outputs")
        self._tags = range(plan["first_tag"], plan["first_tag"] + frames.TAGS_PER_CELL)
        self._lock: Optional[int] = None
        if plan["landlocked"]:
            readable = view.readable_paths(sys.executable, os.path.dirname(os.path.abspath(__file__)))
            plan["landlock"] = {"read": readable, "write": ["/dev/null"]}

    def open(self) -> None:
        """Make ready, and clear what killed cells left. Raises OSError where the state directory cannot be used."""
        clear(os.path.dirname(self._cell_dir))
        self._lock = statedir.make_cell_dir(self._cell_dir, self._tags.start)
        os.mkdir(self._outputs)
        self._zygote.offer_outputs(self._outputs)

    def prepare(self, order: "Order") -> None:
        """Fork a worker that waits for a sandbox."""
        try:
            self._zygote.fork_worker(order, _Steps(self, order))
        except OSError as error:
            self._zygote.say_failed(order.worker, "fork: %s" % error.strerror)
        finally:
            order.close()

    def house(self, message: Dict[str, Any]) -> None:
        """Let a worker that waits move into a sandbox."""
        self._zygote.place_worker(message)

    def move_in(self, order: "Order") -> None:
        """In the worker: take its sandbox's directories for its own, or make them."""
        work = self._make_work(order.sandbox)
        scratch = os.path.join(self._cell_dir, order.sandbox, "tmp")
        os.makedirs(scratch, exist_ok=True)
        os.environ["TMPDIR"] = scratch
        order.writable = [scratch]
        read_only = self._workspace is not None and self._workspace["read_only"]
        (order.readable if read_only else order.writable).append(work)
        if order.outputs:
            order.readable.append(os.path.join(self._outputs, order.sandbox, order.outputs))
        order.enter(work)

    def _make_work(self, sandbox: str) -> str:
        if self._workspace is not None:
            return str(self._workspace["path"])
        work = os.path.join(self._cell_dir, sandbox, "work")
        os.makedirs(work, exist_ok=True)
        return work

    def destroy(self, worker: int) -> None:
        self._zygote.destroy_tagged(worker)

    def open_work(self, name: str) -> int:
        """A descriptor of a sandbox's directory. Raises OSError."""
        return os.open(self._make_work(name), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def forget(self, name: str) -> None:
        """Remove a sandbox's files, whose workers are gone. Raises OSError."""
        trees.remove(os.path.join(self._cell_dir, name))
        trees.remove(os.path.join(self._outputs, name))

    def end(self) -> None:
        """Leave nothing of the cell."""
        tags.kill(lambda tag: tag in self._tags, reaping.reap_children)
        statedir.remove_cell_dir(self._cell_dir)


class _Steps:
    """Of one worker. Nothing is sealed ahead: Landlock's rules are of the sandbox."""

    def __init__(self, housing: Plain, order: "Order") -> None:
        self._housing = housing
        self._order = order
        self._zygote = os.getpid()

    def arrive(self) -> None:
        linux.die_with_parent(signal.SIGKILL)
        if os.getppid() != self._zygote:  # it died before that was armed
            os._exit(1)

    def settle(self) -> None:
        pass

    def move_in(self, _message: Dict[str, Any]) -> None:
        self._housing.move_in(self._order)
        birth.seal(self._order)


def clear(state_dir: str) -> None:
    """End and remove what cells left whose zygote was killed. Also the entry of a passing process for that alone."""
    statedir.clear_stale(state_dir, frames.TAGS_PER_CELL, reaping.reap_children)
