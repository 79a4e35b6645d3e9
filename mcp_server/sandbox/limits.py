"""How much memory a context's processes hold together, observed and limited from outside.

RLIMIT_DATA bounds each process; only this bounds all of them. Two keepers do it, behind one port: a memory cgroup for
each context where the server may make one (the kernel then counts everything and acts at once), else a watchdog that
looks at the context's processes while there is something to look at.

The engine drives a keeper so:

    keeper = memory_keeper(Ceilings(…), on_exceeded)   once
    keeper.doors(tag)              a worker is about to be forked: where it goes in by itself
    await keeper.admit(tag, pid)   it was forked and has not yet run foreign code
    keeper.busy(tag)               a run begins
    keeper.idle(tag)               it ended
    keeper.excess(tag)             the worker was killed by a SIGKILL that the engine did not send: for what?
    keeper.release(tag)            nothing of the context is left
    keeper.close()

`tag` is the context's tag, which all its processes carry. Methods belong to one event loop; `admit` alone waits.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from mcp_server.sandbox import cgroups, processes, scopes
from mcp_server.sandbox.processes import TaggedProcess

MIB = 1024 * 1024
GIB = 1024 * MIB

FASTEST_FILL_BYTES_PER_S = 8 * GIB
"""What a few cores touching fresh memory can reach; from it follows when to look again at the latest."""

SHORTEST_INTERVAL_S = 0.02
LONGEST_INTERVAL_S = 0.5

LEFT_BEHIND_INTERVAL_S = 2.0
"""While no run is on, but threads or processes of an earlier one may still be at work."""

KILLS_FRESH_S = 1.0
"""The kernel's count of its kills for memory can take 0.1 ms to read: too long for each run, so runs that follow one
another begin with one count. A kill within this time before a run can be taken for one within it."""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What all processes of one context may have together. ``processes`` counts threads too; 0 means no ceiling.

    In a cgroup the kernel refuses the process that would be one too many. The watchdog can only kill the context: it is
    for tiers in which RLIMIT_NPROC cannot hold one context apart from the user's other processes.
    """

    memory_bytes: int
    processes: int = 0


class Excess(StrEnum):
    """What a context had too much of."""

    MEMORY = "memory"
    PROCESSES = "processes"


class MemoryKeeper(Protocol):
    """Keeps contexts within their ceiling. ``name`` is for `doctor` and the start-up log."""

    @property
    def name(self) -> str: ...

    def doors(self, tag: int, /) -> tuple[int, ...]:
        """Descriptors to which the worker writes ``0``, first of all; the caller closes them. Raises OSError.

        Whoever asks for them releases the tag, whatever becomes of the worker.
        """

    async def admit(self, tag: int, pid: int) -> None:
        """Take a context in, where it did not go in by doors. Raises OSError where it cannot be limited; it must then
        not run anything.

        Where this is cancelled the context may be in or not: release it.
        """

    def busy(self, tag: int) -> None: ...

    def idle(self, tag: int) -> None: ...

    def excess(self, tag: int) -> Excess | None:
        """What a process of the context was killed for since the last `busy`; None where it was not."""

    def release(self, tag: int) -> None:
        """Forget a context. Unknown tags pass."""

    def close(self) -> None:
        """Release all. Idempotent."""


def memory_keeper(ceilings: Ceilings, on_exceeded: Callable[[int], None]) -> MemoryKeeper:
    """The best keeper that works here. `on_exceeded` hears of a tag whose processes the watchdog has killed."""
    try:
        parent = scopes.divisible_group()
    except OSError:
        return Watchdog(ceilings, on_exceeded, kills=_kills_here())
    cgroups.clear_stale(parent)
    return GroupKeeper(parent, ceilings)


def _kills_here() -> cgroups.KillCount | None:
    try:
        return cgroups.KillCount.of_this_process()
    except OSError:
        return None


