"""What code calls to show an image or a value, in libraries that would open a window or need a notebook."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from .afterimport import after_import


def install(show: Callable[..., None]) -> None:
    """Have `Image.show()` of Pillow and `IPython.display.display` show what they are given by `show`."""
    after_import("PIL.ImageShow", lambda module: _replace_viewers(module, show))
    after_import("IPython.core.display_functions", lambda module: _replace_display(module, show))


class _Viewer:
    """One of Pillow's."""

    def __init__(self, show: Callable[..., None]) -> None:
        self._show = show

    def show(self, image: object, **_options: object) -> bool:
        self._show(image)
        return True


def _replace_viewers(image_show: Any, show: Callable[..., None]) -> None:
    image_show.register(_Viewer(show), -1)  # before all others


def _replace_display(functions: ModuleType, show: Callable[..., None]) -> None:
    def display(*objects: object, raw: bool = False, display_id: object = None, **_options: object) -> Any:
        """Show objects. What is updated by its handle is shown again."""
        show(*objects, raw=raw)
        if display_id is None:
            return None
        return vars(functions)["DisplayHandle"](None if display_id is True else display_id)

    vars(functions)["display"] = display
