"""Waiting for what others may wait for as well: who gives up must not end it for them."""

from __future__ import annotations

import asyncio
from typing import TypeVar

T = TypeVar("T")


async def shielded(work: asyncio.Future[T]) -> T:
    """What becomes of `work`, which goes on where this is cancelled.

    As `asyncio.shield`, which from Python 3.14 on reports an error that comes after its waiter has gone, although
    others may have been told of it.
    """
    if not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:
            work.add_done_callback(_note)
            raise
    return work.result()


def _note(work: asyncio.Future[T]) -> None:
    if not work.cancelled():
        work.exception()  # else asyncio reports that nobody asked
