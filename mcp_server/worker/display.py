"""Thin for now."""

from __future__ import annotations

from . import frames


def encode(value: object, is_result: bool) -> bytes:
    data = repr(value)[:100_000].encode("utf-8", "backslashreplace")
    part = {"mime": "text/plain", "bytes": len(data), "alt": "", "original": 0}
    return frames.encode(frames.Frame(frames.DISPLAY, {"is_result": is_result, "parts": [part]}, data))
