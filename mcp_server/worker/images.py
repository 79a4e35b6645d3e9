"""Images that fit: at most 1,568 pixels on the longest side and 700 KB, scaled here, before they leave.

Scaling needs Pillow. Without it an image passes as it is while its bytes fit, and is left out, which is said, where
they do not.
"""

from __future__ import annotations

import importlib
import io
import struct
import sys
from typing import Any, NamedTuple

MOST_PIXELS = 1568
"""Longest side that models look at without scaling an image down themselves."""

MOST_BYTES = 700_000
"""All that one report may hold of images (`shaping.values`), so that a single one always fits."""

MOST_ORIGINAL_BYTES = 16 * 1024 * 1024
"""Of an image that is kept beside the one that was made to fit: half of what a frame may hold."""

MOST_ORIGINAL_PIXEL_BYTES = 96 * 1024 * 1024
"""Of an image that has not been encoded yet; encoding more takes seconds."""

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_SIZES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
"""The markers of JPEG segments that hold the image's size (ITU-T T.81, table B.1: all SOFn)."""

_QUALITIES = (85, 70, 50)
_MOST_HALVINGS = 4


class Image(NamedTuple):
    """`original_bytes` is 0 where the image is as it was given. `data` is None where it cannot be made to fit.

    `original` is the whole image, encoded, where something of it was lost and it is not too large to be kept.
    """

    mime: str
    data: bytes | None
    size: str
    original_bytes: int = 0
    original: bytes | None = None


def fit_bytes(mime: str, data: bytes) -> Image:
    """An encoded PNG or JPEG, scaled where it is too large. Raises ValueError for anything else."""
    width, height = dimensions(data)
    if not width or not height:
        raise ValueError("neither PNG nor JPEG")
    size = "%d×%d" % (width, height)
    if max(width, height) <= MOST_PIXELS and len(data) <= MOST_BYTES:
        return Image(mime, data, size)
    pillow = _pillow()
    if pillow is None:
        return Image(mime, data if len(data) <= MOST_BYTES else None, size)
    with pillow.open(io.BytesIO(data)) as image:
        return _fit(image, mime, len(data))._replace(original=data if len(data) <= MOST_ORIGINAL_BYTES else None)


def fit_pillow(image: Any) -> Image:
    """A Pillow image; the bytes of the original are those of its pixels."""
    whole = len(image.getbands()) * image.width * image.height
    fitted = _fit(image, "image/png", whole)
    untouched = fitted.mime == "image/png" and max(image.size) <= MOST_PIXELS
    if untouched:
        return fitted._replace(original_bytes=0)
    if whole > MOST_ORIGINAL_PIXEL_BYTES:
        return fitted
    original = _encoded(image, "PNG", 0)
    return fitted._replace(original=original if len(original) <= MOST_ORIGINAL_BYTES else None)


def is_pillow(value: object) -> bool:
    kind = getattr(sys.modules.get("PIL.Image"), "Image", None)
    return kind is not None and isinstance(value, kind)


def dimensions(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG or JPEG; (0, 0) for anything else."""
    if data.startswith(_PNG) and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        return width, height
    if not data.startswith(b"\xff\xd8"):
        return 0, 0
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker, length = data[position + 1], struct.unpack_from(">H", data, position + 2)[0]
        if marker in _JPEG_SIZES:
            height, width = struct.unpack_from(">HH", data, position + 5)
            return width, height
        position += 2 + length
    return 0, 0


def _pillow() -> Any:
    try:
        return importlib.import_module("PIL.Image")
    except ImportError:
        return None


def _fit(image: Any, mime: str, original_bytes: int) -> Image:
    size = "%d×%d" % image.size
    scaled = image
    if max(image.size) > MOST_PIXELS:
        scaled = image.copy()
        scaled.thumbnail((MOST_PIXELS, MOST_PIXELS))
        size = "%s, scaled to %d×%d" % (size, *scaled.size)
    data = _encoded(scaled, "JPEG" if mime == "image/jpeg" else "PNG", _QUALITIES[0])
    if len(data) <= MOST_BYTES:
        return Image(mime, data, size, original_bytes)
    scaled = _without_transparency(scaled)
    for _ in range(_MOST_HALVINGS):
        for quality in _QUALITIES:
            data = _encoded(scaled, "JPEG", quality)
            if len(data) <= MOST_BYTES:
                return Image("image/jpeg", data, size, original_bytes)
        scaled = scaled.reduce(2)
        size = "%d×%d, scaled to %d×%d" % (*image.size, *scaled.size)
    return Image(mime, None, size, original_bytes)


def _encoded(image: Any, form: str, quality: int) -> bytes:
    buffer = io.BytesIO()
    if form == "JPEG":
        _without_transparency(image).save(buffer, form, quality=quality)
    else:
        if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"):
            image = image.convert("RGB")
        image.save(buffer, form)
    return buffer.getvalue()


def _without_transparency(image: Any) -> Any:
    """JPEG has none: what shows through becomes white."""
    if image.mode == "RGB":
        return image
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    ground = importlib.import_module("PIL.Image").new("RGBA", layer.size, "white")
    ground.alpha_composite(layer)
    return ground.convert("RGB")
