"""The nursery: a light process that builds rooms ahead, so that no context waits for one.

A room is the namespaces of one context, held by a process of ours as their first: it only reaps, and ends, and the room
with it, when the zygote lets go of its socket or kills it. The nursery is forked from the zygote before anything heavy
is imported, because a fork costs what its memory costs.

    zygote → nursery   {"op": "build"}
    nursery → zygote   {"op": "built"} + pidfd of the room's first process, its control socket
                       {"op": "failed", "text": str}
"""

from __future__ import annotations

import os
import select
import signal
import socket
from typing import Any, Dict, List, NoReturn, Tuple

from . import confine, linux, packets, reaping, view

BUILD_TIMEOUT_S = 30.0
"""A room takes milliseconds; a machine that needs this long for one cannot serve."""

SCRATCH_DIRS = ("/tmp", "/dev/shm", "/run")  # noqa: S108  (a tmpfs of each room's own)

_ROOM_NAMESPACES = linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS

_NO_MORE_NAMESPACES = tuple(
    "max_%s_namespaces" % kind for kind in ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
)

CEILINGS = {"max_inotify_instances": 64, "max_inotify_watches": 8192, "max_fanotify_groups": 0}
"""Of /proc/sys/user: without them code inside could use up what the host grants to its whole user."""


def start(plan: Dict[str, Any], control: socket.socket) -> socket.socket:
    """Fork the nursery; returns the socket to it. It lets go of `control`, which is the zygote's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        control.close()
        linux.die_with_parent(signal.SIGKILL)
        _serve(theirs, plan)
    theirs.close()
    return ours


def _serve(requests: socket.socket, plan: Dict[str, Any]) -> NoReturn:
    linux.set_process_name("nursery")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    view.mounts_beneath(SCRATCH_DIRS)  # loads the codecs that it takes, once and not in each room
    while True:
        message, _ = packets.receive(requests)
        if message is None:
            os._exit(0)
        try:
            fds = _build(plan, home)
        except OSError as error:
            packets.send(requests, {"op": "failed", "text": str(error)})
            continue
        packets.send(requests, {"op": "built"}, fds)
        for fd in fds:
            os.close(fd)


def _build(plan: Dict[str, Any], home: int) -> Tuple[int, int]:
    """A new room: the pidfd of its first process and the control socket. Raises OSError with the step's name."""
    report, reporting = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with report, reporting, control, inner:
        linux.unshare(linux.CLONE_NEWPID)
        try:
            pid = os.fork()
            if pid == 0:
                _become_first_process(plan, reporting, inner)
        finally:
            linux.setns(home, linux.CLONE_NEWPID)
        pidfd = os.pidfd_open(pid)
        reporting.close()
        report.settimeout(BUILD_TIMEOUT_S)
        try:
            text = report.recv(4096)
        except socket.timeout:
            text = b"not built after %d s" % BUILD_TIMEOUT_S
        if text != b"built":
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
            raise OSError(0, text.decode("utf-8", "replace") or "the room's first process died")
        return pidfd, control.detach()


def _become_first_process(plan: Dict[str, Any], reporting: socket.socket, control: socket.socket) -> NoReturn:
    try:
        _furnish(plan)
        linux.set_process_name("room")
        ended = reaping.wake_by_ended_children()
        linux.close_all_fds_but((2, reporting.fileno(), control.fileno(), *_wakeup_fds(ended)))
        confine.seal({"rlimits": {}, "landlock": None, "seccomp": plan["seccomp"]})
        reporting.send(b"built")
    except BaseException as error:  # the nursery must hear of it, and nothing of the nursery may run here
        reporting.send(("%s" % error).encode("utf-8", "replace")[:4096])
        os._exit(1)
    reporting.close()
    _hold(ended, control.fileno())


def _hold(ended: int, control: int) -> NoReturn:
    """Reap orphans until the zygote lets go."""
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(control, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == control:
                os._exit(0)
            os.read(ended, 4096)
            reaping.reap_children()


def _furnish(plan: Dict[str, Any]) -> None:
    """Namespaces, files and limits of the room that the calling process is the first of."""
    linux.unshare(_ROOM_NAMESPACES)
    linux.loopback_up()
    kept = [(path, linux.open_tree(path)) for path in view.mounts_beneath(SCRATCH_DIRS)]
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


def _wakeup_fds(ended: int) -> List[int]:
    """Both ends of the pipe that SIGCHLD writes to."""
    writable = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    return [ended, writable]
