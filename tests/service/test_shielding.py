"""Work that several wait for goes on when one gives up, and its failure is whose it is."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from mcp_server.shielding import shielded


@pytest.mark.anyio
async def test_a_waiter_that_is_cancelled_leaves_the_work_to_the_others() -> None:
    work: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    leaving, staying = (asyncio.create_task(shielded(work)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    work.set_result(3)
    assert (leaving.cancelled(), await staying) == (True, 3)


@pytest.mark.anyio
async def test_a_failure_that_comes_after_the_waiter_has_gone_is_no_complaint() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    work: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    leaving = asyncio.create_task(shielded(work))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    work.set_exception(ValueError("late"))
    await asyncio.sleep(0)
    del work, leaving
    gc.collect()
    assert told == []


@pytest.mark.anyio
async def test_work_that_is_done_is_taken_at_once() -> None:
    done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    done.set_exception(ValueError("early"))
    with pytest.raises(ValueError, match="early"):
        shielded(done).send(None)


@pytest.mark.anyio
async def test_work_that_is_cancelled_ends_its_waiters() -> None:
    work: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(shielded(work))
    await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
