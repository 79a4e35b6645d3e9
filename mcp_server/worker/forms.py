"""The forms in which a value can be shown: always a text, and whatever the value's own `_repr_…_` methods give.

The methods are looked up on the type, as Python does with special methods: an object that answers to every name has
none of them. Data frames are shown as text alone, which says more and costs less than their HTML.
"""

from __future__ import annotations

import base64
import json
from typing import Any, NamedTuple

from . import figures, images, plaintext, tables

TEXT = "text/plain"

MOST_IMAGES = 10
"""Images of one run; what a model can look at, and what a report of it can carry."""

_MOST_FORM_BYTES = 8 * 1024 * 1024
_MOST_BYTES = 28 * 1024 * 1024
"""All forms of one value together: they share a frame's body."""

_IMAGES = ("image/png", "image/jpeg")
_METHODS = (
    ("image/png", "_repr_png_"),
    ("image/jpeg", "_repr_jpeg_"),
    ("image/svg+xml", "_repr_svg_"),
    ("text/html", "_repr_html_"),
    ("text/markdown", "_repr_markdown_"),
    ("text/latex", "_repr_latex_"),
    ("application/json", "_repr_json_"),
)
_LONGEST_MIME = 100
_LONGEST_NAME = 100
_MOST_FORMS = 50
"""Of one value; the host takes a few more."""


class Form(NamedTuple):
    """As a part of a DISPLAY frame."""

    mime: str
    data: bytes
    alt: str = ""
    original_bytes: int = 0


class Tally:
    """Counts the images of a run."""

    def __init__(self) -> None:
        self.shown = 0

    @property
    def is_full(self) -> bool:
        return self.shown >= MOST_IMAGES


def forms(value: object, tally: Tally) -> list[Form]:
    """The text first. Raises only what is no `Exception`."""
    if figures.is_figure(value):
        return _of_figure(value, tally)
    if images.is_pillow(value):
        return _of_pillow(value, tally)
    notes: list[str] = []
    rich = [] if tables.is_table(value) else _rich(value, tally, notes)
    own = next((form for form in rich if form.mime == TEXT), None)
    text = own.data.decode("utf-8", "replace") if own is not None else text_of(value)
    others = [form for form in rich if form.mime != TEXT]
    return [_text_form("\n".join([text, *notes])), *others]


def bundle_forms(bundle: object, tally: Tally) -> list[Form]:
    """Forms given ready-made, by MIME type."""
    notes: list[str] = []
    rich = _of_bundle(bundle, "", tally, notes)
    own = [form.data.decode("utf-8", "replace") for form in rich if form.mime == TEXT]
    others = [form for form in rich if form.mime != TEXT]
    return [_text_form("\n".join([*own, *notes])), *others]


def text_of(value: object) -> str:
    """A table's own text, or a bounded `repr`."""
    try:
        text = tables.table_text(value)
    except Exception:  # an exotic dtype or index; what its repr says of it remains
        text = None
    return plaintext.plain_text(value) if text is None else text


def _text_form(text: str, alt: str = "") -> Form:
    return Form(TEXT, text.encode("utf-8", "backslashreplace"), alt)


def _of_figure(figure: Any, tally: Tally) -> list[Form]:
    try:
        what = figures.describe(figure)
        if tally.is_full:
            return [_text_form("%s (%s)" % (what, _too_many()))]
        if figures.is_blank(figure):
            return [_text_form("%s with nothing on it" % what)]
        drawn = figures.draw(figure)
    except Exception as trouble:
        return [_text_form("figure that cannot be drawn: %s" % _said(trouble))]
    if drawn.data is None:
        return [_text_form("%s (too large to show)" % what)]
    tally.shown += 1
    return [_text_form(what + drawn.size), Form(drawn.mime, drawn.data, what + drawn.size)]


def _of_pillow(image: Any, tally: Tally) -> list[Form]:
    what = "image %d×%d %s" % (image.width, image.height, image.mode)
    if tally.is_full:
        return [_text_form("%s (%s)" % (what, _too_many()))]
    try:
        fitted = images.fit_pillow(image)
    except Exception as trouble:
        return [_text_form("%s that cannot be encoded: %s" % (what, _said(trouble)))]
    return _image_forms("image", image.mode, fitted, tally)


