"""What a person at a terminal sees while they wait. Nothing where none watches."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

STARTING = "Starting Python …"


@contextmanager
def shown(text: str) -> Iterator[None]:
    """A turning sign and `text` on stderr during the block, if that is a terminal; gone without a trace after it."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield
