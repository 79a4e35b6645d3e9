"""From the start of the server's process to its first answered tool call."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.effort import Effort
from benchmarks.jsonlines import JsonLines
from benchmarks.measure import Subject, side_by_side, timed_call
from benchmarks.processes import on_pipes, server
from benchmarks.results import Goal, Row, Section, Unit


async def cold(effort: Effort) -> Section:
    seen = await side_by_side(
        {
            "run": first_answer(lambda wire: wire.call("run_code", {"code": "1+1"})),
            "list": first_answer(lambda wire: wire.call("list_contexts", {})),
            "import": timed_call(import_sdk),
        },
        effort.of(10, 1),
        warm_up=1,
    )
    peers = {"`import mcp` alone": seen["import"]}
    return Section(
        "From the start of the process to the first answer (stdio MCP, everything preloaded)",
        [
            Row("`run_code('1+1')`", Unit.SECONDS, seen["run"], Goal(most_times=2), peers),
            Row("`list_contexts`", Unit.SECONDS, seen["list"], Goal(most_times=2), peers),
        ],
    )


def first_answer(call: Callable[[JsonLines], object]) -> Subject:
    async def subject() -> float:
        began = time.perf_counter()
        with on_pipes(server()) as process:
            wire = JsonLines(process)
            wire.shake_hands()
            call(wire)
            return time.perf_counter() - began

    return subject


def import_sdk() -> None:
    subprocess.run([sys.executable, "-c", "import mcp"], check=True)
