"""A thousand contexts, made and deleted at random, some of them killed while running: nothing may be left of them."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mcp_server.engine.local import LocalEngine
from mcp_server.errors import UnknownContext
from mcp_server.model import ContextSpec, EngineCapabilities, RunRequest, Status
from mcp_server.sandbox.cell import Cell
from mcp_server.sandbox.policy import CellPlan, Tier
from mcp_server.sandbox.probe import probe
from tests.bench import Listener

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(280)]

AT_ONCE = 8
MIB = 1024 * 1024

CODES = (
    "x = 1",
    "open('file', 'w').write('x' * 10_000)",
    "import subprocess; p = subprocess.Popen(['sleep', '600'])",
    "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(600)\n    os._exit(0)",
    "import os; os.abort()",
    "import os; os._exit(3)",
    "for i in range(20_000): print(i)",
    "import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
)
ENDLESS = "print('started', flush=True)\nwhile True: pass"


@dataclass(frozen=True, slots=True)
class Footprint:
    """What the engine and all its processes hold."""

    processes: int
    descriptors: int
    mounts: int
    state_files: int
    memory_bytes: int

    @classmethod
    def take(cls, state_dir: Path) -> Footprint:
        pids = [os.getpid(), *_descendants(os.getpid())]
        return cls(
            processes=len(pids),
            descriptors=sum(map(_descriptors, pids)),
            mounts=sum(map(_mounts, pids)),
            state_files=sum(1 for _ in state_dir.rglob("*")),
            memory_bytes=sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * 4096,
        )


@pytest.mark.parametrize(("tier", "contexts"), [(probe().tier, 1_000), (Tier.NONE, 200)])
async def test_contexts_that_come_and_go_leave_nothing(tier: Tier, contexts: int, tmp_path: Path) -> None:
    plan = CellPlan(python=sys.executable, state_dir=str(tmp_path / "state"), tier=tier)
    engine = LocalEngine(lambda: Cell(plan), EngineCapabilities("local", tier))
    await engine.start()
    try:
        chance = random.Random(20_261_123)
        await churn(engine, 50, chance)  # caches fill, spare rooms are built
        before = await settled(tmp_path, 0)
        await churn(engine, contexts, chance)
        after = await settled(tmp_path, before.processes)
    finally:
        await engine.close()
    assert after.processes == before.processes
    assert after.mounts == before.mounts
    assert after.state_files == before.state_files
    assert after.descriptors <= before.descriptors + 4
    assert after.memory_bytes - before.memory_bytes < 24 * MIB


async def churn(engine: LocalEngine, count: int, chance: random.Random) -> None:
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, fate: float, code: str) -> None:
        async with slots:
            sandbox = f"sbx_{number % 20}" if fate < 0.7 else f"sbx_own_{number}"
            await live(engine, sandbox, fate, code)
            if fate >= 0.7:
                await engine.delete_sandbox(sandbox)

    await asyncio.gather(*(one(number, chance.random(), chance.choice(CODES)) for number in range(count)))
    for number in range(20):
        await engine.delete_sandbox(f"sbx_{number}")


async def live(engine: LocalEngine, sandbox: str, fate: float, code: str) -> None:
    """One context's life: most run something, some are deleted while they run, some are given up."""
    info = await engine.create(ContextSpec(sandbox), Listener())
    if fate < 0.8:
        await engine.execute(info.context_id, RunRequest(1, code), Listener())
        await engine.delete(info.context_id)
        return
    heard = Listener()
    running = asyncio.create_task(engine.execute(info.context_id, RunRequest(1, ENDLESS), heard))
    await heard.something()
    if fate < 0.95:
        await engine.delete(info.context_id)
        assert (await running).status is Status.CANCELLED
    else:
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await engine.delete(info.context_id)
    with pytest.raises(UnknownContext):
        await engine.execute(info.context_id, RunRequest(2, "1"), Listener())


async def settled(tmp_path: Path, processes: int) -> Footprint:
    """The footprint once what is still ending has ended: rooms are reaped, and spare ones built, in the background."""
    footprint = Footprint.take(tmp_path)
    for _ in range(100):
        await asyncio.sleep(0.05)
        last, footprint = footprint, Footprint.take(tmp_path)
        if footprint.processes == last.processes and (not processes or footprint.processes == processes):
            break
    return footprint


def _descriptors(pid: int) -> int:
    """Of what an ordinary user may not look into, which is what is sealed, nothing is counted."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except PermissionError:
        return 0


def _mounts(pid: int) -> int:
    try:
        return len(Path(f"/proc/{pid}/mountinfo").read_text().splitlines())
    except PermissionError:
        return 0
    except OSError as error:
        if error.errno != errno.EINVAL:  # it has ended, and its parent has yet to hear of that
            raise
        return 0


def _descendants(root: int) -> Iterator[int]:
    children: dict[int, list[int]] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(pid))
    waiting = [root]
    while waiting:
        for child in children.get(waiting.pop(), []):
            yield child
            waiting.append(child)
