"""Many contexts: what each holds, and whether the thousandth is as quick as the first."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from typing import cast

from benchmarks.contexts import known
from benchmarks.effort import Effort
from benchmarks.engines import Contexts, started
from benchmarks.measure import Series, one, side_by_side, timed
from benchmarks.processes import answer_of, descendants, held_bytes, own_bytes, peer
from benchmarks.results import Goal, Row, Section, Unit
from mcp_server.engine.base import Engine
from mcp_server.engine.local import LocalEngine

MIB = 1024 * 1024
GIB = 1024 * MIB


def worker_pids(engine: Engine, context_ids: Iterable[str]) -> list[int]:
    local = cast("LocalEngine", engine)
    workers = [local._contexts[context_id].worker for context_id in context_ids]
    return [worker.process._spawned.pid for worker in workers if worker is not None]


async def crowd(effort: Effort) -> Section:
    """A thousand idle contexts in one engine, and one in another."""
    count = effort.of(1_000, 50)
    async with started() as lonely, started() as crowded:
        few, many = Contexts(lonely), Contexts(crowded)
        alone = await few.create()
        before = held_bytes()
        made = [await many.create() for _ in range(count)]
        for context_id in made:
            await many.run(context_id, "x = 1")
        await many.settle()
        own = Series(tuple(float(own_bytes(pid)) for pid in worker_pids(crowded, made)))
        total = held_bytes() - before
        processes = [own_bytes(pid) for pid in descendants(os.getpid())]
        seen = await side_by_side(
            {
                "run, one": timed(lambda: few.run(alone, "1+1")),
                "run, many": timed(lambda: many.run(made[0], "1+1")),
            },
            effort.of(500, 100),
            warm_up=20,
        )
        made_there = await side_by_side({"one": known(few), "many": known(many)}, effort.of(60, 10))
        await _delete_in_parts(many, made)
    kernel = await answer_of(peer("ipython_kernel", "1", "1"))
    return Section(
        f"{count:,} contexts alive, preloaded (engine)",
        [
            Row(
                "own memory of an idle context (USS)",
                Unit.BYTES,
                own,
                Goal(most=3 * MIB),
                {"ipykernel": one(float(kernel["own_bytes"])).repeated(count)},
            ),
            Row(
                f"memory that {count:,} contexts take from the machine",
                Unit.BYTES,
                one(float(total)),
                Goal(most=3 * GIB * count / 1_000),
                note=f"{sum(processes) / MIB:,.0f} MiB of it are the processes' own, rooms included",
            ),
            Row("`1+1`", Unit.SECONDS, seen["run, many"], Goal(most_times=1.3), {"with one alive": seen["run, one"]}),
            Row(
                "create a context",
                Unit.SECONDS,
                made_there["many"],
                Goal(most_times=1.3),
                {"with one alive": made_there["one"]},
            ),
        ],
    )


async def _delete_in_parts(contexts: Contexts, made: list[str]) -> None:
    for start in range(0, len(made), 50):
        await contexts.delete(*made[start : start + 50])
        await asyncio.sleep(0)
