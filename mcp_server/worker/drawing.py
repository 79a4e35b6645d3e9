"""A figure drawn once, trimmed to what is on it: what `savefig(bbox_inches="tight")` takes two passes for.

That one draws to learn what there is, moves the figure so that it fills a canvas of its size, and draws again. Here the
figure is drawn where it stands and the rest of the canvas is cut away, in whole pixels: those that stay are the ones
that `savefig` draws.
"""

from __future__ import annotations

import importlib
import math
import sys
from typing import Any

from . import png

_SLACK_PIXELS = 0.01
"""What reaches over the edge by less is an error of rounding."""

_ORDINARY = {"savefig.facecolor": "auto", "savefig.edgecolor": "auto", "savefig.transparent": False}
"""Settings with which a saved figure has the colours of a drawn one."""


def draw_trimmed(figure: Any) -> bytes | None:
    """The PNG, in the figure's own resolution. None where it has to be drawn in two passes.

    These are figures of which something reaches over the edge, and settings that give saved figures other colours.
    """
    settings: Any = sys.modules["matplotlib"].rcParams
    if any(settings[name] != ordinary for name, ordinary in _ORDINARY.items()):
        return None
    canvas = _drawn(figure)
    width, height = canvas.get_width_height()
    box = figure.get_tightbbox(canvas.get_renderer())
    left, right = box.x0 * figure.dpi, box.x1 * figure.dpi
    top, bottom = height - box.y1 * figure.dpi, height - box.y0 * figure.dpi
    most_right, most_bottom = width + _SLACK_PIXELS, height + _SLACK_PIXELS
    if not (-_SLACK_PIXELS <= left < right <= most_right and -_SLACK_PIXELS <= top < bottom <= most_bottom):
        return None
    margin = settings["savefig.pad_inches"] * figure.dpi
    across = slice(max(0, math.floor(left - margin)), min(width, math.ceil(right + margin)))
    down = slice(max(0, math.floor(top - margin)), min(height, math.ceil(bottom + margin)))
    whole = importlib.import_module("numpy").asarray(canvas.buffer_rgba())
    return png.encode(whole[down, across], figure.dpi)


def _drawn(figure: Any) -> Any:
    """A canvas with the figure, which has its own back afterwards."""
    agg: Any = importlib.import_module("matplotlib.backends.backend_agg")
    usual = figure.canvas
    canvas = agg.FigureCanvasAgg(figure)
    canvas.is_saving = lambda: True  # artists that are animated are drawn into files alone
    try:
        canvas.draw()
    finally:
        figure.set_canvas(usual)
    return canvas