def _image_forms(what: str, more: str, fitted: images.Image, tally: Tally) -> list[Form]:
    alt = " ".join(filter(None, (what, fitted.size, more)))
    originals = [] if fitted.original is None else [_original(fitted.original)]
    if fitted.data is None:
        return [_text_form("%s (too large to show)" % alt), *originals]
    tally.shown += 1
    return [_text_form(alt), Form(fitted.mime, fitted.data, alt, fitted.original_bytes), *originals]


def _original(data: bytes) -> Form:
    """The whole of an image that was made to fit: a form of its own, for a file and not for eyes."""
    mime = "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"
    return Form(mime + "; role=original", data, "original")


def _rich(value: object, tally: Tally, notes: list[str]) -> list[Form]:
    if isinstance(value, type):
        return []
    kind = type(value)
    what = plaintext.cut(kind.__name__, _LONGEST_NAME)
    bundler: Any = getattr(kind, "_repr_mimebundle_", None)
    if bundler is not None:
        bundle = _called("_repr_mimebundle_", lambda: bundler(value, include=None, exclude=None), notes)
        if isinstance(bundle, tuple) and bundle:
            bundle = bundle[0]
        if isinstance(bundle, dict) and bundle:
            return _of_bundle(bundle, what, tally, notes)
    bundle = {}
    for mime, name in _METHODS:
        method: Any = getattr(kind, name, None)
        if method is None or (mime == "image/jpeg" and "image/png" in bundle):
            continue
        data = _called(name, lambda method=method: method(value), notes)
        if isinstance(data, tuple) and data:
            data = data[0]
        if data is not None:
            bundle[mime] = data
    return _of_bundle(bundle, what, tally, notes)


def _called(name: str, method: Any, notes: list[str]) -> Any:
    try:
        return method()
    except Exception as trouble:
        notes.append("[%s failed: %s]" % (name, _said(trouble)))
        return None


def _of_bundle(bundle: Any, what: str, tally: Tally, notes: list[str]) -> list[Form]:
    found: list[Form] = []
    room = _MOST_BYTES
    for number, (mime, value) in enumerate(bundle.items()):
        if number == _MOST_FORMS:
            notes.append("[of this value's forms only %d are looked at]" % _MOST_FORMS)
            break
        if not isinstance(mime, str) or not mime.isascii() or len(mime) > _LONGEST_MIME or "/" not in mime:
            continue
        for form in _entry_forms(mime, value, what, tally, notes):
            most = room if form.mime.startswith(_IMAGES) else min(room, _MOST_FORM_BYTES)
            if len(form.data) > most:
                notes.append("[%s of %s bytes left out: too large]" % (form.mime, format(len(form.data), ",")))
            else:
                found.append(form)
                room -= len(form.data)
    return found


def _entry_forms(mime: str, value: Any, what: str, tally: Tally, notes: list[str]) -> list[Form]:
    """Of one entry of a bundle; an image may have its original beside it."""
    data = _bytes(mime, value)
    if data is None:
        notes.append("[%s left out: it cannot be encoded]" % mime)
        return []
    if mime in _IMAGES:
        return _fitted(mime, data, what, tally, notes)
    return [Form(mime, data, "%s as %s" % (what, mime) if what and mime != TEXT else "")]


def _fitted(mime: str, data: bytes, what: str, tally: Tally, notes: list[str]) -> list[Form]:
    if tally.is_full:
        notes.append("[%s: %s]" % (mime, _too_many()))
        return []
    try:
        fitted = images.fit_bytes(mime, data)
    except Exception as trouble:
        notes.append("[%s left out: %s]" % (mime, _said(trouble)))
        return []
    text, *rest = _image_forms(what, "", fitted, tally)
    notes.append("[%s]" % text.data.decode())
    return rest


def _bytes(mime: str, value: Any) -> bytes | None:
    """A bundle's entry as bytes: images come as bytes or base64, JSON as objects, the rest as text."""
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if isinstance(value, str):
        if mime in _IMAGES:
            try:
                return base64.b64decode("".join(value.split()), validate=True)
            except ValueError:
                return None
        if mime == TEXT:
            value = plaintext.cut(value, plaintext.MOST_CHARS)
        return str.encode(value, "utf-8", "backslashreplace")
    try:
        return json.dumps(value).encode("ascii")
    except (TypeError, ValueError, RecursionError):
        return None


def _too_many() -> str:
    return "not shown: a run shows at most %d images" % MOST_IMAGES


def _said(trouble: Exception) -> str:
    try:
        text = plaintext.cut(str(trouble), 300)
    except Exception:
        text = "…"
    return "%s: %s" % (type(trouble).__name__, text)
