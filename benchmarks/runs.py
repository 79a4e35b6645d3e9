"""One small run, `1+1`, through every door: beside what its transport costs with nothing behind it."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from contextlib import AsyncExitStack, ExitStack

from mcp import Client
from mcp.client import Transport
from mcp.client.stdio import StdioServerParameters, stdio_client

from benchmarks.effort import Effort
from benchmarks.engines import BARE, Contexts, started
from benchmarks.measure import IN_A_ROW, Series, Subject, in_a_row, side_by_side, timed, timed_call
from benchmarks.memory import worker_pids
from benchmarks.processes import answer_of, kept_on, listening, on_socket, peer, server
from benchmarks.results import Goal, Row, Section, Unit

MESSAGE = b"." * 64
"""About what a small run's frames have."""


class LoopRoundTrip:
    """Sends a message and takes the answer, through an event loop, as the engine does."""

    def __init__(self, sock: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._answer: asyncio.Future[bytes] = self._loop.create_future()
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), lambda: self._answer.set_result(self._sock.recv(65536)))

    async def once(self) -> None:
        self._answer = self._loop.create_future()
        await self._loop.sock_sendall(self._sock, MESSAGE)
        await self._answer

    def close(self) -> None:
        self._loop.remove_reader(self._sock.fileno())


def raw_round_trip(sock: socket.socket) -> Subject:
    def once() -> None:
        sock.sendall(MESSAGE)
        sock.recv(65536)

    return timed_call(once)


async def engine_level(effort: Effort) -> Section:
    """The server keeps to one processor, and each far end, ours and the peers', to that one or to another.

    Where the kernel happens to leave them decides whether a round trip takes 8 µs or 60.
    """
    rounds = effort.of(2_000, 300)
    cpus = sorted(os.sched_getaffinity(0))
    here, there = cpus[0], cpus[-1]
    async with started(preload=BARE) as engine:
        contexts = Contexts(engine)
        across, within = await contexts.create(), await contexts.create()
        for pid, cpu in zip(worker_pids(engine, (across, within)), (there, here), strict=True):
            os.sched_setaffinity(pid, {cpu})
        with ExitStack() as stack:
            far, near, raw = (stack.enter_context(on_socket(peer("echo"), cpu)) for cpu in (there, here, there))
            far_trip, near_trip = LoopRoundTrip(far), LoopRoundTrip(near)
            stack.callback(far_trip.close)
            stack.callback(near_trip.close)
            stack.enter_context(kept_on(here))
            seen = await side_by_side(
                {
                    "run across": timed(lambda: contexts.run(across, "1+1")),
                    "trip across": timed(far_trip.once),
                    "raw": raw_round_trip(raw),
                    "run within": timed(lambda: contexts.run(within, "1+1")),
                    "trip within": timed(near_trip.once),
                },
                rounds,
                warm_up=50,
            )
            rows_of = await side_by_side(
                {
                    "run": in_a_row(lambda: contexts.run(across, "1+1")),
                    "trip": in_a_row(far_trip.once),
                },
                rounds // IN_A_ROW,
            )
            plain = plain_asyncio(rounds, there)
    kernel = Series(tuple((await answer_of(peer("ipython_kernel", "1", str(effort.of(100, 20)))))["run_s"]))
    trips = {"round trip, uvloop": seen["trip across"], "round trip, asyncio": plain, "round trip, raw": seen["raw"]}
    goal = Goal(most=0.000_15, most_times=2)
    rows = [
        Row("`1+1`, engine", Unit.SECONDS, seen["run across"], goal, {**trips, "ipykernel": kernel}),
        Row(
            f"`1+1`, engine, {IN_A_ROW} in a row",
            Unit.SECONDS,
            rows_of["run"],
            goal,
            {f"round trip, uvloop, {IN_A_ROW} in a row": rows_of["trip"]},
        ),
        Row(
            "`1+1`, engine, its worker on the server's processor",
            Unit.SECONDS,
            seen["run within"],
            goal,
            {"round trip, uvloop": seen["trip within"]},
        ),
    ]
    return Section("A small run", rows)


def plain_asyncio(rounds: int, cpu: int) -> Series:
    """The round trip through the standard loop, which cannot run inside of ours."""

    async def measure() -> Series:
        with on_socket(peer("echo"), cpu) as far:
            round_trip = LoopRoundTrip(far)
            try:
                return (await side_by_side({"it": timed(round_trip.once)}, rounds, warm_up=50))["it"]
            finally:
                round_trip.close()

    answer: list[Series] = []

    def in_thread() -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            answer.append(runner.run(measure()))

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    return answer[0]


async def calling(client: Client, context_id: str | None) -> Subject:
    """A call of `run_code` through the SDK's client."""
    arguments = {"code": "1+1"} if context_id is None else {"code": "1+1", "context_id": context_id}

    async def call() -> None:
        result = await client.call_tool("run_code", arguments)
        if result.is_error:
            raise RuntimeError(str(result.content))

    return timed(call)


async def new_context(client: Client) -> str:
    made = await client.call_tool("create_context", {})
    return str((made.structured_content or {})["context_id"])


async def over_mcp(effort: Effort) -> Section:
    """Through the MCP door, beside a server of the same SDK whose tool does nothing."""
    rows = []
    async with AsyncExitStack() as stack:
        stdio = [await stack.enter_async_context(Client(over_stdio(command))) for command in stdio_commands()]
        ports = [await stack.enter_async_context(listening(command)) for command in http_commands()]
        http = [await stack.enter_async_context(Client(f"http://127.0.0.1:{port}/mcp")) for port in ports]
        for name, clients in (("stdio", stdio), ("streamable HTTP", http)):
            ours, empty = clients
            context_id = await new_context(ours)
            subjects = {"ours": await calling(ours, context_id), "empty": await calling(empty, context_id)}
            seen = await side_by_side(subjects, effort.of(1_000, 80), warm_up=30)
            rows.append(
                Row(
                    f"`1+1` over {name}",
                    Unit.SECONDS,
                    seen["ours"],
                    Goal(most_times=1.2),
                    {"empty tool": seen["empty"]},
                )
            )
    return Section("A small run over MCP (the SDK's client)", rows)


def over_stdio(command: list[str]) -> Transport:
    program, *arguments = command
    return stdio_client(StdioServerParameters(command=program, args=arguments))


def stdio_commands() -> tuple[list[str], list[str]]:
    return server("--preload", ""), peer("empty_tool", "stdio")


def http_commands() -> tuple[list[str], list[str]]:
    serving = server("serve", "--port", "0", "--preload", "", "--log-level", "info")
    return serving, peer("empty_tool", "http")
