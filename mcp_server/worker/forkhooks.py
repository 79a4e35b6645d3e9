"""What modules have asked to be done at each fork, and a fork of the zygote need not do.

`threading`, `logging` and `concurrent.futures` repair what other threads may have left behind: the zygote has none.
`random` draws a new seed: `rebirth` gives one to each context. All that costs a new worker more page faults than
anything else on its way. In the forks of a context's own code they are done as ever.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Callable, Dict, List

SPARED = ("threading", "logging", "concurrent.futures.thread", "random")

_OLDEST_WHOSE_THREADS_RENEW_MORE = (3, 13)
"""From then on `threading` also renews handles of the operating system."""

Hooks = Dict[str, Callable[[], object]]

_kept: List[Hooks] = []
_ours: List[bool] = [True]
_register: Any = os.register_at_fork


def keep() -> None:
    """From now on, keep here what those modules register as they are imported. `leave` ends it."""
    if sys.version_info < _OLDEST_WHOSE_THREADS_RENEW_MORE:
        _register(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
        os.register_at_fork = _keep_or_register  # type: ignore[assignment]  # it takes the same


def leave() -> None:
    """Let modules register as ever."""
    os.register_at_fork = _register


def do_in_forks() -> None:
    """In a worker: what was kept is done in the forks of this process."""
    _ours.clear()


def _keep_or_register(**hooks: Callable[[], object]) -> None:
    if sys._getframe(1).f_globals.get("__name__") in SPARED:  # noqa: SLF001  (who asks is nowhere else)
        _kept.append(hooks)
    else:
        _register(**hooks)


def _before() -> None:
    if not _ours:
        for hooks in reversed(_kept):
            if "before" in hooks:
                hooks["before"]()


def _after_in_parent() -> None:
    if not _ours:
        for hooks in _kept:
            if "after_in_parent" in hooks:
                hooks["after_in_parent"]()


def _after_in_child() -> None:
    if not _ours:
        for hooks in _kept:
            if "after_in_child" in hooks:
                hooks["after_in_child"]()
