"""The nursery: a light process that builds rooms ahead, so that no context waits for one.

A room is the namespaces of one context, held by a process of ours as their first (`holder`), which ends, and the room
with it, when the zygote kills it or ends. The nursery is forked from the zygote before anything heavy is imported,
because a fork costs what its memory costs.

    zygote → nursery   {"op": "build"}
    nursery → zygote   {"op": "built"} + pidfd of the room's first process
                       {"op": "failed", "text": str}
"""

from __future__ import annotations

import os
import select
import signal
import socket
from typing import Any, Dict, List, NoReturn, Tuple

from . import confine, holder, linux, packets, view

BUILD_TIMEOUT_S = 30
"""A room takes milliseconds; a machine that needs this long for one cannot serve."""

SCRATCH_DIRS = ("/tmp", "/dev/shm", "/run")  # noqa: S108  (a tmpfs of each room's own)

_ROOM_NAMESPACES = linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS

_NO_MORE_NAMESPACES = tuple(
    "max_%s_namespaces" % kind for kind in ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
)

CEILINGS = {"max_inotify_instances": 64, "max_inotify_watches": 8192, "max_fanotify_groups": 0}
"""Of /proc/sys/user: without them code inside could use up what the host grants to its whole user."""


def start(plan: Dict[str, Any], *others: socket.socket) -> socket.socket:
    """Fork the nursery; returns the socket to it. It lets go of `others`, which are the zygote's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        for other in others:
            other.close()
        linux.die_with_parent(signal.SIGKILL)
        _serve(theirs, plan)
    theirs.close()
    return ours


def _serve(requests: socket.socket, plan: Dict[str, Any]) -> NoReturn:
    linux.set_process_name("nursery")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a signal that has no handler cannot reach a room's first process
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps; so it does for the first processes of rooms
    builder = _Builder(plan)
    while True:
        message, _ = packets.receive(requests)
        if message is None:
            os._exit(0)
        try:
            first = builder.build()
        except OSError as error:
            packets.send(requests, {"op": "failed", "text": str(error)})
            continue
        packets.send(requests, {"op": "built"}, [first])
        os.close(first)


class _Builder:
    """What is the same for every room is found once."""

    def __init__(self, plan: Dict[str, Any]) -> None:
        self._plan = plan
        self._home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._kept = view.mounts_beneath(SCRATCH_DIRS)
        self._program = holder.program("/run")
        self._poll = select.poll()
        if plan["seccomp"] is not None:
            confine.read_program(plan["seccomp"])

    def build(self) -> int:
        """A new room: the pidfd of its first process. Raises OSError with the step's name."""
        report, reporting = os.pipe()
        try:
            linux.unshare(linux.CLONE_NEWPID)
            try:
                pid = os.fork()
                if pid == 0:
                    self._become_first_process(reporting)
            finally:
                linux.setns(self._home, linux.CLONE_NEWPID)
                os.close(reporting)
            first = os.pidfd_open(pid)
            text = self._await_end(report)
        finally:
            os.close(report)
        if text:
            signal.pidfd_send_signal(first, signal.SIGKILL)
            os.close(first)
            raise OSError(0, text)
        return first

    def _await_end(self, report: int) -> str:
        """What a first process says of its failure; nothing where it came to hold its room."""
        self._poll.register(report, select.POLLIN)
        try:
            if not self._poll.poll(BUILD_TIMEOUT_S * 1000):
                return "not built after %d s" % BUILD_TIMEOUT_S
        finally:
            self._poll.unregister(report)
        return os.read(report, 4096).decode("utf-8", "replace")

    def _become_first_process(self, reporting: int) -> NoReturn:
        """`reporting` closes when it holds the room."""
        try:
            _furnish(self._plan, self._kept)
            linux.close_all_fds_but((2, reporting, self._program))
            confine.seal({"rlimits": {}, "landlock": None, "seccomp": self._plan["seccomp"]})
            holder.become(self._program)
        except BaseException as error:  # the nursery must hear of it, and nothing of the nursery may run here
            os.write(reporting, ("%s" % error).encode("utf-8", "replace")[:4096] or b"unknown")
            os._exit(1)


def _furnish(plan: Dict[str, Any], kept_mounts: List[str]) -> None:
    """Namespaces, files and limits of the room that the calling process is the first of."""
    linux.unshare(_ROOM_NAMESPACES)
    linux.loopback_up()
    kept = [(path, linux.open_tree(path)) for path in kept_mounts]
    size = "size=%d,nr_inodes=%d" % (plan["scratch_bytes"], plan["scratch_inodes"])
    private = linux.MS_NOSUID | linux.MS_NODEV
    linux.mount("tmpfs", "/tmp", "tmpfs", private, size + ",mode=1777")  # noqa: S108
    linux.mount("tmpfs", "/dev/shm", "tmpfs", private | linux.MS_NOEXEC, size + ",mode=1777")  # noqa: S108
    linux.mount("tmpfs", "/run", "tmpfs", private | linux.MS_NOEXEC, "size=64k,nr_inodes=64,mode=0755")
    for path, tree in kept:
        view.attach(tree, path)
    for path in (view.SANDBOXES_DIR, view.OUTPUTS_DIR, *([view.WORKSPACE_DIR] if plan["workspace"] else [])):
        linux.unmount(path)
    linux.mount("proc", "/proc", "proc", private | linux.MS_NOEXEC)
    if not plan["first_uid"]:
        linux.unshare(linux.CLONE_NEWUSER)
        linux.write_file("/proc/self/uid_map", "%d 0 1" % plan["room_uid"])
        linux.write_file("/proc/self/gid_map", "%d 0 1" % plan["room_uid"])
        set_ceilings(_NO_MORE_NAMESPACES)


def set_ceilings(forbidden: Tuple[str, ...]) -> None:
    """Limit what the current user namespace may have; `forbidden` are the kinds it may have none of."""
    ceilings: Dict[str, int] = {**CEILINGS, **dict.fromkeys(forbidden, 0)}
    for name, value in ceilings.items():
        path = "/proc/sys/user/" + name
        if os.path.exists(path):  # the kernel may be built without that kind
            linux.write_file(path, str(value))
