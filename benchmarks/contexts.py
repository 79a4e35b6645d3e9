"""Contexts: how soon one is ready, how many come in a second, and how soon one is gone."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

from benchmarks.effort import Effort
from benchmarks.engines import BARE, Contexts, settings, started
from benchmarks.measure import Series, Subject, seconds, side_by_side, timed_call
from benchmarks.processes import answer_of, on_socket, peer
from benchmarks.results import Goal, Row, Section, Unit
from mcp_server.model import RunRequest, Status

DATA_MODULES = ("numpy", "pandas")

FIRST_FIGURE = "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nNone"

MODULES_OF_PEERS = {"matplotlib": "matplotlib.pyplot"}
"""The preload of matplotlib means pyplot as well; so it does for what is forked beside it."""


def modules_argument(preload: tuple[str, ...]) -> str:
    return ",".join(MODULES_OF_PEERS.get(name, name) for name in preload)


def raw_fork(stack: ExitStack, preload: tuple[str, ...]) -> Subject:
    """The subject that forks a warm process; ready when this is."""
    return asked(stack, peer("warm_fork", modules_argument(preload)))


def asked(stack: ExitStack, command: list[str]) -> Subject:
    """The subject that has a peer do something and waits for its answer, of a byte each; ready when this is."""
    host: socket.socket = stack.enter_context(on_socket(command))
    host.recv(1)

    def ask() -> None:
        host.sendall(b"?")
        host.recv(1)

    return timed_call(ask)


def fresh(contexts: Contexts, sandbox: Callable[[], str]) -> Subject:
    """Makes a context when spares had time to come; deletes it outside of the time."""

    async def subject() -> float:
        await contexts.settle()
        began = time.perf_counter()
        context_id = await contexts.create(sandbox())
        took = time.perf_counter() - began
        await contexts.delete(context_id)
        return took

    return subject


def known(contexts: Contexts) -> Subject:
    return fresh(contexts, lambda: "sbx_bench")


async def creation(effort: Effort) -> Section:
    """One at a time, ready to run."""
    preload = settings().preload
    rounds = effort.of(100, 8)
    rows = []
    async with started() as warm, started(preload=DATA_MODULES) as data, started(preload=BARE) as bare:
        engines = {"warm": Contexts(warm), "data": Contexts(data), "bare": Contexts(bare)}
        for contexts in engines.values():
            await contexts.create()  # the conversation is known from here on
        with ExitStack() as stack:
            seen = await side_by_side(
                {
                    **{name: known(contexts) for name, contexts in engines.items()},
                    "new": fresh(engines["warm"], engines["warm"].new_sandbox),
                    "fork warm": raw_fork(stack, preload),
                    "fork data": raw_fork(stack, DATA_MODULES),
                    "fork bare": raw_fork(stack, BARE),
                },
                rounds,
            )
    kernel = await answer_of(peer("ipython_kernel", str(effort.of(5, 1)), "0"))
    servers = {
        name: Series(tuple(await answer_of(peer("forkserver", modules_argument(modules), str(effort.of(30, 3))))))
        for name, modules in (("warm", preload), ("data", DATA_MODULES), ("bare", BARE))
    }
    goals = {"warm": Goal(most=0.001), "data": Goal(), "bare": Goal()}
    names = {"warm": ", ".join(preload) + " preloaded", "data": "numpy, pandas preloaded", "bare": "bare"}
    for name, goal in goals.items():
        peers = {
            "raw fork": seen[f"fork {name}"],
            "forkserver": servers[name],
            "ipykernel": Series(tuple(kernel["ready_s"])),
        }
        what = f"create a context, {names[name]}, while spares last"
        rows.append(Row(what, Unit.SECONDS, seen[name], goal, peers))
    rows.append(
        Row(
            "first context of a new conversation",
            Unit.SECONDS,
            seen["new"],
            Goal(most_times=2),
            {"known conversation": seen["warm"]},
        )
    )
    return Section("A context, sandboxed, ready to run (engine)", [*rows, *await without_spares(effort)])


async def without_spares(effort: Effort) -> list[Row]:
    """Each context is made while the caller waits: its worker alone, or its room too."""
    preload = settings().preload
    rows = []
    for name, modules in (("preloaded", preload), ("bare", BARE)):
        async with (
            started(preload=modules, spare_workers=0) as roomy,
            started(preload=modules, spare_workers=0, spare_rooms=0) as empty,
        ):
            engines = {"in a room that is ready": Contexts(roomy), "room and all": Contexts(empty)}
            with ExitStack() as stack:
                subjects = {where: known(contexts) for where, contexts in engines.items()}
                subjects["fork"] = raw_fork(stack, modules)
                seen = await side_by_side(subjects, effort.of(60, 5))
        fork = seen.pop("fork")
        goal = Goal(most_times=2) if modules else Goal()
        rows += [
            Row(f"create a context, {name}, without spares, {where}", Unit.SECONDS, series, goal, {"raw fork": fork})
            for where, series in seen.items()
        ]
    return rows


async def rates(effort: Effort) -> Section:
    """Many, as fast as they come; spares are used up at once."""
    preload = settings().preload
    rows = []
    for name, modules, least in (("preloaded", preload, 150.0), ("bare", BARE, 600.0)):
        async with started(preload=modules) as engine:
            with ExitStack() as stack:
                fork = raw_fork(stack, modules)
                subjects = {"ours": creating(Contexts(engine), effort.of(200, 40)), "fork": forking(fork, 200)}
                seen = await side_by_side(subjects, effort.of(5, 1), warm_up=1)
        rows.append(
            Row(
                f"contexts made in a second, {name}",
                Unit.RATE,
                seen["ours"],
                Goal(least=least),
                {"raw fork": seen["fork"]},
            )
        )
    return Section("Creation rate, sustained (engine)", rows)


def creating(contexts: Contexts, count: int, at_once: int = 4) -> Subject:
    """Contexts per second, made by so many callers side by side; they stay until all are made."""

    async def make(share: int) -> list[str]:
        return [await contexts.create() for _ in range(share)]

    async def subject() -> float:
        await contexts.settle()
        began = time.perf_counter()
        made = await asyncio.gather(*(make(count // at_once) for _ in range(at_once)))
        took = time.perf_counter() - began
        for share in made:
            await contexts.delete(*share)
        return count / took

    return subject


def forking(fork: Subject, count: int) -> Subject:
    """The same of a subject that takes seconds, one after another."""

    async def subject() -> float:
        return count / sum([await fork() for _ in range(count)])

    return subject


async def first_uses(effort: Effort) -> Section:
    """What preloading is for: the first use in a new context."""
    async with started() as engine:
        contexts = Contexts(engine)

        def first(code: str) -> Subject:
            async def subject() -> float:
                context_id = await contexts.create()
                await contexts.settle()
                took = await seconds(contexts.run(context_id, code))
                await contexts.delete(context_id)
                return took

            return subject

        with ExitStack() as stack:
            subjects = {
                "pandas": first("import pandas"),
                "figure": first(FIRST_FIGURE),
                "matplotlib": asked(stack, peer("matplotlib_figure", FIRST_FIGURE)),
            }
            seen = await side_by_side(subjects, effort.of(40, 4))
    alone = {"matplotlib alone, warm, `savefig` tight": seen["matplotlib"]}
    rows = [
        Row("first `import pandas`", Unit.SECONDS, seen["pandas"], Goal(most=0.005)),
        Row("first figure as PNG", Unit.SECONDS, seen["figure"], Goal(most=0.040), alone),
    ]
    return Section("First use in a new context (engine)", rows)


async def endings(effort: Effort) -> Section:
    """Interrupting a loop and deleting a context."""
    async with started() as engine:
        contexts = Contexts(engine)
        looping = await contexts.create()

        async def interrupt() -> float:
            running = asyncio.create_task(engine.execute(looping, RunRequest(1, LOOP), heard.hear))
            await heard.something()
            began = time.perf_counter()
            await engine.interrupt(looping, Status.INTERRUPTED)
            outcome = await running
            took = time.perf_counter() - began
            if outcome.status is not Status.INTERRUPTED or outcome.state != "kept":
                raise RuntimeError(f"the loop was not interrupted: {outcome}")
            return took

        async def delete() -> float:
            context_id = await contexts.create()
            await contexts.run(context_id, "x = 1")
            await contexts.settle()
            return await seconds(contexts.delete(context_id))

        heard = Heard()
        seen = await side_by_side({"interrupt": interrupt, "delete": delete}, effort.of(50, 8))
    rows = [
        Row("interrupt a Python loop, to its outcome", Unit.SECONDS, seen["interrupt"], Goal(most=0.005)),
        Row("delete a context, until nothing of it is left", Unit.SECONDS, seen["delete"], Goal(most=0.003)),
    ]
    return Section("Endings (engine)", rows)


LOOP = "print('going')\nwhile True: pass"


class Heard:
    """A sink that lets one wait for the next output."""

    def __init__(self) -> None:
        self._something = asyncio.Event()

    def hear(self, _chunk: object) -> None:
        self._something.set()

    async def something(self) -> None:
        await self._something.wait()
        self._something.clear()
