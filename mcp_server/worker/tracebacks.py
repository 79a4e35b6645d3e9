"""Thin for now: the text of an exception."""

from __future__ import annotations

import traceback
from typing import NamedTuple


class Failure(NamedTuple):
    name: str
    message: str
    traceback: str


def describe(error: BaseException) -> Failure:
    kind = type(error)
    name = (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else kind.__module__ + "." + kind.__qualname__
    )
    text = "".join(traceback.format_exception(kind, error, error.__traceback__))
    return Failure(name, str(error), text)
