"""Workers in rooms: the zygote's side of the tier with namespaces.

A sandbox's files are a tmpfs of limited size, mounted once in the cell, and again at /work of each of its rooms when a
worker moves in: rooms are built, and workers wait in them, ahead, when nobody knows yet for whom. A worker that waits
has run nothing but our own code, and is sealed. Where each sandbox has a user of its own it still may become that one,
and gives up the right to with it; the mounts are put into its room by the zygote, which no foreign code can meet there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, Deque, Dict, List, Optional, Set

from . import confine, linux, nursery, packets, view

if TYPE_CHECKING:
    from .birth import Order
    from .zygote import Zygote

WORK = view.WORK
OUTPUTS = "/outputs"

_FIRST_SANDBOX_UID = 1000
_KEPT = (linux.CAP_SETUID, linux.CAP_SETGID)
"""Of capabilities, until a worker has become its sandbox's user."""

_JOINED = linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS


class Room:
    """`first` is the pidfd of its first process, with which it stays and goes.

    `trees` are detached mounts, by where they are to be put in it; `mounted` is where some have been. `uid` is the user
    that its files name, 0 before there are any.
    """

    __slots__ = ("first", "workers", "trees", "mounted", "uid")

    def __init__(self, first: int) -> None:
        self.first = first
        self.workers: Set[int] = set()
        self.trees: Dict[str, int] = {}
        self.mounted: Set[str] = set()
        self.uid = 0

    def kill(self) -> None:
        """The kernel kills the rest of it, and `first` becomes readable when all of that is gone."""
        with contextlib.suppress(ProcessLookupError):  # killed for memory, say, and its end not yet read
            signal.pidfd_send_signal(self.first, signal.SIGKILL)

    def close_trees(self) -> None:
        for tree in self.trees.values():
            os.close(tree)
        self.trees = {}

    def close(self) -> None:
        self.close_trees()
        os.close(self.first)


class Sandbox:
    """`uid` is its user in the cell, `work` where the cell has its files."""

    __slots__ = ("work", "uid")

    def __init__(self, work: str, uid: int) -> None:
        self.work = work
        self.uid = uid


class Rooms:
    """Houses each worker in a room of its own, and ends it by ending the room."""

    def __init__(
        self, zygote: "Zygote", plan: Dict[str, Any], nursery_socket: socket.socket, undertaker_socket: socket.socket
    ) -> None:
        self._zygote = zygote
        self._plan = plan
        self._nursery = nursery_socket
        self._undertaker = undertaker_socket
        self._proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._home_mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self._requested = 0
        self._spare: Deque[Room] = deque()
        self._waiting: Deque["Order"] = deque()
        self._room_of: Dict[int, Room] = {}
        self._sandboxes: Dict[str, Sandbox] = {}
        self._free_uids: List[int] = []
        self._last_uid: int = plan["room_uid"]

    def open(self) -> None:
        """Make ready, and have the first rooms built. Raises OSError."""
        linux.mount("tmpfs", view.SANDBOXES_DIR, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=16m,mode=0700")
        if self._plan["first_uid"]:
            nursery.set_ceilings(("max_user_namespaces", "max_cgroup_namespaces", "max_time_namespaces"))
            linux.drop_bounding_set()  # for all workers at once: 40 calls, and nothing is executed here
            linux.capability_sets(_KEPT)
        linux.capability_sets()
        self._zygote.on_readable(self._nursery.fileno(), self._on_nursery)
        self._replenish(self._plan["spare_rooms"])

    def prepare(self, order: "Order") -> None:
        """Have a worker wait for a sandbox, in a room."""
        self._waiting.append(order)
        self._advance()

    def house(self, message: Dict[str, Any]) -> None:
        """Give a worker that waits the mounts of its sandbox. Raises OSError."""
        sandbox = self._sandbox(message["sandbox"])
        uid = self._last_uid = sandbox.uid if self._plan["first_uid"] else self._plan["room_uid"]
        room = self._room_of[message["worker"]]
        room.trees[WORK] = linux.open_tree(sandbox.work)
        if message["outputs"]:
            self._take_outputs(room, os.path.join(message["sandbox"], message["outputs"]))
        self._equip(room, uid)
        self._zygote.place_worker({**message, "uid": uid})

    def destroy(self, worker: int) -> None:
        waiting = [order for order in self._waiting if order.worker == worker]
        for order in waiting:
            self._waiting.remove(order)
            order.close()
        room = self._room_of.get(worker)
        if room is None:
            self._zygote.say_destroyed(worker, 0)
        elif room.workers == {worker}:
            self._tell_undertaker(room)
            room.kill()
        else:
            room.workers.discard(worker)
            del self._room_of[worker]
            self._zygote.destroy_tagged(worker)

    def open_work(self, name: str) -> int:
        """A descriptor of a sandbox's directory. Raises OSError."""
        return os.open(self._sandbox(name).work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def forget(self, name: str) -> None:
        """Let go of a sandbox's files; its memory is free once the last of its rooms is gone."""
        sandbox = self._sandboxes.pop(name, None)
        if sandbox is not None and self._plan["workspace"] is None:
            linux.unmount(sandbox.work)
            os.rmdir(sandbox.work)
            self._free_uids.append(sandbox.uid)

    def end(self) -> None:
        """Nothing to do: the zygote is the first process of the cell, and everything here ends with it."""

    def _advance(self) -> None:
        while self._waiting and self._spare:
            order, room = self._waiting.popleft(), self._spare.popleft()
            try:
                self._occupy(order, room)
            except OSError as error:
                self._zygote.say_failed(order.worker, str(error))
                room.kill()
            finally:
                order.close()
        self._replenish(self._plan["spare_rooms"])

    def _occupy(self, order: "Order", room: Room) -> None:
        room.workers.add(order.worker)
        self._room_of[order.worker] = room
        if order.outputs:
            self._take_outputs(room, order.outputs)
        linux.setns(room.first, linux.CLONE_NEWPID)
        try:
            self._zygote.fork_worker(order, _Steps(order, room))
        finally:
            linux.setns(self._home, linux.CLONE_NEWPID)
        self._zygote.when_quiet(lambda: self._rehearse(order.worker))

    def _rehearse(self, worker: int) -> None:
        """Do what can be done of `house`, as if for the sandbox that was the last to get a worker.

        What a process does first after a fork costs it a copy of each page.

        Not at once after it: where somebody waits for the worker, both would touch the same pages at the same time.
        """
        room = self._room_of.get(worker)
        if room is None or WORK in room.mounted:
            return
        try:
            self._equip(room, self._last_uid)
            os.close(linux.open_tree(view.OUTPUTS_DIR))
        except OSError:  # it has ended, and that is yet to be read; or it is of no use to anybody
            room.kill()

    def _sandbox(self, name: str) -> Sandbox:
        sandbox = self._sandboxes.get(name)
        if sandbox is None:
            sandbox = self._sandboxes[name] = self._make_sandbox(name)
        return sandbox

    def _make_sandbox(self, name: str) -> Sandbox:
        if self._plan["workspace"] is not None:
            return Sandbox(view.WORKSPACE_DIR, self._plan["workspace_uid"])
        number = len(self._sandboxes) + len(self._free_uids)
        uid = self._free_uids.pop() if self._free_uids else _FIRST_SANDBOX_UID + number
        owner = uid if self._plan["first_uid"] else 0
        work = os.path.join(view.SANDBOXES_DIR, name)
        os.mkdir(work, 0o700)
        options = "size=%d,nr_inodes=%d,mode=0700,uid=%d,gid=%d"
        limits = (self._plan["disk_bytes"], self._plan["disk_inodes"], owner, owner)
        linux.mount("tmpfs", work, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, options % limits)
        return Sandbox(work, uid)

    def _take_outputs(self, room: Room, path: str) -> None:
        """A read-only mount, for a room, of a directory of those for outputs."""
        tree = linux.open_tree(os.path.join(view.OUTPUTS_DIR, path))
        linux.mount_setattr("", view.READ_ONLY, dir_fd=tree)
        if OUTPUTS in room.trees:
            os.close(room.trees[OUTPUTS])
        room.trees[OUTPUTS] = tree

    def _equip(self, room: Room, uid: int) -> None:
        """Put into a room, from within its mount namespace, the mounts that it has not got and the name of its user."""
        linux.setns(room.first, linux.CLONE_NEWNS)
        try:
            for path, tree in room.trees.items():
                if path in room.mounted:
                    linux.unmount(path)
                linux.move_mount(tree, path)
            if room.uid != uid:
                _write_users(uid)
                room.uid = uid
        finally:
            linux.setns(self._home_mounts, linux.CLONE_NEWNS)
        room.mounted.update(room.trees)
        room.close_trees()

    def _tell_undertaker(self, room: Room) -> None:
        """Of a room that is about to be killed. What it is not told of only takes longer."""
        mounts = self._open_mounts(room)
        if mounts is None:
            return
        try:
            packets.send(self._undertaker, {"op": "bury"}, [room.first, mounts])
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ETOOMANYREFS):  # more of them end than it has buried
                raise
        finally:
            os.close(mounts)

    def _open_mounts(self, room: Room) -> Optional[int]:
        """The mount namespace of a room; None where that has ended, or no descriptor is left."""
        try:
            linux.setns(room.first, linux.CLONE_NEWNS)
        except ProcessLookupError:
            return None
        try:
            return os.open("self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            return None
        finally:
            linux.setns(self._home_mounts, linux.CLONE_NEWNS)

    def _replenish(self, spare: int) -> None:
        while len(self._spare) + self._requested < spare + len(self._waiting):
            packets.send(self._nursery, {"op": "build"})
            self._requested += 1

    def _on_nursery(self) -> None:
        message, fds = packets.receive(self._nursery)
        if message is None:
            raise OSError(0, "the process that builds rooms died")
        self._requested -= 1
        if message["op"] == "built":
            room = Room(*fds)
            self._zygote.on_readable(room.first, lambda: self._on_room_ended(room))
            self._spare.append(room)
            self._advance()
            while len(self._spare) > self._plan["spare_rooms"]:  # the order that it was for was withdrawn
                self._spare.pop().kill()
        elif self._waiting:
            order = self._waiting.popleft()
            self._zygote.say_failed(order.worker, "its room could not be built: %s" % message["text"])
            order.close()
            self._replenish(spare=0)  # spares again once one has been built

    def _on_room_ended(self, room: Room) -> None:
        self._zygote.ignore(room.first)
        room.close()
        if room in self._spare:
            self._spare.remove(room)
        self._zygote.reap()
        for worker in room.workers:
            del self._room_of[worker]
            self._zygote.say_destroyed(worker, 0)


class _Steps:
    """Of one worker. The order counts: each gives up what the ones before it needed."""

    def __init__(self, order: "Order", room: Room) -> None:
        self._order = order
        self._plan = order.plan
        self._room = room

    def arrive(self) -> None:
        linux.setns(self._room.first, _JOINED)
        if self._plan["first_uid"]:
            os.setgroups([])
        else:
            linux.setns(self._room.first, linux.CLONE_NEWUSER)

    def settle(self) -> None:
        if self._plan["first_uid"]:
            confine.seal(self._plan, kept=_KEPT)
            # Rehearsed, as all that follows: nothing changes by it.
            confine.become(os.getuid())
            confine.give_up(_KEPT)
        else:
            confine.become(self._plan["room_uid"])
            confine.seal(self._plan)
        self._order.enter("/")

    def move_in(self, message: Dict[str, Any]) -> None:
        if self._plan["first_uid"]:
            confine.become(message["uid"])
            confine.give_up()
        self._order.enter(WORK)


def _write_users(uid: int) -> None:
    for path, text in view.user_files(uid).items():
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, text)
        finally:
            os.close(fd)
