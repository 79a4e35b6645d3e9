"""What a run shows: the value of its last expression, `display(...)`, and the figures it leaves open."""

from __future__ import annotations

import builtins
import sys
import threading
from typing import Any

from . import figures, forms, frames, plaintext, viewers
from .channel import Channel

globals()["__builtins__"] = dict(vars(builtins))

_TEXT_ALONE = b'{"is_result":%s,"parts":[{"mime":"text/plain","bytes":%d,"alt":"","original":0}]}'
_PLAIN_TYPES = frozenset((int, float, bool, complex, str, bytes, list, tuple, dict, set, frozenset))
"""Values of these have no other form than text."""


class Display:
    """Shows values to the host. Of one context; its state is of one run."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._tally = forms.Tally()
        self._shown_figures: list[Any] = []
        self._lock = threading.RLock()
        figures.install(self.show_open_figures, self.display)
        viewers.install(self.display)
        builtins.display = self.display  # type: ignore[attr-defined]

    def begin(self) -> None:
        """A run starts: it has shown nothing yet."""
        if self._tally.shown or self._shown_figures:
            self._tally = forms.Tally()
            self._shown_figures = []

    def display(self, *objects: object, raw: bool = False) -> None:
        """Show objects in the richest form they have: images, or text. With raw=True each is a dict by MIME type."""
        for value in objects:
            with self._lock:
                shown = forms.bundle_forms(value, self._tally) if raw else self._forms(value)
            if not self._channel.show(_encode(shown, is_result=False)):
                print(shown[0].data.decode("utf-8"))  # noqa: T201  (output of the user's, after its run)

    def show_result(self, value: object) -> None:
        """Show the value of the last expression; of what belongs to figures, these are shown when the run ends."""
        if figures.any_open() and figures.are_artists(value):
            return
        if type(value) in _PLAIN_TYPES:
            text = plaintext.plain_text(value).encode("utf-8", "backslashreplace")
            self._channel.show_with_next(_text_frame(text, b"true"))
            return
        with self._lock:
            shown = self._forms(value)
        self._channel.show_with_next(_encode(shown, is_result=True))

    def finish(self) -> None:
        """The code has ended, well or not: show what it left open. Raises only what is no `Exception`: an interrupt."""
        try:
            self.show_open_figures()
        except BaseException as trouble:  # the drawing code's own; the run's ending must not be lost to it
            print("figures could not be shown: %s" % plaintext.own_text(trouble), file=sys.stderr)  # noqa: T201
            if not isinstance(trouble, Exception):
                raise
        finally:  # what takes for ever to draw would do so in each run from now on
            figures.close_figures()

    def show_open_figures(self) -> None:
        """Show the figures that pyplot holds open, in order, each once, and close them."""
        left_out = 0
        for figure in figures.open_figures():
            if any(figure is shown for shown in self._shown_figures):
                continue
            if self._tally.is_full:
                left_out += 1
            else:
                self.display(figure)
        if left_out:
            note = "%d more figures, not shown: a run shows at most %d images" % (left_out, forms.MOST_IMAGES)
            self._channel.show(_text_frame(note.encode(), b"false"))
        figures.close_figures()

    def _forms(self, value: object) -> list[forms.Form]:
        if figures.is_figure(value):
            self._shown_figures.append(value)
        return forms.forms(value, self._tally)


def _text_frame(text: bytes, is_result: bytes) -> bytes:
    header = _TEXT_ALONE % (is_result, len(text))
    return frames.PREFIX.pack(frames.DISPLAY, len(header), len(text)) + header + text


def _encode(shown: list[forms.Form], is_result: bool) -> bytes:
    parts = [
        {"mime": form.mime, "bytes": len(form.data), "alt": form.alt, "original": form.original_bytes} for form in shown
    ]
    body = b"".join(form.data for form in shown)
    return frames.encode(frames.Frame(frames.DISPLAY, {"is_result": is_result, "parts": parts}, body))
