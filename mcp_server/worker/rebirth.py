"""What a fork copies and each context must have of its own: random states, secrets, a start directory, threads.

Only what the zygote had loaded is touched; what is loaded later is fresh by itself.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any, Callable, List, Optional

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


_renewals: List[Callable[[], object]] = []


def prepare_generators() -> None:
    """In the zygote, when all is loaded: find the shortest way for `reseed`, which writes to pages that are shared."""
    random: Any = sys.modules.get("random")
    if random is not None:
        random.seed()
        _renewals.append(functools.partial(super(random.Random, random._inst).seed, None))  # noqa: SLF001
    if "numpy.random" in sys.modules:
        _renewals.append(_renewal_of_numpy(sys.modules["numpy.random"]))


def reseed(seed: Optional[int]) -> None:
    """Have the global random generators begin anew: from `seed`, else from what no other context knows.

    Without a seed these are the ones that `prepare_generators` found: what is loaded later seeds itself.
    """
    if seed is None:
        for renew in _renewals:
            renew()
        return
    for name in _GENERATORS:
        generators: Any = sys.modules.get(name)
        if generators is not None:
            generators.seed(seed)


def _renewal_of_numpy(generators: Any) -> Callable[[], object]:
    """What gives numpy's global generator a new state: written where it lies, if it is found to lie as it should.

    A state is as good as a seed, of which numpy makes one, and takes a tenth of the pages.
    """
    ctypes: Any = importlib.import_module("ctypes")
    size = 4 * _MERSENNE_WORDS

    def set_state() -> None:
        words = memoryview(os.urandom(size)).cast("I")
        generators.set_state(("MT19937", words, _MERSENNE_WORDS))

    set_state()  # and forget a number that was drawn ahead
    name, words, position = generators.get_state()[:3]
    bit_generator = generators.mtrand._rand._bit_generator  # noqa: SLF001
    place = (ctypes.c_char * (size + 4)).from_address(bit_generator.ctypes.state_address)
    end = position.to_bytes(4, sys.byteorder)
    if name != "MT19937" or place.raw != words.tobytes() + end:
        return set_state

    def write_state() -> None:
        place.raw = os.urandom(size) + end

    return write_state


class Identity:
    """What `threading` and `multiprocessing` know of their process: made in the zygote, renewed in each fork.

    Where it lies is found out beforehand: on the way to it are pages that are shared.
    """

    def __init__(self) -> None:
        threading: Any = sys.modules.get("threading")
        self._main_thread = None if threading is None else threading.main_thread()
        if sys.version_info >= (3, 14):
            _fork_children()
        process: Any = sys.modules.get("multiprocessing.process")
        self._settings = None if process is None else process.current_process()._config  # noqa: SLF001
        self._make_key: Any = getattr(process, "AuthenticationString", None)

    def renew(self) -> None:
        """The main thread gets its number in this process, and children a key that other contexts do not know."""
        if self._main_thread is not None:
            self._main_thread._native_id = os.getpid()  # noqa: SLF001  (`threading` itself does so from Python 3.13 on)
        if self._settings is not None:
            self._settings["authkey"] = self._make_key(os.urandom(_AUTHKEY_BYTES))


def _fork_children() -> None:
    """From Python 3.14 on, children are made by a server that does not know the functions of a cell; here as before."""
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
