"""The toolbox door: a run of `pass` through it, by every client there is, and how fast output comes through."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Protocol

from daytona import Daytona, DaytonaConfig
from websockets.asyncio.client import connect
from websockets.sync.client import connect as connect_blocking

from benchmarks.effort import Effort
from benchmarks.measure import Subject, one, side_by_side, timed, timed_call
from benchmarks.processes import listening, peer, server
from benchmarks.results import NO_GOAL, Goal, Row, Section, Unit
from mcp_server import AsyncCodeInterpreter, CodeInterpreter
from mcp_server.toolbox.client_provision import AsyncProvision, Provision

OLD_SERVER = one(0.0557)
"""`pass` through the server whose protocol this is, on the same kind of machine: it looked every 50 ms."""

MIB = 1024 * 1024


class Blocking(Protocol):
    """Runs code and waits: our class, or the SDK's."""

    def run_code(self, code: str) -> Any: ...


ONE_WRITE = "import sys\nn = sys.stdout.write('x' * {size})"


@asynccontextmanager
async def clients() -> AsyncIterator[tuple[dict[str, Blocking], dict[str, AsyncCodeInterpreter]]]:
    """Clients of one server, each with a sandbox of its own: over the mux, and with a socket for each run."""
    async with AsyncExitStack() as stack:
        command = server("serve", "--toolbox", "--port", "0", "--preload", "", "--log-level", "info")
        url = f"http://127.0.0.1:{await stack.enter_async_context(listening(command))}"
        blocking: dict[str, Blocking] = {}
        looped: dict[str, AsyncCodeInterpreter] = {}
        for way, mux in (("reused socket", True), ("socket a run", False)):
            provision = Provision.at(url, None, mux=mux)
            interpreter = CodeInterpreter.of(provision)
            stack.callback(interpreter.close)
            blocking[way] = interpreter
            looped[way] = await stack.enter_async_context(
                AsyncCodeInterpreter.of(AsyncProvision.at(url, None, mux=mux))
            )
        daytona = Daytona(DaytonaConfig(api_key="unused", api_url=f"{url}/api", target="local"))
        blocking["the daytona SDK"] = daytona.create().code_interpreter
        yield blocking, looped


async def runs(effort: Effort) -> Section:
    rows: list[Row] = []
    async with (
        clients() as (blocking, looped),
        listening(peer("bare_websocket")) as port,
        echo_async(port) as async_echo,
    ):
        with echo(port) as sync_echo:
            subjects: dict[str, Subject] = {"bare": bare_websocket(port), "sync": sync_echo, "async": async_echo}
            subjects |= {f"`pass`, sync, {way}": timed_call(passing(client)) for way, client in blocking.items()}
            for way, interpreter in looped.items():
                subjects[f"`pass`, async, {way}"] = timed(passing(interpreter))  # type: ignore[arg-type]  # it is awaitable
            seen = await side_by_side(subjects, effort.of(500, 60), warm_up=20)
    bare = {"bare WebSocket, one a run": seen.pop("bare")}
    reused = {way: {f"bare WebSocket, {way}, reused": seen.pop(way)} for way in ("sync", "async")}
    for what, series in seen.items():
        goal = NO_GOAL if "SDK" in what else Goal(most=0.0005 if "reused" in what else 0.003)
        fair = reused["async" if "async" in what else "sync"] if "reused" in what else {}
        peers = fair | bare | {"the old server": OLD_SERVER.repeated(len(series.values))}
        rows.append(Row(what, Unit.SECONDS, series, goal, peers))
    return Section("Through the toolbox door", rows)


def passing(client: Blocking | AsyncCodeInterpreter) -> Callable[[], object]:
    return lambda: client.run_code("pass")


def bare_websocket(port: int) -> Subject:
    async def once() -> None:
        async with connect(f"ws://127.0.0.1:{port}", compression=None, proxy=None) as socket:
            await socket.send('{"code": "pass"}')
            await socket.recv()

    return timed(once)


@contextmanager
def echo(port: int) -> Iterator[Subject]:
    """A message there and back over a bare socket that stays open, blocking."""
    with connect_blocking(f"ws://127.0.0.1:{port}/reused", compression=None, proxy=None) as socket:

        def once() -> None:
            socket.send('{"code": "pass"}')
            socket.recv()

        yield timed_call(once)


@asynccontextmanager
async def echo_async(port: int) -> AsyncIterator[Subject]:
    """As `echo`, on this loop."""
    async with connect(f"ws://127.0.0.1:{port}/reused", compression=None, proxy=None) as socket:

        async def once() -> None:
            await socket.send('{"code": "pass"}')
            await socket.recv()

        yield timed(once)


async def throughput(effort: Effort) -> Section:
    size = effort.of(16, 4) * MIB  # the SDK appends to a string: its time grows with the square
    code = ONE_WRITE.format(size=size)
    async with clients() as (blocking, looped):
        subjects: dict[str, Subject] = {f"sync, {way}": reading(client, code, size) for way, client in blocking.items()}
        subjects |= {f"async, {way}": reading_async(client, code, size) for way, client in looped.items()}
        seen = await side_by_side(subjects, effort.of(7, 2), warm_up=1)
    rows = [
        Row(f"stdout, {what}", Unit.THROUGHPUT, series, note=f"{size / 1e6:,.0f} MB") for what, series in seen.items()
    ]
    return Section("Output through the toolbox door", rows)


def reading(client: Blocking, code: str, size: int) -> Subject:
    async def subject() -> float:
        began = time.perf_counter()
        return rate(len(client.run_code(code).stdout), size, began)

    return subject


def reading_async(client: AsyncCodeInterpreter, code: str, size: int) -> Subject:
    async def subject() -> float:
        began = time.perf_counter()
        return rate(len((await client.run_code(code)).stdout), size, began)

    return subject


def rate(arrived: int, size: int, began: float) -> float:
    """Characters in a second, once all of them are there."""
    if arrived != size:
        raise RuntimeError(f"{size} characters were printed, {arrived} arrived")
    return size / (time.perf_counter() - began)
