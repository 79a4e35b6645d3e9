"""The nursery: a light process that builds rooms ahead, so that no context waits for one.

A room is the namespaces of one context, held by a process of ours as their first (`holder`), which ends, and the room
with it, when the zygote kills it or ends. The nursery is forked from the zygote before anything heavy is imported,
because a fork costs what its memory costs.

    zygote → nursery   {"op": "build"}
    nursery → zygote   {"op": "built"} + pidfd of the room's first process
                       {"op": "failed", "text": str}
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from typing import Any, Dict, List, NoReturn, Optional, Tuple

from . import confine, holder, linux, packets, view

BUILD_TIMEOUT_S = 30
"""A room takes milliseconds; a machine that needs this long for one cannot serve."""

SCRATCH_DIRS = ("/tmp", "/dev/shm", "/run")  # noqa: S108  (a tmpfs of each room's own)

_ROOM_NAMESPACES = linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS

_KINDS = ("mnt", "net", "ipc", "uts", "pid")

_NO_MORE_NAMESPACES = tuple(
    "max_%s_namespaces" % kind for kind in ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
)

_PRIVATE = linux.MS_NOSUID | linux.MS_NODEV

_FREE_FD = 1
"""The lowest that a first process has free: what it opens."""

_SECOND_FD = 3
"""Where it has its second program, if it has one."""

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
    confine.set_limits({})  # theirs too
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
    """What is the same for every room is found once.

    A room is made by the nursery itself, which goes into it and comes back: a fork, which copies each page that it
    touches, would take as long as all the rest.
    """

    def __init__(self, plan: Dict[str, Any]) -> None:
        self._plan = plan
        _leave_out(plan)
        self._home = [os.open("/proc/self/ns/" + kind, os.O_RDONLY | os.O_CLOEXEC) for kind in _KINDS]
        self._kept = view.mounts_beneath(SCRATCH_DIRS)
        self._programs = _first_programs(plan)
        self._poll = select.poll()

    def build(self) -> int:
        """A new room: the pidfd of its first process. Raises OSError with the step's name."""
        report, reporting = os.pipe()
        try:
            try:
                pid = self._start_first_process(reporting)
            finally:
                os.close(reporting)
            first = _pidfd_of(pid)
            text = self._await_report(report)
        finally:
            os.close(report)
        if text:
            if first is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(first, signal.SIGKILL)
                os.close(first)
            raise OSError(0, text)
        if first is None:
            raise OSError(0, "its first process was killed")
        return first

    def _start_first_process(self, reporting: int) -> int:
        linux.unshare(_ROOM_NAMESPACES)
        try:
            _furnish(self._plan, self._kept)
            linux.unshare(linux.CLONE_NEWPID)  # of the next child, not of this process
            first, *second = self._programs
            files = [
                (os.POSIX_SPAWN_DUP2, reporting, holder.REPORT_FD),
                (os.POSIX_SPAWN_CLOSE, _FREE_FD),
                *((os.POSIX_SPAWN_DUP2, program.fd, _SECOND_FD) for program in second),
            ]
            return os.posix_spawn("/proc/self/fd/%d" % first.fd, ["room"], {}, file_actions=files, setsigmask=[])
        finally:
            for namespace in self._home:
                linux.setns(namespace, 0)

    def _await_report(self, report: int) -> str:
        """What failed of a first process's steps; nothing where it came to hold its room."""
        self._poll.register(report, select.POLLIN)
        try:
            if not self._poll.poll(BUILD_TIMEOUT_S * 1000):
                return "not built after %d s" % BUILD_TIMEOUT_S
        finally:
            self._poll.unregister(report)
        return holder.explain(os.read(report, 64), self._programs)


