"""Many conversations at once against one real server, for as long as is wanted; and what must hold in the end."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.mcp.server_processes import ServerProcess, Watched, descendants, http_server
from tests.soak import census
from tests.soak.caller import Answer, Caller, Era
from tests.soak.census import MIB, Census
from tests.soak.scenes import Conversation

REST_BOUND_S = 30.0
"""How long the server may take to come to rest when every conversation has ended."""

REST_LOOK_S = 0.5

# What may be more at the end than after the warm-up, both times with every conversation ended.
RSS_GROWTH = 0.1
RSS_SLACK_BYTES = 8 * MIB
"""The allocator keeps pages for reuse: a tenth, and what a burst of large reports leaves behind."""
PSS_SLACK_BYTES = 16 * MIB
DESCRIPTOR_SLACK = 4
PROCESS_SLACK = 4
"""Workers and rooms that are kept ready are renewed in the background."""

MAX_TOLD = 5
"""Of one kind of fault."""

HARMLESS = frozenset(("worker.died_idle", "spares.missing"))
"""Warnings of the log that killing workers brings."""


@dataclass(frozen=True, slots=True)
class Options:
    """Times in seconds. ``kill_every_s`` is the mean time between two kills of a worker from outside.

    ``bound_s`` is for any call: the longest that one waits for its code by default, and as much again for a busy
    machine.
    """

    duration_s: float = 600.0
    warm_up_s: float = 60.0
    conversations: int = 100
    pause_s: float = 2.0
    kill_every_s: float = 2.0
    bound_s: float = 120.0
    seed: int = 0


@dataclass(slots=True)
class Result:
    """What came of it. ``faults`` are the invariants that did not hold; none where all is well."""

    options: Options
    counts: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    slowest_call_s: float = 0.0
    stop_s: float = 0.0
    idle: Census | None = None
    warmed: Census | None = None
    ended: Census | None = None
    faults: list[str] = field(default_factory=list)


async def soak(options: Options, say: Callable[[str], None]) -> Result:
    """Start a server, live on it, stop it. Bounded by the duration, three rests and the time of one scene."""
    result = Result(options)
    with tempfile.TemporaryDirectory() as state_dir:
        with http_server("--state-dir", state_dir, "--memory-bytes", "512MiB", wanted=_is_trouble) as server:
            say(f"server {server.process.pid} at {server.url}, seed {options.seed}")
            await _live_and_rest(server, result, say)
            await _stop(server, result)
            result.faults += [f"in the log: {event}" for event in server.log[:MAX_TOLD]]
        result.faults += _files_left(Path(state_dir))
    return result


def _is_trouble(event: dict[str, object]) -> bool:
    killed_at_birth = event["event"] in ("call.failed", "run.failed") and event.get("error") == "EngineUnavailable"
    return event.get("level") != "info" and event["event"] not in HARMLESS and not killed_at_birth


def _files_left(state_dir: Path) -> list[str]:
    return [f"left in the state directory: {path}" for path in state_dir.rglob("*") if path.is_file()][:MAX_TOLD]


async def _live_and_rest(server: ServerProcess, result: Result, say: Callable[[str], None]) -> None:
    options = result.options
    pid = server.process.pid
    dice = random.Random(options.seed)
    result.idle = await _rest(pid)
    for name, length_s in (("warm-up", options.warm_up_s), ("soak", options.duration_s - options.warm_up_s)):
        say(f"{name}: {length_s:g} s, {options.conversations} conversations")
        faults = await _phase(server, result, random.Random(dice.getrandbits(64)), length_s)
        result.faults += faults
        for fault in faults:
            say(fault)
        now = await _rest(pid)
        say(f"at rest: {now}")
        if name == "warm-up":
            result.warmed = now
        result.ended = now
        if faults:
            return
    if result.warmed is not None and result.ended is not None:
        result.faults += _growth(result.warmed, result.ended)


async def _phase(server: ServerProcess, result: Result, dice: random.Random, length_s: float) -> list[str]:
    """Let all conversations live for a while. Gives what went wrong: the first fault of each ends it for all."""
    end_s = time.monotonic() + length_s
    faults: list[str] = []

    def over() -> bool:
        return bool(faults) or time.monotonic() >= end_s

    async def live(number: int) -> None:
        era = (Era.OLDER, Era.NEWEST)[number % 2]
        own = random.Random(dice.getrandbits(64))
        caller = _TimedCaller(server.url, f"soak-{number}", era, result)
        try:
            await Conversation(caller, own, result.counts).live(over, result.options.pause_s)
        except (AssertionError, TimeoutError, httpx.HTTPError) as fault:
            where = str(fault) or "".join(traceback.format_tb(fault.__traceback__)[-1:])
            began_s = end_s - length_s
            when = f"after {time.monotonic() - began_s:.0f} s, conversation {number} ({era})"
            faults.append(f"{when}: {type(fault).__name__}: {where}")

    killing = asyncio.create_task(_kill_workers(server.process.pid, result, random.Random(dice.getrandbits(64))))
    await asyncio.gather(*(live(number) for number in range(result.options.conversations)))
    killing.cancel()
    with suppress(asyncio.CancelledError):
        await killing
    return faults


class _TimedCaller(Caller):
    """Counts calls and keeps the longest time that one took."""

    def __init__(self, url: str, conversation: str, era: Era, result: Result) -> None:
        super().__init__(url, conversation, era, result.options.bound_s)
        self._result = result

    async def call(self, tool: str, **arguments: object) -> Answer:
        began_s = time.monotonic()
        answer = await super().call(tool, **arguments)
        self._result.calls += 1
        self._result.slowest_call_s = max(self._result.slowest_call_s, time.monotonic() - began_s)
        return answer


async def _kill_workers(pid: int, result: Result, dice: random.Random) -> None:
    """Kill a worker now and then, as the kernel might. A descriptor keeps its number from being another's by then."""
    while True:
        await asyncio.sleep(dice.expovariate(1 / result.options.kill_every_s))
        found = list(census.workers(pid))
        if not found:
            continue
        with suppress(ProcessLookupError):
            victim = os.pidfd_open(dice.choice(found))
            try:
                signal.pidfd_send_signal(victim, signal.SIGKILL)
                result.counts["workers killed"] += 1
            finally:
                os.close(victim)


