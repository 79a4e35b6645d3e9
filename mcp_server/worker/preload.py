"""What contexts shall find loaded: imported in the zygote, and used once where the first use is what takes long."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib.util
import os
import sys
import time
from typing import Any, Callable, Dict, Iterator, List

from . import backing, figures, linux, main, mappings, packing, streams, trees, view

_backing = backing.Backing()

_THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Set to 1 while the zygote loads what it shall have, as it must stay single-threaded to be forked."""

_LONGEST_THREAD_S = 10.0
"""A thread that an import started and that is about to end; the zygote says how many there are in the end."""


def ask_for_one_thread() -> None:
    """Before anything is imported: the zygote must have one thread, to be forked."""
    for name in _THREAD_VARIABLES:
        os.environ[name] = "1"


def allow_threads() -> None:
    """When everything is loaded: what contexts load for themselves may have as many as it likes."""
    for name in _THREAD_VARIABLES:
        os.environ.pop(name, None)


def warm(modules: List[str]) -> Dict[str, Any]:
    """Import the modules; what fails is told, not raised."""
    started = time.monotonic()
    gc.disable()  # imports make many objects and little garbage
    if modules:
        _backing.take_room()
    loaded = []
    failed = {}
    for name in modules:
        try:
            importlib.import_module(name)
            FIRST_USES.get(name, _no_use)()
            loaded.append(name)
        except Exception as error:  # foreign code: a broken package may raise anything, and contexts do without it
            failed[name] = "%s: %s" % (type(error).__name__, str(error)[:500])
            _forget(name)
    _join_threads()
    _settle_heap()
    mappings.join()
    gc.enable()
    return _facts(loaded, loaded, failed, time.monotonic() - started)


def look_for(modules: List[str]) -> Dict[str, Any]:
    """The same without importing: only whether there is the package that each module is of."""
    _settle_heap()
    return _facts([name for name in modules if importlib.util.find_spec(name.partition(".")[0])], [], {}, 0.0)


def seal() -> str:
    """To be called last, before the first fork: what is touched later each worker has to copy.

    What kept memory from being put behind the file, empty where nothing did. Raises OSError as `Backing.seal` does.
    """
    _backing.seal()
    return _backing.obstacle


def _settle_heap() -> None:
    """What is here now stays as it is: contexts share it, and the collector passes it over."""
    streams.c_flush()
    gc.collect()
    _backing.give_back()
    if sys.version_info < (3, 13):  # it holds names from everywhere: each that a context replaced would copy a page
        sys._clear_type_cache()  # noqa: SLF001  (documented, underscore and all)
    packing.close_gaps()
    main.prepare()  # its objects lie side by side
    gc.freeze()


def _facts(installed: List[str], loaded: List[str], failed: Dict[str, str], warm_s: float) -> Dict[str, Any]:
    return {
        "python": "%d.%d.%d" % sys.version_info[:3],
        "installed": installed,
        "preloaded": loaded,
        "failed": failed,
        "threads": len(os.listdir("/proc/self/task")),
        "warm_s": warm_s,
    }


def _join_threads() -> None:
    """`threading` is not imported for this: before the nursery's fork, that would cost each room 130 page faults."""
    threading: Any = sys.modules.get("threading")
    if threading is not None:
        for thread in threading.enumerate():
            if thread is not threading.main_thread():
                thread.join(_LONGEST_THREAD_S)


@contextlib.contextmanager
def passing_home(path: str) -> Iterator[None]:
    """A home directory for the while of warming, where there is none: matplotlib wants to write its font cache.

    It is at the path that contexts have theirs, so that what a module remembers of it is right there.
    """
    kept = [
        (beneath, linux.open_tree(beneath)) for beneath in view.mounts_beneath([path])
    ]  # an interpreter may lie there
    linux.mount("tmpfs", path, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=64m,mode=0700")
    for beneath, tree in kept:
        view.attach(tree, beneath)
    os.environ["HOME"] = path
    try:
        yield
    finally:
        del os.environ["HOME"]
        linux.unmount(path)


@contextlib.contextmanager
def emptied_home(path: str) -> Iterator[None]:
    """The same where nothing can be mounted: a directory is home for the while, and holds afterwards what it held."""
    held = set(os.listdir(path))
    os.environ["HOME"] = path
    try:
        yield
    finally:
        del os.environ["HOME"]
        for name in set(os.listdir(path)) - held:
            made = os.path.join(path, name)
            if os.path.isdir(made) and not os.path.islink(made):
                trees.remove(made)
            else:
                os.unlink(made)


def _forget(name: str) -> None:
    """Take a package that is half imported away, so that the code's own import begins anew and tells what is wrong."""
    package = name.partition(".")[0]
    for module in [module for module in sys.modules if (module + ".").startswith(package + ".")]:
        del sys.modules[module]


def _draw_figure() -> None:
    """Load pyplot with the backend that draws into files, and the fonts and encoders that a first figure needs."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots()
    axes.plot([0, 1])
    axes.set_title("first")
    figures.draw(figure)
    pyplot.close(figure)
    fonts: Any = sys.modules["matplotlib.font_manager"]
    # matplotlib lets go of all open fonts after a fork; done before, it costs the contexts neither time nor memory.
    getattr(fonts, "_get_font", functools.lru_cache(_no_use)).cache_clear()


def _show_table() -> None:
    """Load what a first data frame needs to be shown."""
    pandas: Any = importlib.import_module("pandas")
    repr(pandas.DataFrame({"number": [1.5], "text": ["a"]}).describe(include="all"))


def _no_use() -> None:
    """Importing it is all."""


FIRST_USES: Dict[str, Callable[[], None]] = {"matplotlib": _draw_figure, "pandas": _show_table}
