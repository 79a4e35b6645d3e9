"""matplotlib: figures as images, `plt.show()` that shows, and what is still open when a run ends.

matplotlib is never imported here; user code that imports it finds `show` in place.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import io
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from .drawing import draw_trimmed
from .images import MOST_BYTES, MOST_PIXELS, Image, dimensions

_PYPLOT = "matplotlib.pyplot"
_MANAGERS = "matplotlib._pylab_helpers"
_MOST_ATTEMPTS = 5
_LEAST_DPI = 1.0

_replaced: list[Any] = []
"""Kept, as taking matplotlib's own functions apart would write to 70 pages that contexts share."""


def is_figure(value: object) -> bool:
    kind = getattr(sys.modules.get("matplotlib.figure"), "Figure", None)
    return kind is not None and isinstance(value, kind)


def describe(figure: Any) -> str:
    """What it is, its size as asked for, and its title where it has one."""
    width, height = (round(side * figure.dpi) for side in figure.get_size_inches())
    titles = [figure.get_suptitle() if hasattr(figure, "get_suptitle") else ""]
    titles += [axes.get_title() for axes in figure.axes]
    title = next((text for text in titles if text), "")
    return "figure %d×%d%s" % (width, height, ": " + " ".join(title.split())[:200] if title else "")


def draw(figure: Any) -> Image:
    """The figure as a PNG that fits; too large ones are drawn again with fewer dots per inch."""
    dpi = min(float(figure.dpi), MOST_PIXELS / max(figure.get_size_inches()))
    data = b""
    for _ in range(_MOST_ATTEMPTS):
        data = _png(figure, dpi)
        width, height = dimensions(data)
        factor = min(MOST_PIXELS / max(width, height), (MOST_BYTES / len(data)) ** 0.5, 1.0)
        if factor == 1.0:
            note = ", scaled to %d×%d" % (width, height) if dpi < figure.dpi else ""
            return Image("image/png", data, note)
        dpi = max(dpi * factor * 0.95, _LEAST_DPI)
    return Image("image/png", None, "")


def _png(figure: Any, dpi: float) -> bytes:
    data = draw_trimmed(figure) if dpi == figure.dpi else None
    if data is not None:
        return data
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight")
    return buffer.getvalue()


def open_figures() -> list[Any]:
    """The figures that pyplot holds, in the order of their numbers."""
    managers: Any = getattr(sys.modules.get(_MANAGERS), "Gcf", None)
    if managers is None or not managers.figs:
        return []
    return [manager.canvas.figure for manager in managers.get_all_fig_managers()]


def close_figures() -> None:
    managers: Any = getattr(sys.modules.get(_MANAGERS), "Gcf", None)
    if managers is not None and managers.figs:
        managers.destroy_all()


def install(show_all: Callable[[], None], show_one: Callable[[Any], None]) -> None:
    """Make `pyplot.show` and `Figure.show` show: now where matplotlib is loaded, else as soon as it is."""

    def hook(pyplot: Any) -> None:
        def show(*_args: object, **_options: object) -> None:
            """Show all open figures and close them."""
            show_all()

        _replaced.append((pyplot.show, pyplot.Figure.show))
        pyplot.show = show
        pyplot.Figure.show = lambda figure, *_args, **_options: show_one(figure)

    loaded = sys.modules.get(_PYPLOT)
    if loaded is not None:
        hook(loaded)
    else:
        sys.meta_path.insert(0, _AfterImport(hook))


class _AfterImport(importlib.abc.MetaPathFinder):
    """Lets pyplot be imported by whoever can, and then gets it once."""

    def __init__(self, hook: Callable[[Any], None]) -> None:
        self._hook = hook

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _PYPLOT:
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _HookedLoader(spec.loader, self._hook)
        return spec


class _HookedLoader(importlib.abc.Loader):
    """The module's own loader, and a call after it."""

    def __init__(self, loader: Any, hook: Callable[[Any], None]) -> None:
        self._loader = loader
        self._hook = hook

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self._loader.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._hook(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
