"""matplotlib: figures as images, `plt.show()` that shows, and what is still open when a run ends.

matplotlib is never imported here; user code that imports it finds `show` in place.
"""

from __future__ import annotations

import io
import itertools
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from .afterimport import after_import
from .drawing import draw_trimmed
from .images import MOST_BYTES, MOST_PIXELS, Image, dimensions

_PYPLOT = "matplotlib.pyplot"
_MANAGERS = "matplotlib._pylab_helpers"
_MOST_ATTEMPTS = 5
_LEAST_DPI = 1.0
_MOST_NESTED = 3
_MOST_PARTS = 1_000

_replaced: list[Any] = []
"""Kept, as taking matplotlib's own functions apart would write to 70 pages that contexts share."""


def is_figure(value: object) -> bool:
    kind = getattr(sys.modules.get("matplotlib.figure"), "Figure", None)
    return kind is not None and isinstance(value, kind)


def is_blank(figure: Any) -> bool:
    """Whether nothing has been put on it, as where a table's `plot` makes a figure of its own after `plt.figure()`."""
    return all(part is figure.patch for part in figure.get_children())


def describe(figure: Any) -> str:
    """What it is, its size as asked for, and its title where it has one."""
    width, height = (round(side * figure.dpi) for side in figure.get_size_inches())
    titles = [figure.get_suptitle() if hasattr(figure, "get_suptitle") else ""]
    titles += [axes.get_title() for axes in figure.axes]
    title = next((text for text in titles if text), "")
    return "figure %d×%d%s" % (width, height, ": " + " ".join(title.split())[:200] if title else "")


def draw(figure: Any) -> Image:
    """The figure as a PNG that fits; too large ones are drawn again with fewer dots per inch."""
    with warnings.catch_warnings(record=True) as caught:
        image = _fitting(figure)
    # Said once each, and not of a place in here.
    for warning in {(str(warning.message), warning.category): warning for warning in caught}.values():
        warnings.warn_explicit(warning.message, warning.category, "<figure>", 1)
    return image


def _fitting(figure: Any) -> Image:
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


def any_open() -> bool:
    """Whether pyplot holds a figure."""
    managers: Any = getattr(sys.modules.get(_MANAGERS), "Gcf", None)
    return managers is not None and bool(managers.figs)


def open_figures() -> list[Any]:
    """The figures that pyplot holds and that have something on them, in the order of their numbers."""
    if not any_open():
        return []
    figures = [manager.canvas.figure for manager in sys.modules[_MANAGERS].Gcf.get_all_fig_managers()]
    return [figure for figure in figures if not is_blank(figure)]


def are_artists(value: object) -> bool:
    """Whether it is of what figures are made of, or a collection of such: what drawing functions return."""
    kind = getattr(sys.modules.get("matplotlib.artist"), "Artist", None)
    return kind is not None and not is_figure(value) and _are_all(kind, value, _MOST_NESTED)


def _are_all(kind: type, value: object, depth: int) -> bool:
    if issubclass(type(value), kind):  # not by `isinstance`, which asks the value
        return True
    parts = list(itertools.islice(_parts(value), _MOST_PARTS)) if depth else []
    return bool(parts) and all(_are_all(kind, part, depth - 1) for part in parts)


def _parts(value: object) -> Iterator[object]:
    """What lists, tuples and arrays hold, whatever their subclasses say."""
    array = getattr(sys.modules.get("numpy"), "ndarray", None)
    if type(value) is array:
        return iter(value.flat)  # type: ignore[attr-defined]
    if isinstance(value, list):
        return list.__iter__(value)
    return tuple.__iter__(value) if isinstance(value, tuple) else iter(())


def close_figures() -> None:
    if any_open():
        sys.modules[_MANAGERS].Gcf.destroy_all()


def install(show_all: Callable[[], None], show_one: Callable[[Any], None]) -> None:
    """Make `pyplot.show` and `Figure.show` show: now where matplotlib is loaded, else as soon as it is."""

    def hook(pyplot: Any) -> None:
        def show(*_args: object, **_options: object) -> None:
            """Show all open figures and close them."""
            show_all()

        _replaced.append((pyplot.show, pyplot.Figure.show))
        pyplot.show = show
        pyplot.Figure.show = lambda figure, *_args, **_options: show_one(figure)

    after_import(_PYPLOT, hook)
