"""Which cell serves a sandbox: one for all, or each its own, and what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from mcp_server.engine.cells import MOST_EARLY, Cells
from mcp_server.errors import EngineUnavailable, SetupFailed
from mcp_server.sandbox.cell import Cell

pytestmark = pytest.mark.anyio


class FakeCell:
    """As `Cells` sees one. `gate` holds its start back; `failing` makes it fail."""

    def __init__(self, is_sandbox: bool, gate: asyncio.Event | None = None, failing: bool = False) -> None:
        self.is_sandbox = is_sandbox
        self.on_lost: Callable[[], None] = lambda: None
        self.memory: object = None
        self.warmth: object = None
        self.deleted: list[str] = []
        self.closed = False
        self._gate = gate
        self._failing = failing
        self.ended = asyncio.Event()

    async def start(self) -> None:
        if self._failing:
            raise SetupFailed("no namespaces today")
        if self._gate is not None:
            waits = [asyncio.create_task(event.wait()) for event in (self._gate, self.ended)]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                await self.close()  # as a cell does
                raise
            finally:
                for wait in waits:
                    wait.cancel()
        if self.closed:
            raise SetupFailed("closed while it started")

    async def close(self) -> None:
        self.closed = True
        self.ended.set()

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


class Pair:
    """Cells over two generations; the warm one waits for `loaded`."""

    def __init__(self, is_sandbox: bool) -> None:
        self.warm = Factory(is_sandbox)
        self.bare = Factory(is_sandbox)
        self.loaded = self.warm.gate = asyncio.Event()
        self.cells = Cells(self.warm, self.bare)

    async def load(self) -> None:
        self.loaded.set()
        await self.cells.warmed()


async def test_a_shared_bare_cell_keeps_the_sandboxes_that_began_there_and_ends_with_the_last() -> None:
    pair = Pair(is_sandbox=False)
    await pair.cells.start()
    bare = fake(await pair.cells.serving("early"))
    assert bare is pair.bare.made[0]
    await pair.load()
    assert fake(await pair.cells.serving("late")) is pair.warm.made[0]
    assert fake(await pair.cells.serving("early")) is bare
    await pair.cells.delete_sandbox("late")
    assert not bare.closed
    await pair.cells.delete_sandbox("early")
    assert bare.closed
    assert not pair.warm.made[0].closed
    assert fake(await pair.cells.serving("early")) is pair.warm.made[0]
    await pair.cells.close()
    assert len(pair.bare.made) == len(pair.warm.made) == 1


async def test_a_crowd_waits_for_the_warm_cell() -> None:
    pair = Pair(is_sandbox=False)
    await pair.cells.start()
    for number in range(MOST_EARLY):
        assert fake(await pair.cells.serving(f"early {number}")) is pair.bare.made[0]
    waiting = asyncio.create_task(pair.cells.serving("one more"))
    assert fake(await pair.cells.serving("early 0")) is pair.bare.made[0]
    assert not waiting.done()
    pair.loaded.set()
    assert fake(await waiting) is pair.warm.made[0]
    await pair.cells.close()


async def test_where_each_sandbox_has_a_cell_the_bare_one_is_given_to_who_comes_early() -> None:
    pair = Pair(is_sandbox=True)
    await pair.cells.start()
    assert fake(await pair.cells.serving("early")) is pair.bare.made[0]
    await pair.load()
    assert fake(await pair.cells.serving("late")) is pair.warm.made[0]
    await pair.cells.delete_sandbox("early")
    assert pair.bare.made[0].closed
    await pair.cells.close()
    assert len(pair.bare.made) == 1


@pytest.mark.parametrize("is_sandbox", [False, True])
async def test_a_bare_cell_that_nobody_needed_ends_when_the_warm_one_is_there(is_sandbox: bool) -> None:
    pair = Pair(is_sandbox)
    await pair.cells.start()
    await pair.load()
    assert fake(await pair.cells.serving("late")) is pair.warm.made[0]
    await asyncio.wait_for(pair.bare.made[0].ended.wait(), 10)
    await pair.cells.close()


@pytest.mark.parametrize("is_sandbox", [False, True])
async def test_bare_cells_serve_on_where_no_warm_one_can_be_had(is_sandbox: bool) -> None:
    pair = Pair(is_sandbox)
    pair.warm.failing = True
    await pair.cells.start()
    await pair.cells.warmed()
    lost = await pair.cells.serving("a")
    assert fake(await pair.cells.serving("b")) in pair.bare.made
    lost.on_lost()
    assert fake(await pair.cells.serving("a")) is pair.bare.made[-1]
    await pair.cells.close()
    assert len(pair.warm.made) == 1
    assert all(cell.closed for cell in pair.bare.made if cell is not fake(lost))


async def test_where_a_lost_warm_cell_is_loaded_anew_a_bare_one_serves_meanwhile() -> None:
    pair = Pair(is_sandbox=False)
    await pair.cells.start()
    await pair.load()
    lost = await pair.cells.serving("a")
    pair.loaded.clear()
    lost.on_lost()
    assert fake(await pair.cells.serving("a")) is pair.bare.made[1]
    await pair.load()
    assert fake(await pair.cells.serving("b")) is pair.warm.made[1]
    await pair.cells.close()


@pytest.mark.parametrize("is_sandbox", [False, True])
async def test_a_bare_cell_that_fails_fails_the_start_and_the_warm_one_is_not_left(is_sandbox: bool) -> None:
    pair = Pair(is_sandbox)
    pair.bare.failing = True
    with pytest.raises(SetupFailed, match="no namespaces today"):
        await pair.cells.start()
    assert all(cell.closed for cell in pair.warm.made)
    await pair.cells.close()
