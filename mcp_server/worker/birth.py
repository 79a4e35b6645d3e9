"""The first steps of a worker: from a fork of the zygote to a process that may run user code."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from typing import Any, Dict, List, NoReturn

from . import confine, frames, linux, tags

THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Set to 1 in the zygote, which must stay single-threaded to be forked; unset again in its workers."""

DEFAULT_SIGNALS = (signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class Order:
    """What the zygote was asked for. `work` is the sandbox's directory as the worker will see it."""

    __slots__ = ("worker", "tag", "work", "directory", "plan", "control", "stdout", "stderr", "report")

    def __init__(
        self,
        worker: int,
        tag: int,
        work: str,
        directory: str,
        plan: Dict[str, Any],
        fds: List[int],
        report: socket.socket,
    ) -> None:
        self.worker = worker
        self.tag = tag
        self.work = work
        self.directory = directory
        self.plan = plan
        self.control, self.stdout, self.stderr = fds
        self.report = report


def become_worker(order: Order) -> NoReturn:
    """Never returns: the worker's own loop ends the process. A failed step is told to the host, and ends it too."""
    try:
        pidfd = os.pidfd_open(os.getpid())
        control = _arrange_descriptors(order, pidfd)
        _reset_signals()
        _enter_directory(order)
        tags.wear(order.tag)
        confine.seal(_seal_plan(order))
        packet = frames.encode_packet({"op": "spawned", "worker": order.worker})
        socket.send_fds(order.report, [packet], [pidfd])
        os.close(pidfd)
        order.report.close()
    except Exception as error:  # whatever went wrong, the host must hear of it: no other way leads out of here
        report_failure(order, error)
        os._exit(1)
    from . import main

    main.serve(control)


def report_failure(order: Order, error: BaseException) -> None:
    message = {"op": "failed", "worker": order.worker, "text": "%s: %s" % (type(error).__name__, error)}
    order.report.send(frames.encode_packet(message))


def _arrange_descriptors(order: Order, pidfd: int) -> socket.socket:
    """Standard streams on 0 to 2, the control socket as far up as the limit allows, the rest closed."""
    null = os.open("/dev/null", os.O_RDONLY)
    for fd, place in ((null, 0), (order.stdout, 1), (order.stderr, 2)):
        os.dup2(fd, place, inheritable=True)
    # User code that closes "all" descriptors means the low ones.
    highest = max(3, order.plan["rlimits"].get("NOFILE", 1024) - 1)
    control = fcntl.fcntl(order.control, fcntl.F_DUPFD_CLOEXEC, highest)
    linux.close_all_fds_but((0, 1, 2, control, pidfd, order.report.fileno()))
    return socket.socket(fileno=control)


def _reset_signals() -> None:
    """As in a fresh interpreter, whatever the server or the zygote had made of them."""
    signal.set_wakeup_fd(-1)
    for number in DEFAULT_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _enter_directory(order: Order) -> None:
    os.setsid()
    os.umask(0o022)
    for name in THREAD_VARIABLES:
        os.environ.pop(name, None)
    os.environ["HOME"] = order.work
    place = os.path.join(order.work, order.directory)
    os.makedirs(place, exist_ok=True)
    os.chdir(place)


def _seal_plan(order: Order) -> Dict[str, Any]:
    """What `confine.seal` wants; under Landlock the sandbox's own directory is writable."""
    landlock = order.plan["landlock"]
    if landlock is None:
        return order.plan
    return {**order.plan, "landlock": {**landlock, "write": [*landlock["write"], order.work]}}
