"""Hearing of ended children, and collecting them."""

from __future__ import annotations

import os
import signal
from typing import List, Tuple


def wake_by_ended_children() -> int:
    """A non-blocking descriptor that becomes readable with each SIGCHLD."""
    readable, writable = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _be_woken)
    return readable


def _be_woken(*_: object) -> None:
    """The descriptor is written to by Python itself."""


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
