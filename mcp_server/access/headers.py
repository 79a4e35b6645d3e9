"""One header of an ASGI scope. Each request is asked for a few: a view of all of them would cost more."""

from __future__ import annotations

from starlette.types import Scope


def header(scope: Scope, name: bytes) -> str | None:
    """The first of that name, which is lower-case as ASGI gives them; None where there is none."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return None
