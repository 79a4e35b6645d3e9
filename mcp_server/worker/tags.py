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
from typing import Callable, Dict, List, Optional

_LABEL = b"Max realtime timeout"

_LONGEST_WAIT_MS = 1000
"""For one round of killed processes to end; only uninterruptible sleep takes that long."""

_ROUNDS = 20
"""Each round kills everything it sees. Survivors of so many are in uninterruptible sleep."""

_CLEAN_PASSES = 2
"""/proc is not read at one instant: a process may fork behind the reader's back and leave. Twice is enough to trust."""


def wear(tag: int) -> None:
    """Tag this process and all that it will ever start."""
    resource.setrlimit(resource.RLIMIT_RTTIME, (tag, tag))


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
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            tag = tag_of(int(name))
            if tag is not None and wanted(tag):
                found.append(int(name))
    return found


def kill(wanted: Callable[[int], bool], reap: Callable[[], object]) -> int:
    """Kill every process whose tag is wanted, and those that they start meanwhile. Returns how many survived.

    `reap` collects the caller's dead children without blocking; the caller must be a reaper of all the others (a
    subreaper or PID 1), or they must have a parent who collects them.
    """
    clean_passes = 0
    found: List[int] = []
    for _ in range(_ROUNDS):
        reap()
        found = find(wanted)
        clean_passes = 0 if found else clean_passes + 1
        if clean_passes == _CLEAN_PASSES:
            return 0
        _kill_and_wait(found, wanted)
    return len(found)


def _kill_and_wait(pids: List[int], wanted: Callable[[int], bool]) -> None:
    dying: Dict[int, int] = {}
    try:
        for pid in pids:
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            dying[pidfd] = pid
            tag = tag_of(pid)  # asked again, now that the descriptor keeps the pid from meaning another process
            if tag is not None and wanted(tag):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        _wait_for_all(dying)
    finally:
        for pidfd in dying:
            os.close(pidfd)


def _wait_for_all(pidfds: Dict[int, int]) -> None:
    poll = select.poll()
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    waiting = len(pidfds)
    while waiting:
        ended = poll.poll(_LONGEST_WAIT_MS)
        if not ended:
            return
        for pidfd, _ in ended:
            poll.unregister(pidfd)
            waiting -= 1