async def _rest(pid: int) -> Census:
    """Wait until the server has the same processes and descriptors three times in a row; then what they take."""
    deadline_s = time.monotonic() + REST_BOUND_S
    seen: list[tuple[int, int]] = []
    while time.monotonic() < deadline_s:
        now = census.take(pid)
        seen.append((now.processes, now.server_descriptors))
        if len(seen) >= 3 and len(set(seen[-3:])) == 1:
            return now
        await asyncio.sleep(REST_LOOK_S)
    return census.take(pid)


async def _stop(server: ServerProcess, result: Result) -> None:
    watched = Watched(descendants(server.process.pid))
    began_s = time.monotonic()
    try:
        status = await asyncio.to_thread(server.stop, signal.SIGTERM, result.options.bound_s)
    except subprocess.TimeoutExpired:
        result.faults.append(f"the server had not stopped after {result.options.bound_s:g} s")
        return
    result.stop_s = time.monotonic() - began_s
    if status != 128 + signal.SIGTERM:
        result.faults.append(f"exit status {status}")
    left = await asyncio.to_thread(watched.survivors)
    if left:
        result.faults.append(f"processes left after the stop: {left}")


def _growth(before: Census, after: Census) -> list[str]:
    bounds = {
        "server_rss": before.server_rss * (1 + RSS_GROWTH) + RSS_SLACK_BYTES,
        "server_descriptors": before.server_descriptors + DESCRIPTOR_SLACK,
        "processes": before.processes + PROCESS_SLACK,
    }
    if before.descendants_pss is not None and after.descendants_pss is not None:
        bounds["descendants_pss"] = before.descendants_pss + PSS_SLACK_BYTES
    return [
        f"{name} grew from {getattr(before, name):,} to {getattr(after, name):,}, over {bound:,.0f}"
        for name, bound in bounds.items()
        if getattr(after, name) > bound
    ]
