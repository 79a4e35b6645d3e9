"""What a fork copies and each context must have of its own: random states, secrets, a start directory, threads.

Only what the zygote had loaded is touched; what is loaded later is fresh by itself.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any, Optional

_AUTHKEY_BYTES = 32
"""As `multiprocessing` makes its own."""

_GENERATORS = ("random", "numpy.random")

_MERSENNE_WORDS = 624
"""The state of a Mersenne twister, which numpy's global generator is."""

_OPENBLAS = ("scipy_openblas_set_num_threads64_", "openblas_set_num_threads64_", "openblas_set_num_threads")
_OPENBLAS_VARIABLE = "OPENBLAS_NUM_THREADS"


def load_generators() -> None:
    """In the zygote: have the global random generators there, since what a context loads later seeds itself."""
    for module in _GENERATORS:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)


def reseed(seed: Optional[int]) -> None:
    """Have the global random generators begin anew: from `seed`, else from what no other context knows."""
    random: Any = sys.modules.get("random")
    if random is not None:
        random.seed(seed)
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or "numpy.random" not in sys.modules:
        return
    if seed is not None:
        numpy.random.seed(seed)
    else:
        # As good as its own way without a seed, which would write to four times as many pages that contexts share.
        state = numpy.frombuffer(os.urandom(4 * _MERSENNE_WORDS), numpy.uint32)
        numpy.random.set_state(("MT19937", state, _MERSENNE_WORDS))


def renew_multiprocessing() -> None:
    """Let children start with a key that other contexts do not know.

    From Python 3.14 on, children are made by a server that does not know the functions of a cell: here they are
    forked, as before.
    """
    process: Any = sys.modules.get("multiprocessing.process")
    if process is not None:
        process.current_process().authkey = os.urandom(_AUTHKEY_BYTES)
    if sys.version_info >= (3, 14):
        context = importlib.import_module("multiprocessing.context")
        context._default_context._default_context = context._concrete_contexts["fork"]  # noqa: SLF001


def start_children_here() -> None:
    """Let children of `multiprocessing` start in the present directory."""
    process: Any = sys.modules.get("multiprocessing.process")
    if process is not None:
        process.ORIGINAL_DIR = os.getcwd()


class BlasThreads:
    """Gives OpenBLAS the threads back that the zygote, which must have one only, was loaded without.

    OpenBLAS starts its threads when it is told their number, and they spin for a while: so it is told when numpy is
    first named in a cell, not in every context.
    """

    def __init__(self) -> None:
        self._count = len(os.sched_getaffinity(0))
        self._is_due = "numpy" in sys.modules

    def heed(self, envs: Mapping[str, str]) -> None:
        """Take the number of threads that the context's environment asks for."""
        wanted = envs.get(_OPENBLAS_VARIABLE, "")
        if wanted.isdecimal():
            self._count = int(wanted)

    def before(self, source: str) -> None:
        """Look at a cell that is about to run."""
        if self._is_due and "numpy" in source:
            self._is_due = False
            setter = _openblas_setter() if self._count > 1 else None
            if setter is not None:
                setter(self._count)


def _openblas_setter() -> Any:
    """The function of the library that numpy was built with; None where it is another library."""
    ctypes: Any = sys.modules.get("ctypes")
    if ctypes is None:
        return None
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        paths = {line[line.index("/") :].rstrip("\n") for line in maps if "openblas" in line and "/" in line}
    for path in sorted(paths):
        library = ctypes.CDLL(path)
        for name in _OPENBLAS:
            if hasattr(library, name):
                return getattr(library, name)
    return None
