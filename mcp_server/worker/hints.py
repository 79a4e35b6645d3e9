"""A sentence that helps after some errors: what was meant by a name, a label or a path, how a module can be had, and
that there is no network.
"""

from __future__ import annotations

import builtins
import difflib
import errno
import importlib.util
import itertools
import os
import pkgutil
import resource
import sys
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from . import network, tables

globals()["__builtins__"] = dict(vars(builtins))

_MOST_COMPARED_CHARS = 60_000
"""Comparing is quadratic in a way, and takes a tenth of a second for so much; names that are longer together are not
compared."""

_MOST_LABELS = 30
"""Of an index or of names in a directory, listed; of a longer index the first and the last are named."""

_LABEL_CHARS = 40

_SCRATCH = "/tmp"  # noqa: S108  (named, not used)

_DISTRIBUTIONS = {
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "Crypto": "pycryptodome",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "fitz": "PyMuPDF",
    "PIL": "pillow",
    "pptx": "python-pptx",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}
"""Modules whose distribution has another name."""

_NEEDLESS = {
    "IPython": "`display(value)` is there without an import.",
    "nest_asyncio": "`await` works at the top level, and `asyncio.run` in a cell without it.",
}
"""Modules that code looks for to have what it has."""

_EVENT_LOOP = {
    "no running event loop": "A cell with `await` at its top level runs on the context's event loop; this has none.",
    "asyncio.run() cannot be called from a running event loop": "Here `await` works at the top level: await it.",
    "This event loop is already running": "Here `await` works at the top level: await it.",
}


def hint(error: BaseException) -> str:
    """Empty where there is nothing to say. May raise whatever the attributes of the error raise."""
    for kind, sentence in _SENTENCES:
        said = sentence(error) if isinstance(error, kind) else ""
        if said:
            return said
    return ""


def _missing_module(name: object) -> str:
    if not isinstance(name, str) or not name:
        return ""
    if name in _NEEDLESS:
        return "It is not installed, and not needed: %s" % _NEEDLESS[name]
    parent, _, last = name.rpartition(".")
    if parent:
        package = sys.modules.get(parent)
        found = pkgutil.iter_modules(getattr(package, "__path__", []))
        close = _close(last, (module.name for module in found))
        return "Similar in %s: %s." % (parent, ", ".join(close)) if close else ""
    importable = {module.name for module in pkgutil.iter_modules()}
    importable.update(getattr(sys, "stdlib_module_names", sys.builtin_module_names))
    close = _close(name, (found for found in importable if not found.startswith("_")))
    sentences = ["Similar modules that can be imported here: %s." % ", ".join(close)] if close else []
    if not network.is_there():
        sentences.append("It is not installed. %s" % network.NONE)
    elif importlib.util.find_spec("pip") is None:
        sentences.append("It is not installed, and neither is pip.")
    else:
        wanted = _DISTRIBUTIONS.get(name, name)
        sentences.append("It is not installed; where the network allows, `%%pip install %s` gets it." % wanted)
    return " ".join(sentences)


def _missing_name(name: object, entry: TracebackType | None) -> str:
    if not isinstance(name, str) or entry is None:
        return ""
    while entry.tb_next is not None:
        entry = entry.tb_next
    frame = entry.tb_frame
    close = _close(name, itertools.chain(frame.f_locals, frame.f_globals, vars(builtins)))
    if close:
        return _did_you_mean(close)
    if name == "__file__":
        return "A cell is no file. Its directory is `os.getcwd()`."
    if name in getattr(sys, "stdlib_module_names", ()):
        return "Did you forget to import %r?" % name
    return ""


def _missing_attribute(name: object, owner: object) -> str:
    if not isinstance(name, str) or owner is None:
        return ""
    return _did_you_mean(_close(name, dir(owner)))


def _missing_label(entry: TracebackType | None) -> str:
    """What labels there are, where pandas was asked for one: what it looked at is in its frames."""
    pandas = sys.modules.get("pandas")
    asked = tuple(getattr(pandas, name) for name in ("Index", "DataFrame") if hasattr(pandas, name))
    found: Any = None
    wanted: object = None
    while asked and entry is not None:
        names = entry.tb_frame.f_locals
        holder = names.get("self", names.get("obj"))
        if not str(entry.tb_frame.f_globals.get("__name__")).startswith("pandas."):
            found = None  # it called code of somebody else's, where the error is
        elif isinstance(holder, asked):
            found, wanted = holder, names.get("key", names.get("gpr"))
        entry = entry.tb_next
    labels = getattr(found, "columns", found)
    if labels is None or not len(labels):
        return ""
    if len(labels) > _MOST_LABELS:
        said = "Its %d labels go from %s to %s." % (len(labels), _label(labels[0]), _label(labels[-1]))
    else:
        said = "Its labels: %s." % ", ".join(map(_label, labels))
    close = _close(wanted, labels) if isinstance(wanted, str) else []
    return " ".join(filter(None, (_did_you_mean(close), said)))


