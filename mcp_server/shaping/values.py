"""What the code displayed: text for the model to read, images for it to see, and the names of what it cannot see."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mcp_server.model import DisplayChunk, Representation
from mcp_server.shaping.failure import shape_text
from mcp_server.shaping.lines import Row
from mcp_server.shaping.marks import counted, note, one_line
from mcp_server.shaping.window import NOTHING, ShapedText

MAX_IMAGES = 10
MAX_IMAGE_BYTES = 700_000
"""Of all images of one report together. Over HTTP the Python SDK takes no message of more than 1 MiB, and loses the
connection with a larger one; in base64 these are 933,336 bytes, which leaves 112 KiB for the text and the record.
"""

_SEEN = {"image/png": "PNG", "image/jpeg": "JPEG"}
"""The formats that every model with eyes takes."""

_READ = ("text/plain", "text/markdown", "text/latex")
_PLACEHOLDER = re.compile(r"\s*<[^\n]*>\s*\Z")
"""A default repr says nothing that a richer form does not."""


@dataclass(frozen=True, slots=True)
class ShownValues:
    """`displayed` and `result` are what each section reads; `images` are numbered from 1 in this order."""

    displayed: ShapedText
    result: ShapedText
    images: tuple[Representation, ...]


class _Images:
    """Takes images as long as the caps allow."""

    def __init__(self) -> None:
        self.taken: list[Representation] = []
        self._bytes = 0

    def take(self, image: Representation) -> str:
        """The line that stands for the image in the text."""
        about = f"{one_line(image.alt, 100) or 'image'} · {_SEEN[image.mime]}, {size(len(image.data))}"
        if image.original_bytes:
            about += f", scaled down from {size(image.original_bytes)}"
        if len(self.taken) >= MAX_IMAGES:
            return f"image left out, {MAX_IMAGES} are shown at most: {about}"
        if self._bytes + len(image.data) > MAX_IMAGE_BYTES:
            return f"image left out, {size(MAX_IMAGE_BYTES)} are shown at most (show it in a run of its own): {about}"
        self._bytes += len(image.data)
        self.taken.append(image)
        return f"image {len(self.taken)}: {about}"


def show_values(displays: Sequence[DisplayChunk], window_chars: int) -> ShownValues:
    """Every display in order, the result's apart."""
    images = _Images()
    displayed: list[Row] = []
    result: list[Row] = []
    for display in displays:
        rows = result if display.is_result else displayed
        rows.extend(_rows(display, images, window_chars))
    return ShownValues(_shaped(displayed), _shaped(result), tuple(images.taken))


def _shaped(rows: list[Row]) -> ShapedText:
    return ShapedText(tuple(rows)) if rows else NOTHING


def size(count: int) -> str:
    """Bytes for a reader: ``812 bytes``, ``45 KB``, ``1.3 MB``."""
    if count < 1000:
        return counted(count, "byte")
    return f"{count / 1000:,.0f} KB" if count < 1_000_000 else f"{count / 1_000_000:,.1f} MB"


def _rows(display: DisplayChunk, images: _Images, window_chars: int) -> list[Row]:
    forms = {form.mime: form for form in reversed(display.representations)}
    image = next((forms[mime] for mime in _SEEN if mime in forms), None)
    text = _text_to_read(forms, image)
    rows: list[Row] = []
    if text is not None:
        rows.extend(shape_text(text.data.decode("utf-8", "replace"), window_chars).rows)
        if text.original_bytes:
            rows.append(_statement(f"of this value's text, {size(len(text.data))} of {size(text.original_bytes)}"))
    if image is not None:
        rows.append(_statement(images.take(image)))
    others = [form for mime, form in forms.items() if mime not in _READ and form is not image]
    if others:
        rows.append(_statement(f"not shown: {', '.join(map(_name_of, reversed(others)))}"))
    return rows


def _name_of(form: Representation) -> str:
    about = f"{one_line(form.mime, 60)} ({size(len(form.data))})"
    return f"{about} in {one_line(form.path, 200)}" if form.path else about


def _text_to_read(forms: dict[str, Representation], image: Representation | None) -> Representation | None:
    """The form to show as text; none where it says no more than the image's own line."""
    plain = forms.get("text/plain")
    if plain is None or _PLACEHOLDER.match(plain.data[:1000].decode("utf-8", "replace")):
        richer = forms.get("text/markdown") or forms.get("text/latex")
        return richer or (plain if image is None else None)
    return None if image is not None and plain.data.decode("utf-8", "replace").strip() == image.alt.strip() else plain


def _statement(text: str) -> Row:
    return Row(note(text), 1, len(text) + 1)
