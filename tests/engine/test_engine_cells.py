"""Which cell serves a sandbox: one for all, or each its own, and what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from mcp_server.engine.cells import Cells
from mcp_server.errors import EngineUnavailable, SetupFailed
from mcp_server.sandbox.cell import Cell

pytestmark = pytest.mark.anyio


class FakeCell:
    """As `Cells` sees one. `gate` holds its start back; `failing` makes it fail."""

    def __init__(self, is_sandbox: bool, gate: asyncio.Event | None = None, failing: bool = False) -> None:
        self.is_sandbox = is_sandbox
        self.on_lost: Callable[[], None] = lambda: None
        self.memory: object = None
        self.deleted: list[str] = []
        self.closed = False
        self._gate = gate
        self._failing = failing
        self._ended = asyncio.Event()

    async def start(self) -> None:
        if self._failing:
            raise SetupFailed("no namespaces today")
        if self._gate is not None:
            waits = [asyncio.create_task(event.wait()) for event in (self._gate, self._ended)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        if self.closed:
            raise SetupFailed("closed while it started")

    async def close(self) -> None:
        self.closed = True
        self._ended.set()

    async def delete_sandbox(self, sandbox: str) -> None:
        self.deleted.append(sandbox)


class Factory:
    """Makes cells and keeps them. `asked` is set by each; `failing` and `gate` are for those that come."""

    def __init__(self, is_sandbox: bool) -> None:
        self.made: list[FakeCell] = []
        self.asked = asyncio.Event()
        self.failing = False
        self.gate: asyncio.Event | None = None
        self._is_sandbox = is_sandbox

    def __call__(self) -> Cell:
        self.asked.set()
        self.made.append(FakeCell(self._is_sandbox, self.gate, self.failing))
        return cast("Cell", self.made[-1])


async def started(is_sandbox: bool) -> tuple[Cells, Factory]:
    factory = Factory(is_sandbox)
    cells = Cells(factory)
    await cells.start()
    return cells, factory


def fake(cell: Cell) -> FakeCell:
    return cast("FakeCell", cell)


async def test_one_cell_serves_all_where_it_can_be_shared() -> None:
    cells, factory = await started(is_sandbox=False)
    one, two = await asyncio.gather(cells.serving("a"), cells.serving("b"))
    assert one is two
    await cells.delete_sandbox("a")
    assert fake(one).deleted == ["a"]
    assert not fake(one).closed
    assert len(factory.made) == 1
    await cells.close()
    assert fake(one).closed


async def test_each_sandbox_has_a_cell_of_its_own_and_the_first_was_ready() -> None:
    cells, factory = await started(is_sandbox=True)
    one, two, again = await asyncio.gather(cells.serving("a"), cells.serving("b"), cells.serving("a"))
    assert one is again is not two
    assert factory.made[0] in (fake(one), fake(two))
    await cells.delete_sandbox("a")
    await cells.delete_sandbox("unknown")
    assert fake(one).closed
    assert not fake(two).closed
    assert await cells.serving("a") is not one
    await cells.close()
    assert all(cell.closed for cell in factory.made)


@pytest.mark.parametrize("is_sandbox", [False, True])
async def test_a_lost_cell_is_replaced_by_one_that_is_started_once(is_sandbox: bool) -> None:
    cells, _ = await started(is_sandbox)
    lost = await cells.serving("a")
    lost.on_lost()
    one, two = await asyncio.gather(cells.serving("a"), cells.serving("a"))
    assert one is two is not lost
    await cells.close()


async def test_a_spare_that_was_lost_while_it_waited_is_not_given_out() -> None:
    cells, factory = await started(is_sandbox=True)
    factory.made[0].on_lost()
    assert fake(await cells.serving("a")) is not factory.made[0]
    await cells.close()


@pytest.mark.parametrize("is_sandbox", [False, True])
async def test_the_first_cell_that_fails_fails_the_start_and_a_later_one_its_sandbox(is_sandbox: bool) -> None:
    factory = Factory(is_sandbox)
    factory.failing = True
    with pytest.raises(SetupFailed, match="no namespaces today"):
        await Cells(factory).start()
    factory.failing = False
    cells = Cells(factory)
    await cells.start()
    (await cells.serving("a")).on_lost()
    factory.failing = True
    with pytest.raises(EngineUnavailable, match="no namespaces today"):
        await cells.serving("a")
    factory.failing = False
    assert fake(await cells.serving("a")) is factory.made[-1]
    await cells.close()


async def test_closing_does_not_wait_for_a_cell_that_is_starting_and_leaves_none() -> None:
    cells, factory = await started(is_sandbox=True)
    await cells.serving("a")
    factory.gate = asyncio.Event()
    factory.asked.clear()
    coming = asyncio.create_task(cells.serving("b"))
    await factory.asked.wait()
    await cells.close()
    with pytest.raises(EngineUnavailable):
        await coming
    assert all(cell.closed for cell in factory.made)
    with pytest.raises(EngineUnavailable, match="closed"):
        await cells.serving("c")


async def test_who_gives_up_waiting_does_not_spoil_it_for_others() -> None:
    cells, factory = await started(is_sandbox=True)
    await cells.serving("a")
    factory.gate = asyncio.Event()
    factory.asked.clear()
    first, second = (asyncio.create_task(cells.serving("b")) for _ in range(2))
    await factory.asked.wait()
    first.cancel()
    factory.gate.set()
    assert fake(await second) is factory.made[1]
    await cells.close()