def _missing_file(path: object, entry: TracebackType | None) -> str:
    """What there is in the directory where a file was looked for.

    Where that does not exist, the nearest above it; of a path that leads nowhere near, what there is in the own one.
    """
    while entry is not None and entry.tb_next is not None:
        entry = entry.tb_next
    asker = None if entry is None else entry.tb_frame.f_globals.get("__name__")
    if not isinstance(path, str) or not path or asker == "subprocess":  # which looked for a program
        return ""
    own = os.getcwd()
    asked, wanted = os.path.split(os.path.abspath(path))
    directory = asked
    while not os.path.isdir(directory):
        directory, wanted = os.path.split(directory)
    if directory != asked and not (directory + "/").startswith(own + "/"):
        directory, wanted = own, os.path.basename(path)
    names = sorted(os.listdir(directory))
    shown = ", ".join(map(_label, names[:_MOST_LABELS])) or "nothing"
    more = ", … (%d more)" % (len(names) - _MOST_LABELS) if len(names) > _MOST_LABELS else ""
    return " ".join(filter(None, (_did_you_mean(_close(wanted, names)), "In %s: %s%s." % (directory, shown, more))))


def _memory_limit() -> str:
    limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
    return "" if limit == resource.RLIM_INFINITY else "A process here may have %s of memory." % tables.size(limit)


def _free_space(directory: str) -> str:
    held = os.statvfs(directory)
    free, whole = (tables.size(blocks * held.f_frsize) for blocks in (held.f_bavail, held.f_blocks))
    return "Free in %s: %s of %s, %d of %d names." % (directory, free, whole, held.f_favail, held.f_files)


def _label(label: object) -> str:
    text = repr(label)
    return text if len(text) <= _LABEL_CHARS else text[:_LABEL_CHARS] + "…"


def _did_you_mean(close: list[str]) -> str:
    return "Did you mean %s?" % " or ".join(repr(name) for name in close) if close else ""


def _close(name: str, candidates: Iterable[object]) -> list[str]:
    # Each once: at the top level the local names are the global ones.
    known = dict.fromkeys(found for found in candidates if isinstance(found, str) and found != name)
    if sum(map(len, known)) > _MOST_COMPARED_CHARS or len(name) > 100:
        return []
    return difflib.get_close_matches(name, known, n=3, cutoff=0.75)


def _failed_import(error: Any) -> str:
    if str(error).startswith("Cannot load backend"):
        return "None need be chosen: figures are shown as images here."
    if error.name in sys.modules:
        return _missing_attribute(getattr(error, "name_from", None), sys.modules[error.name])
    return network.NONE if "pip" in str(error) and not network.is_there() else ""


def _full_disk(error: Any) -> str:
    return " ".join(map(_free_space, (os.getcwd(), _SCRATCH))) if error.errno == errno.ENOSPC else ""


def _nobody_and_nothing(error: BaseException) -> str:
    if type(error).__name__ == "BdbQuit":
        return "A debugger has nobody to ask here: there is no standard input."
    return network.NONE if network.was_sought(error) and not network.is_there() else ""


_SENTENCES: tuple[tuple[type[BaseException], Callable[[Any], str]], ...] = (
    (ModuleNotFoundError, lambda error: _missing_module(error.name)),
    (NameError, lambda error: _missing_name(getattr(error, "name", None), error.__traceback__)),
    (AttributeError, lambda error: _missing_attribute(getattr(error, "name", None), getattr(error, "obj", None))),
    (KeyError, lambda error: _missing_label(error.__traceback__)),
    (FileNotFoundError, lambda error: _missing_file(error.filename, error.__traceback__)),
    (MemoryError, lambda _: _memory_limit()),
    (RuntimeError, lambda error: _EVENT_LOOP.get(str(error), "")),
    (ImportError, _failed_import),
    (OSError, _full_disk),
    (BaseException, _nobody_and_nothing),
)
"""What is said of each kind of error, in the order in which they are tried."""
