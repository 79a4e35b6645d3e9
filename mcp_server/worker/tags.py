"""Tags: how all processes of one context are found, however they hide.

A tag is the hard RLIMIT_RTTIME of a process. Fork and exec inherit it, new sessions and double forks keep it, and it
limits nothing, because only real-time scheduling counts against it and every tag is over twelve days of that.
The seccomp programs keep user code from changing its own.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import time
from typing import Callable, Iterable, List, Optional, Set

_LABEL = b"Max realtime timeout"

_LONGEST_WAIT_MS = 1000
"""For one killed process to end; only uninterruptible sleep takes that long."""

_GIVE_UP_S = 10.0
"""What still lives then is in uninterruptible sleep."""

_CLEAN_PASSES = 2
"""/proc is not read at one instant: a process may fork behind the reader's back and leave. Twice is enough to trust."""


def wear(tag: int, pid: int = 0) -> None:
    """Tag this process, or a child of its that has not been reaped, and all that it will ever start."""
    try:  # noqa: SIM105  (each worker goes this way, and what the library has for it costs pages)
        resource.prlimit(pid, resource.RLIMIT_RTTIME, (tag, tag))
    except ProcessLookupError:  # a child that has ended
        pass


def tag_of(pid: int) -> Optional[int]:
    """None for processes without a tag, or gone."""
    try:
        fd = os.open("/proc/%d/limits" % pid, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(fd, 4096)
    except OSError:
        return None
    finally:
        os.close(fd)
    start = text.find(_LABEL)
    if start < 0:
        return None
    hard = text[start + len(_LABEL) :].split(None, 2)[1]
    return int(hard) if hard.isdigit() else None


def find(wanted: Callable[[int], bool]) -> List[int]:
    """Pids of the processes (zombies included) whose tag is wanted."""
    return _with_tag([int(name) for name in os.listdir("/proc") if name.isdigit()], wanted)


def kill(wanted: Callable[[int], bool], reap: Callable[[], object]) -> int:
    """Kill every process whose tag is wanted, and those that they start meanwhile. Returns how many survived.

    `reap` collects the caller's dead children without blocking; the caller must be a reaper of all the others (a
    subreaper or PID 1), or they must have a parent who collects them.
    """
    deadline = time.monotonic() + _GIVE_UP_S
    dying: Set[int] = set()
    clean_passes = 0
    while True:
        reap()
        # Own descendants are found in microseconds: a process that forks and leaves at once loses that race.
        found = _with_tag(_descendants(), wanted) or find(wanted)
        clean_passes = 0 if found else clean_passes + 1
        if clean_passes == _CLEAN_PASSES or time.monotonic() > deadline:
            return len(found)
        fresh = [pid for pid in found if pid not in dying]
        for pid in fresh:
            _kill_one(pid, wanted)
        dying.update(fresh)
        if found and not fresh:
            _wait_for(found[0])
            dying.discard(found[0])


def _with_tag(pids: Iterable[int], wanted: Callable[[int], bool]) -> List[int]:
    found = []
    for pid in pids:
        tag = tag_of(pid)
        if tag is not None and wanted(tag):
            found.append(pid)
    return found


def _descendants() -> List[int]:
    """The processes below this one, as far as the kernel tells (it may be built without that list)."""
    found: List[int] = []
    waiting = [os.getpid()]
    while waiting:
        pid = waiting.pop()
        try:
            with open("/proc/%d/task/%d/children" % (pid, pid), "rb") as file:
                children = [int(child) for child in file.read().split()]
        except OSError:
            continue
        found += children
        waiting += children
    return found


def _kill_one(pid: int, wanted: Callable[[int], bool]) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # Its tag is asked again, now that the descriptor keeps the number from meaning another process.
        if _with_tag([pid], wanted):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)


def _wait_for(pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(_LONGEST_WAIT_MS)
    finally:
        os.close(pidfd)
