"""What modules have asked to be done at each fork, and a fork of the zygote need not do.

`threading`, `logging` and `concurrent.futures` repair what other threads may have left behind: the zygote has none.
`random` draws a new seed: `rebirth` gives one to each context. matplotlib lets go of the fonts that it has open: the
zygote has done so (`preload`). All that costs a new worker more page faults than anything else on its way. In the forks
of a context's own code they are done as ever.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any, Callable, Dict, List

SPARED = ("threading", "logging", "concurrent.futures.thread", "random", "matplotlib.font_manager")

_MOMENTS = ("before", "after_in_parent", "after_in_child")

_kept: List[Dict[str, Callable[[], object]]] = []
_register: Any = os.register_at_fork
_in_worker = False


def keep() -> None:
    """From now on, keep here what those modules register as they are imported. `leave` ends it."""
    _register(**{moment: functools.partial(_do, moment) for moment in _MOMENTS})
    os.register_at_fork = _keep_or_register  # type: ignore[assignment]  # it takes the same


def leave() -> None:
    """Let modules register as ever."""
    os.register_at_fork = _register


def do_in_forks() -> None:
    """In a worker: what was kept is done in the forks of this process."""
    global _in_worker
    _in_worker = True


def _keep_or_register(**hooks: Callable[[], object]) -> None:
    if sys._getframe(1).f_globals.get("__name__") in SPARED:  # noqa: SLF001  (who asks is nowhere else)
        _kept.append(hooks)
    else:
        _register(**hooks)


def _do(moment: str) -> None:
    """In the order of `os.register_at_fork`: before a fork, what was registered last comes first."""
    if _in_worker:
        for hooks in reversed(_kept) if moment == "before" else _kept:
            if moment in hooks:
                hooks[moment]()
