"""The zygote: one warm, single-threaded process that workers are forked from. It never runs user code.

It sleeps in one epoll and is woken by the host's packets (`frames`, last section) and by the end of children and rooms.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import select
import socket
from typing import Any, Callable, ContextManager, Dict, List, NoReturn, Optional, Sequence, Union

from . import birth, confine, forkhooks, linux, nursery, packets, reaping, rebirth, tags, undertaker
from .oneroom import OneRoom
from .plain import Plain
from .rooms import WORK, Rooms


def main(control_fd: str) -> NoReturn:
    """Be the zygote of the host that has the other end of this socket; ends the process."""
    control = socket.socket(fileno=int(control_fd))
    control.set_inheritable(False)
    plan, _ = packets.receive(control)
    if plan is None:
        os._exit(0)
    this = os.pidfd_open(os.getpid())
    packets.send(control, {"op": "alive"}, [this])
    os.close(this)
    linux.set_dumpable(False)
    _raise_open_files()
    burying = undertaker.start(control) if plan["rooms"] else None
    room_builder = nursery.start(plan, control, burying) if burying is not None else None
    try:
        from . import preload  # not before: what it imports would cost each room 80 page faults

        importlib.import_module(".main", __package__)
    except Exception as error:  # a broken installation, or an interpreter that lacks a module of its standard library
        packets.refuse(control, "The worker's own code cannot be loaded: %s: %s" % (type(error).__name__, error))
    preload.ask_for_one_thread()
    with _home_for_warming(plan):
        if plan["random_seed"] is not None:
            rebirth.load_generators()
        facts = preload.look_for(plan["preload"]) if plan["bare"] else preload.warm(plan["preload"])
    preload.allow_threads()
    forkhooks.leave()
    if plan["seccomp"] is not None:
        confine.read_program(plan["seccomp"])  # once, not in each worker
    zygote = Zygote(control, plan, room_builder, burying)
    zygote.open()
    unshared = preload.seal()
    packets.send(control, {"op": "ready", "unshared": unshared, **facts})
    zygote.serve()


_EVENTS_AT_ONCE = 16

_QUIET_S = 0.005
"""Many times what it takes to make a worker and send it into a sandbox."""


class Zygote:
    """Forks workers on request, reaps them and reports their ends. Where they live is its housing's matter."""

    def __init__(
        self,
        control: socket.socket,
        plan: Dict[str, Any],
        room_builder: Optional[socket.socket],
        burying: Optional[socket.socket],
    ) -> None:
        self._control = control
        self._plan = plan
        self._worker_of: Dict[int, int] = {}
        self._homeless: Dict[int, socket.socket] = {}
        self._poll = select.epoll()  # a `poll` would ask each of a thousand rooms at every packet
        self._handlers: Dict[int, Callable[[], None]] = {}
        self._later: List[Callable[[], None]] = []
        self._post = importlib.import_module(".main", __package__).prepared()  # see `main`
        self._housing = self._choose_housing(room_builder, burying)

    def open(self) -> None:
        """Make ready to serve; where that fails the host hears why, and the process ends."""
        linux.set_child_subreaper()
        birth.default_signals()
        ended = reaping.wake_by_ended_children()
        self.on_readable(ended, lambda: self._children_ended(ended))
        self.on_readable(self._control.fileno(), self._receive)
        try:
            self._housing.open()
        except OSError as error:
            packets.refuse(self._control, "No place for contexts can be made: %s" % error)

    def serve(self) -> NoReturn:
        while True:
            events = self._poll.poll(_QUIET_S if self._later else None, _EVENTS_AT_ONCE)
            for fd, _ in events:
                handler = self._handlers.get(fd)
                if handler is not None:
                    handler()
            if not events:
                later, self._later = self._later, []
                for work in later:
                    work()

    # What housings use

    def on_readable(self, fd: int, handler: Callable[[], None]) -> None:
        self._poll.register(fd, select.EPOLLIN)
        self._handlers[fd] = handler

    def when_quiet(self, work: Callable[[], None]) -> None:
        """Have something done when nobody has asked for anything for a while."""
        self._later.append(work)

    def ignore(self, fd: int) -> None:
        self._poll.unregister(fd)
        del self._handlers[fd]

    def fork_worker(self, order: birth.Order, steps: birth.Steps) -> None:
        """Raises OSError where fork fails; whatever goes wrong later, the worker itself says."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            pid = os.fork()
            if pid == 0:
                birth.become_worker(order, theirs, steps, self._post)
        self._worker_of[pid] = order.worker
        self._homeless[order.worker] = ours
        tags.wear(order.tag, pid)  # it does so itself too, but may be destroyed before
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has ended
            packets.send(ours, {"op": "rehearse"})  # see `birth`

    def place_worker(self, message: Dict[str, Any]) -> None:
        """Let a worker that waits move in. It may have ended: the host hears of that by itself."""
        with self._homeless.pop(message["worker"]) as housing:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                packets.send(housing, message)

    def destroy_tagged(self, worker: int) -> None:
        wanted: int = self._plan["first_tag"] + worker
        self.say_destroyed(worker, tags.kill(lambda tag: tag == wanted, self.reap))

    def reap(self) -> None:
        for pid, status in reaping.reap_children():
            worker = self._worker_of.pop(pid, None)
            if worker is not None:
                if worker in self._homeless:
                    self._homeless.pop(worker).close()
                self._say({"op": "exited", "worker": worker, "status": status})

    def say_failed(self, worker: int, text: str) -> None:
        self._say({"op": "failed", "worker": worker, "text": text})

    def say_destroyed(self, worker: int, survivors: int) -> None:
        self._say({"op": "destroyed", "worker": worker, "survivors": survivors})

    def offer_outputs(self, path: str) -> None:
        """Give the host a directory to write the outputs of runs to."""
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._say({"op": "outputs"}, [directory])
        os.close(directory)

    # Its own

    def _choose_housing(
        self, room_builder: Optional[socket.socket], burying: Optional[socket.socket]
    ) -> Union[OneRoom, Plain, Rooms]:
        if room_builder is not None and burying is not None:
            return Rooms(self, self._plan, room_builder, burying)
        return OneRoom(self) if self._plan["one_room"] else Plain(self, self._plan)

    def _say(self, message: Dict[str, Any], fds: Sequence[int] = ()) -> None:
        try:
            packets.send(self._control, message, fds)
        except (BrokenPipeError, ConnectionResetError):
            self._end()  # the host is gone

    def _receive(self) -> None:
        message, fds = packets.receive(self._control)
        if message is None:
            self._end()
        elif message["op"] == "prepare":
            self._housing.prepare(birth.Order(message, self._plan, fds, self._control))
        elif message["op"] == "house":
            self._house(message)
        elif message["op"] == "destroy":
            self._housing.destroy(message["worker"])
        elif message["op"] == "reach":
            self._reach(message["sandbox"])
        elif message["op"] == "forget":
            self._forget(message["sandbox"])

    def _house(self, message: Dict[str, Any]) -> None:
        if message["worker"] not in self._homeless:
            self.say_failed(message["worker"], "it has ended")
            return
        try:
            self._housing.house(message)
        except OSError as error:
            self.say_failed(message["worker"], str(error))

    def _reach(self, sandbox: str) -> None:
        answer = {"op": "reached", "sandbox": sandbox, "text": ""}
        try:
            work = self._housing.open_work(sandbox)
            try:
                self._say(answer, [work])
            finally:
                os.close(work)
        except OSError as error:
            self._say({**answer, "text": str(error)})

    def _forget(self, sandbox: str) -> None:
        text = ""
        try:
            self._housing.forget(sandbox)
        except OSError as error:
            text = str(error)
        self._say({"op": "forgotten", "sandbox": sandbox, "text": text})

    def _children_ended(self, ended: int) -> None:
        os.read(ended, 4096)
        self.reap()

    def _end(self) -> NoReturn:
        """The host is gone or wants us gone: leave nothing."""
        self._housing.end()
        os._exit(0)


def _home_for_warming(plan: Dict[str, Any]) -> ContextManager[None]:
    """What modules find as home when they are preloaded: where it can be, the path that contexts have as theirs."""
    from . import preload  # see `main`

    if plan["rooms"]:
        return preload.passing_home(WORK)
    if plan["one_room"]:
        # A workspace is the user's, and nothing of ours may come into it.
        return preload.emptied_home(WORK if plan["workspace"] is None else "/tmp")  # noqa: S108
    return contextlib.nullcontext()


def _raise_open_files() -> None:
    """Each room holds a descriptor here; workers get a limit of their own."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