class Unlimited:
    """Keeps nothing: each process's own limits are all there is."""

    name = "none"

    def doors(self, _tag: int) -> tuple[int, ...]:
        """None is closed."""
        return ()

    async def admit(self, tag: int, pid: int) -> None:
        """Anything may come."""

    def busy(self, tag: int) -> None:
        """And do what it likes."""

    def idle(self, tag: int) -> None:
        """Or nothing."""

    def excess(self, tag: int) -> None:
        """Nothing is ever too much."""

    def release(self, tag: int) -> None:
        """It was never held."""

    def close(self) -> None:
        """There is nothing to release."""


class GroupKeeper:
    """A memory cgroup for each context: the kernel counts every page, and kills the largest process at the ceiling."""

    def __init__(self, parent: cgroups.Parent, ceilings: Ceilings) -> None:
        self._parent = parent
        self._ceilings = ceilings
        self._groups: dict[int, cgroups.Group] = {}
        self._emptying: list[cgroups.Group] = []
        self._kills: dict[int, cgroups.KillCount] = {}
        self._kills_before: dict[int, int] = {}

    @property
    def name(self) -> str:
        return f"cgroup v{self._parent.version}"

    def doors(self, tag: int) -> tuple[int, ...]:
        if self._parent.version == 2:
            return ()
        group = self._make(tag)
        try:
            return group.doors()
        except OSError:
            self.release(tag)
            raise

    async def admit(self, tag: int, pid: int) -> None:
        if tag in self._groups:
            return
        group = self._make(tag)
        try:
            # The kernel lets all processors pass by before it moves another process, which takes 8 ms and more.
            await asyncio.to_thread(group.attach, pid)
        except OSError:
            self.release(tag)
            raise

    def busy(self, tag: int) -> None:
        self._kills_before[tag] = self._kills_now(tag)

    def idle(self, tag: int) -> None:
        """The kernel goes on counting by itself."""

    def excess(self, tag: int) -> Excess | None:
        killed = tag in self._groups and self._kills_now(tag) > self._kills_before.get(tag, 0)
        return Excess.MEMORY if killed else None

    def release(self, tag: int) -> None:
        group = self._groups.pop(tag, None)
        kills = self._kills.pop(tag, None)
        self._kills_before.pop(tag, None)
        if kills is not None:
            kills.close()
        if group is not None:
            self._emptying.append(group)
        self._emptying = [group for group in self._emptying if not group.remove()]

    def close(self) -> None:
        for tag in list(self._groups):
            self.release(tag)

    def _kills_now(self, tag: int) -> int:
        kills = self._kills.get(tag)
        if kills is None:
            kills = self._kills[tag] = cgroups.KillCount.of(self._groups[tag])
        return kills.now()

    def _make(self, tag: int) -> cgroups.Group:
        group = cgroups.make(self._parent, str(tag), self._ceilings.memory_bytes, self._ceilings.processes)
        self._groups[tag] = group
        return group