def _pidfd_of(pid: int) -> Optional[int]:
    """None where it has ended already: the kernel reaps it."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _leave_out(plan: Dict[str, Any]) -> None:
    """Have mounts of our own, without those that no room may see: to unmount them, each would wait for the kernel."""
    linux.unshare(linux.CLONE_NEWNS)
    for path in (view.OUTPUTS_DIR, *([view.WORKSPACE_DIR] if plan["workspace"] else [])):
        linux.unmount(path)


def _furnish(plan: Dict[str, Any], kept_mounts: List[str]) -> None:
    """Network and files of the room whose namespaces the calling process is in, but for /proc."""
    linux.loopback_up()
    kept = [(path, linux.open_tree(path)) for path in kept_mounts]
    size = "size=%d,nr_inodes=%d" % (plan["scratch_bytes"], plan["scratch_inodes"])
    linux.mount("tmpfs", "/tmp", "tmpfs", _PRIVATE, size + ",mode=1777")  # noqa: S108
    linux.mount("tmpfs", "/dev/shm", "tmpfs", _PRIVATE | linux.MS_NOEXEC, size + ",mode=1777")  # noqa: S108
    linux.mount("tmpfs", "/run", "tmpfs", _PRIVATE | linux.MS_NOEXEC, "size=64k,nr_inodes=64,mode=0755")
    for path, tree in kept:
        view.attach(tree, path)


def _first_programs(plan: Dict[str, Any]) -> List[holder.Program]:
    """What the first process of a room does: what only one that is in it can do, and its own sealing.

    Where it goes into a user namespace it executes a second program there, and so becomes that namespace's in all
    respects: what is asked of the files in its /proc (`mm->user_ns`) is decided by where it was executed.
    """
    entering = [
        holder.Step("mount /proc", "mount", (b"proc", b"/proc", b"proc", _PRIVATE | linux.MS_NOEXEC)),
        *_writing("/proc/self/oom_score_adj", confine.OOM_SCORE.encode()),
    ]
    if plan["first_uid"]:
        return [holder.program("/run", [*entering, *_giving_up(), *_closing(plan["seccomp"])], holder.FIRST)]
    uid_map = b"%d 0 1" % plan["room_uid"]
    entering += [
        holder.Step("unshare user", "unshare", (linux.CLONE_NEWUSER,)),
        *_writing("/proc/self/uid_map", uid_map),
        *_writing("/proc/self/gid_map", uid_map),
        *(step for path, value in _ceilings(_NO_MORE_NAMESPACES).items() for step in _writing(path, b"%d" % value)),
    ]
    there = holder.Texts((b"room",))
    changing = holder.Step("execveat", "execveat", (_SECOND_FD, b"", there, holder.Texts(()), linux.AT_EMPTY_PATH))
    letting_go = holder.Step("close", "close", (_SECOND_FD,))
    return [
        holder.program("/run", [*entering, *_giving_up(), changing], holder.FIRST),
        holder.program("/run", [letting_go, *_closing(plan["seccomp"])], holder.SECOND),
    ]


def _writing(path: str, text: bytes) -> List[holder.Step]:
    """A write(2) to one of the kernel's control files."""
    what = "write %s" % path
    return [
        holder.Step(what, "openat", (linux.AT_FDCWD, os.fsencode(path), os.O_WRONLY)),
        holder.Step(what, "write", (_FREE_FD, text, len(text))),
        holder.Step(what, "close", (_FREE_FD,)),
    ]


def _giving_up() -> List[holder.Step]:
    """Capabilities, as `confine` gives them up; the limits are the nursery's own."""
    with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
        bounding = range(int(file.read()) + 1)
    return [
        holder.Step("no_new_privs", "prctl", (linux.PR_SET_NO_NEW_PRIVS, 1)),
        holder.Step("securebits", "prctl", (linux.PR_SET_SECUREBITS, confine.SECUREBITS)),
        *(holder.Step("bounding set", "prctl", (linux.PR_CAPBSET_DROP, capability)) for capability in bounding),
        holder.Step("ambient set", "prctl", (linux.PR_CAP_AMBIENT, linux.PR_CAP_AMBIENT_CLEAR_ALL)),
        holder.Step("capabilities", "capset", linux.capability_sets()),
    ]


def _closing(seccomp: Optional[str]) -> List[holder.Step]:
    """The rest of the sealing, and the report."""
    steps = [
        holder.Step("name", "prctl", (linux.PR_SET_NAME, b"room")),
        holder.Step("dumpable", "prctl", (linux.PR_SET_DUMPABLE, 0)),
    ]
    if seccomp is not None:
        program = holder.Filter(confine.read_program(seccomp))
        steps.append(holder.Step("seccomp", "prctl", (linux.PR_SET_SECCOMP, linux.SECCOMP_MODE_FILTER, program)))
    return [
        *steps,
        holder.Step("report", "write", (holder.REPORT_FD, holder.DONE, len(holder.DONE))),
        holder.Step("close", "close", (holder.REPORT_FD,)),
    ]


def set_ceilings(forbidden: Tuple[str, ...]) -> None:
    """Limit what the current user namespace may have; `forbidden` are the kinds it may have none of."""
    for path, value in _ceilings(forbidden).items():
        linux.write_file(path, str(value))


def _ceilings(forbidden: Tuple[str, ...]) -> Dict[str, int]:
    """The values by file; the kernel may be built without some kinds."""
    ceilings: Dict[str, int] = {**CEILINGS, **dict.fromkeys(forbidden, 0)}
    paths = {"/proc/sys/user/" + name: value for name, value in ceilings.items()}
    return {path: value for path, value in paths.items() if os.path.exists(path)}
