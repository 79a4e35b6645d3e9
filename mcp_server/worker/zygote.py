"""The zygote: one warm, single-threaded process that workers are forked from. It never runs user code.

It sleeps in one poll and is woken by the host's packets (`frames`, last section) and by the end of children.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
from typing import Any, Callable, Dict, List, NoReturn, Optional, Tuple

from . import birth, frames, linux, statedir, tags, trees


def main(control_fd: str) -> NoReturn:
    """The entry of the process that the host started; it ends the process."""
    control = socket.socket(fileno=int(control_fd))
    control.set_inheritable(False)
    plan, _ = receive(control)
    if plan is None:
        os._exit(0)
    try:
        lock = _claim_cell_dir(plan)
    except OSError as error:
        _refuse(control, "The state directory cannot be used: %s" % error)
    try:
        importlib.import_module(".main", __package__)
    except Exception as error:  # a broken installation, or an interpreter that lacks a module of its standard library
        _refuse(control, "The worker's own code cannot be loaded: %s: %s" % (type(error).__name__, error))
    facts = warm(plan["preload"])
    control.send(frames.encode_packet({"op": "ready", **facts}))
    Zygote(control, plan, lock).serve()


def warm(modules: List[str]) -> Dict[str, Any]:
    """Import what contexts shall find loaded, with as few threads as can be; what fails is told, not raised."""
    for name in birth.THREAD_VARIABLES:
        os.environ[name] = "1"
    started = time.monotonic()
    loaded = []
    failed = {}
    for name in modules:
        try:
            importlib.import_module(name)
            loaded.append(name)
        except Exception as error:  # foreign code: a broken package may raise anything, and contexts do without it
            failed[name] = "%s: %s" % (type(error).__name__, str(error)[:500])
    gc.collect()
    gc.freeze()
    return {
        "python": "%d.%d.%d" % sys.version_info[:3],
        "preloaded": loaded,
        "failed": failed,
        "threads": len(os.listdir("/proc/self/task")),
        "warm_s": time.monotonic() - started,
    }


class Zygote:
    """Forks workers on request, reaps them, reports their ends, and kills what they leave behind."""

    def __init__(self, control: socket.socket, plan: Dict[str, Any], lock: Optional[int]) -> None:
        self._control = control
        self._plan = plan
        self._lock = lock
        self._first_tag: int = plan["first_tag"]
        self._worker_of: Dict[int, int] = {}
        self._poll = select.poll()
        self._handlers: Dict[int, Callable[[], None]] = {}

    def serve(self) -> NoReturn:
        linux.set_child_subreaper()
        self._on_readable(self._control.fileno(), self._receive)
        self._signals = wake_by_ended_children()
        self._on_readable(self._signals, self._children_ended)
        self._reap()  # children that ended before the signal was watched
        while True:
            for fd, _ in self._poll.poll():
                handler = self._handlers.get(fd)
                if handler is not None:
                    handler()

    def _on_readable(self, fd: int, handler: Callable[[], None]) -> None:
        self._poll.register(fd, select.POLLIN)
        self._handlers[fd] = handler

    def _send(self, message: Dict[str, Any]) -> None:
        try:
            self._control.send(frames.encode_packet(message))
        except OSError:
            self._end()  # the host is gone

    def _receive(self) -> None:
        message, fds = receive(self._control)
        if message is None:
            self._end()
        elif message["op"] == "spawn":
            try:
                self._spawn(message, fds)
            finally:
                for fd in fds:
                    os.close(fd)
        elif message["op"] == "destroy":
            self._destroy(message["worker"])
        elif message["op"] == "forget":
            self._forget(message["sandbox"])

    def _spawn(self, message: Dict[str, Any], fds: List[int]) -> None:
        worker: int = message["worker"]
        work = os.path.join(self._plan["cell_dir"], message["sandbox"])
        order = birth.Order(
            worker, self._first_tag + worker, work, message["directory"], self._plan, fds, self._control
        )
        zygote = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._send({"op": "failed", "worker": worker, "text": "fork: %s" % error.strerror})
            return
        if pid == 0:
            linux.die_with_parent(signal.SIGKILL)
            if os.getppid() != zygote:  # it died before that was armed
                os._exit(1)
            birth.become_worker(order)
        self._worker_of[pid] = worker

    def _destroy(self, worker: int) -> None:
        wanted = self._first_tag + worker
        survivors = tags.kill(lambda tag: tag == wanted, self._reap)
        self._send({"op": "destroyed", "worker": worker, "survivors": survivors})

    def _forget(self, sandbox: str) -> None:
        text = ""
        try:
            trees.remove(os.path.join(self._plan["cell_dir"], sandbox))
        except OSError as error:
            text = str(error)
        self._send({"op": "forgotten", "sandbox": sandbox, "text": text})

    def _children_ended(self) -> None:
        os.read(self._signals, 4096)
        self._reap()

    def _reap(self) -> None:
        for pid, status in reap_children():
            worker = self._worker_of.pop(pid, None)
            if worker is not None:
                self._send({"op": "exited", "worker": worker, "status": status})

    def _end(self) -> NoReturn:
        """The host is gone or wants us gone: leave nothing."""
        ours = range(self._first_tag, self._first_tag + frames.TAGS_PER_CELL)
        tags.kill(lambda tag: tag in ours, reap_children)
        if self._lock is not None:
            trees.remove(self._plan["cell_dir"])
        os._exit(0)


def receive(control: socket.socket) -> Tuple[Optional[Dict[str, Any]], List[int]]:
    """The next message and its descriptors; None at the end of the connection."""
    try:
        packet, fds, _, _ = socket.recv_fds(
            control, frames.MAX_PACKET_BYTES, frames.MAX_PACKET_FDS, socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError:
        return None, []
    return (frames.decode_packet(packet), fds) if packet else (None, fds)


def wake_by_ended_children() -> int:
    """A descriptor that becomes readable with each SIGCHLD."""
    readable, writable = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return readable


def reap_children() -> List[Tuple[int, int]]:
    """Collect every dead child: pids and wait statuses."""
    ended: List[Tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, status))


def clear(state_dir: str) -> None:
    """The entry of a passing process that only ends and removes what a killed zygote left."""
    statedir.clear_stale(state_dir, frames.TAGS_PER_CELL, reap_children)


def _claim_cell_dir(plan: Dict[str, Any]) -> Optional[int]:
    if not plan["cell_dir"]:
        return None
    clear(os.path.dirname(plan["cell_dir"]))
    return statedir.make_cell_dir(plan["cell_dir"], plan["first_tag"])


def _refuse(control: socket.socket, text: str) -> NoReturn:
    control.send(frames.encode_packet({"op": "failed", "worker": None, "text": text}))
    os._exit(1)