class Watchdog:
    """Looks at contexts' memory, the more often the less is left, and kills a context that is over its ceiling.

    What it cannot see: shared memory that no process maps any more, and buffers of the kernel. A ceiling that holds
    against malice needs a cgroup. Nothing is looked at while no context is busy and none left threads or processes at
    work.
    """

    def __init__(
        self,
        ceilings: Ceilings,
        on_exceeded: Callable[[int], None],
        find: Callable[[Collection[int]], Mapping[int, list[TaggedProcess]]] = processes.find_tagged,
        measure: Callable[[Sequence[TaggedProcess]], int] = processes.bytes_together,
        kills: cgroups.KillCount | None = None,
    ) -> None:
        """`kills` are those for memory among this process's own; without it all of the machine's are counted."""
        self._ceilings = ceilings
        self._on_exceeded = on_exceeded
        self._find = find
        self._measure = measure
        self._busy: set[int] = set()
        self._left_behind: set[int] = set()
        self._exceeded: dict[int, Excess] = {}
        self._kill_count = kills
        self._kills = 0
        self._kills_seen_s = -math.inf
        self._kills_before: dict[int, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def name(self) -> str:
        return "watchdog"

    async def admit(self, tag: int, pid: int) -> None:
        """A tag is all that it needs."""

    def doors(self, _tag: int) -> tuple[int, ...]:
        """It lets everyone in."""
        return ()

    def busy(self, tag: int) -> None:
        self._exceeded.pop(tag, None)
        if time.monotonic() > self._kills_seen_s + KILLS_FRESH_S:
            self._see_kills()
        self._kills_before[tag] = self._kills
        self._busy.add(tag)
        self._look_again_in(SHORTEST_INTERVAL_S)

    def idle(self, tag: int) -> None:
        if tag in self._busy:
            self._busy.discard(tag)
            self._left_behind.add(tag)

    def excess(self, tag: int) -> Excess | None:
        if tag in self._exceeded:
            return self._exceeded[tag]
        before = self._kills_before.get(tag)
        if before is None:
            return None
        self._see_kills()
        # Where there are more, there was none left, and contexts are what the kernel takes first.
        return Excess.MEMORY if self._kills > before else None

    def release(self, tag: int) -> None:
        for known in (self._busy, self._left_behind):
            known.discard(tag)
        self._exceeded.pop(tag, None)
        self._kills_before.pop(tag, None)
        if not self._busy and not self._left_behind:
            self._stop()

    def close(self) -> None:
        self._stop()
        for tags in (self._busy, self._left_behind):
            tags.clear()
        if self._kill_count is not None:
            self._kill_count.close()
            self._kill_count = None

    @property
    def looking(self) -> bool:
        """Whether it will look again."""
        return self._timer is not None

    def look(self) -> None:
        """Measure every watched context once, kill those over the ceiling, and set the time of the next look."""
        self._stop()
        found = self._find(self._busy | self._left_behind)
        largest = 0
        for tag in list(self._busy | self._left_behind):
            members = found.get(tag, [])
            used, threads = self._memory_of(members), sum(process.threads for process in members)
            if used > self._ceilings.memory_bytes:
                self._exceed(tag, Excess.MEMORY, members)
            elif 0 < self._ceilings.processes < threads:
                self._exceed(tag, Excess.PROCESSES, members)
            else:
                largest = max(largest, used)
            if threads <= 1:
                self._left_behind.discard(tag)
        if self._busy:
            headroom = (self._ceilings.memory_bytes - largest) / FASTEST_FILL_BYTES_PER_S
            self._look_again_in(min(max(headroom, SHORTEST_INTERVAL_S), LONGEST_INTERVAL_S))
        elif self._left_behind:
            self._look_again_in(LEFT_BEHIND_INTERVAL_S)

    def _see_kills(self) -> None:
        count = self._kill_count
        self._kills = processes.machine_kills_for_memory() if count is None else count.now()
        self._kills_seen_s = time.monotonic()

    def _memory_of(self, members: list[TaggedProcess]) -> int:
        used = sum(process.resident_bytes for process in members)
        if used > self._ceilings.memory_bytes:
            # Pages that several processes share were counted for each: now divide them, which takes longer.
            used = self._measure(members)
        return used

    def _exceed(self, tag: int, excess: Excess, members: list[TaggedProcess]) -> None:
        self._exceeded[tag] = excess
        self._busy.discard(tag)
        self._left_behind.discard(tag)
        for process in members:
            with suppress(OSError):
                _kill(process)
        self._on_exceeded(tag)

    def _look_again_in(self, seconds: float) -> None:
        """Sooner, where a later look was planned."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + seconds:
                return
            self._timer.cancel()
        self._timer = loop.call_later(seconds, self.look)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _kill(process: TaggedProcess) -> None:
    """By a descriptor, and only if the pid still means a process of the context: pids are given out again."""
    pidfd = os.pidfd_open(process.pid)
    try:
        if processes.tag_of(process.pid) == process.tag:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)
