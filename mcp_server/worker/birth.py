"""The first steps of a worker: from a fork of the zygote to a process that may run user code.

They come in two parts: until it waits, fit for any sandbox; and from the moment that it is given one. What a tier makes
of them are its `Steps`.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import resource
import socket
from typing import TYPE_CHECKING, Any, Callable, Dict, List, NoReturn, Protocol

from . import confine, linux, packets, tags

if TYPE_CHECKING:  # the zygote loads it after the nursery was forked
    from .main import Post

FIRST_DOOR = 3
"""Among the descriptors of an order; before it control socket, stdout and stderr."""

# What is behind `signal` and `socket`, without their enum conversions: they would copy 80 pages of a worker.
_signal: Any = importlib.import_module("_signal")
_new_socket: Any = importlib.import_module("_socket").socket
_close: Callable[[socket.socket], None] = _new_socket.close
_UNIX = int(socket.AF_UNIX)
_STREAM = int(socket.SOCK_STREAM)

DEFAULT_SIGNALS = (_signal.SIGHUP, _signal.SIGTERM, _signal.SIGQUIT, _signal.SIGUSR1, _signal.SIGUSR2)


class Order:
    """A worker as the host asked for it: its number and tag, its ends of socket and pipes, and in time its sandbox.

    `outputs` is where those of its runs will be, once that is known. `writable` and `readable` are paths of its own,
    for Landlock.
    """

    __slots__ = ("worker", "tag", "sandbox", "directory", "outputs", "writable", "readable", "plan", "fds", "report")

    def __init__(self, message: Dict[str, Any], plan: Dict[str, Any], fds: List[int], report: socket.socket) -> None:
        self.worker: int = message["worker"]
        self.tag: int = plan["first_tag"] + self.worker
        self.sandbox = ""
        self.directory = ""
        self.outputs: str = message["outputs"]
        self.writable: List[str] = []
        self.readable: List[str] = []
        self.plan = plan
        self.fds = fds
        self.report = report

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds = []

    def place(self, message: Dict[str, Any]) -> None:
        """Note where it shall live."""
        self.sandbox = message["sandbox"]
        self.directory = message["directory"]
        self.outputs = message["outputs"]

    def enter(self, work: str) -> None:
        """In the worker: take the sandbox's directory, as it is seen here, for home and its part of it for cwd."""
        os.environ["HOME"] = work
        place = "%s/%s" % (work, self.directory)
        try:  # noqa: SIM105  (here and below, what the library has for it is Python's own code, and costs pages)
            os.mkdir(place)
        except FileExistsError:  # of an earlier worker, or not its own
            pass
        os.chdir(place)


class Steps(Protocol):
    """What a tier has a worker do, in the worker's own process. Each may raise: then there is no worker."""

    def arrive(self) -> None:
        """First of all."""

    def settle(self) -> None:
        """Everything is ready but the sandbox: what can be given up without knowing it, is."""

    def move_in(self, message: Dict[str, Any]) -> None:
        """Live where the zygote's message says. After this the process is sealed."""


def become_worker(order: Order, housing: socket.socket, steps: Steps, post: Post) -> NoReturn:
    """Arrive, settle, wait for INIT and at `housing` for a sandbox, move in, run the worker's loop. Never returns.

    INIT comes first, so that it is read while the zygote makes the sandbox ready. At `housing` a message that says
    nothing comes before the one that counts: both ends have gone this way once before anybody waits for them.

    The host hears that it is housed last, after the answer to INIT, for which a caller waits. A step that fails is told
    to the host, and the process ends.
    """
    try:
        _go_through(order.fds[FIRST_DOOR:])
        os.setsid()
        _reset_signals()
        os.umask(0o022)
        steps.arrive()
        control = _arrange_descriptors(order, housing)
        tags.wear(order.tag)
        post.take(control, order.plan["random_seed"])
        _introduce(order)
        steps.settle()
        post.rehearse()
        _await(housing, "rehearse")
        first = post.receive()
        message = _await(housing, "house")
        order.place(message)
        steps.move_in(message)
        post.begin(first)
        packets.send(order.report, {"op": "spawned", "worker": order.worker})
        _close(order.report)
        _close(housing)
    except Exception as error:  # whatever went wrong, the host must hear of it: no other way leads out of here
        text = "%s: %s" % (type(error).__name__, error)
        packets.send(order.report, {"op": "failed", "worker": order.worker, "text": text})
        os._exit(1)
    post.serve()


def _go_through(doors: List[int]) -> None:
    """Into the groups that limit it: each takes in whoever writes a zero, and what that allocates from then on."""
    for door in doors:
        os.write(door, b"0")


def _introduce(order: Order) -> None:
    """Give the host a pidfd: the process can be told of its sandbox from here on.

    The zygote's limit of descriptors still holds: how many are on their way is counted per user, and other contexts of
    the same user may have many under way.
    """
    pidfd = os.pidfd_open(os.getpid())
    packets.send(order.report, {"op": "born", "worker": order.worker}, [pidfd])
    os.close(pidfd)


def default_signals() -> None:
    """In the zygote, for all workers: as in a fresh interpreter, whatever the server had made of them."""
    for number in DEFAULT_SIGNALS:
        _signal.signal(number, _signal.SIG_DFL)
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, [])


def _reset_signals() -> None:
    """What the zygote has made of them for itself."""
    _signal.set_wakeup_fd(-1)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)


def _arrange_descriptors(order: Order, housing: socket.socket) -> Any:
    """Standard streams on 0 to 2, the control socket as far up as the limit allows, the rest closed."""
    control, stdout, stderr = order.fds[:FIRST_DOOR]
    null = os.open("/dev/null", os.O_RDONLY)
    for fd, place in ((null, 0), (stdout, 1), (stderr, 2)):
        os.dup2(fd, place, inheritable=True)
    # User code that closes "all" descriptors means the low ones.
    open_files = min(order.plan["rlimits"].get("NOFILE", 1024), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    high = fcntl.fcntl(control, fcntl.F_DUPFD_CLOEXEC, open_files - 1)
    linux.close_all_fds_but((0, 1, 2, high, housing.fileno(), order.report.fileno()))
    return _new_socket(_UNIX, _STREAM, 0, high)


def _await(housing: socket.socket, what: str) -> Dict[str, Any]:
    """The zygote's message; the process ends where none will come."""
    while True:
        message, _ = packets.receive(housing)
        if message is None:
            os._exit(0)
        if message["op"] == what:
            return message


def seal(order: Order) -> None:
    """Seal the process; Landlock holds with the paths that are this worker's own."""
    plan, landlock = order.plan, order.plan["landlock"]
    if landlock is not None:
        own = {"write": [*landlock["write"], *order.writable], "read": [*landlock["read"], *order.readable]}
        plan = {**plan, "landlock": own}
    confine.seal(plan)
