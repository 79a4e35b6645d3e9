"""Scenes with a real cell, played in a process of their own, as root or as an ordinary user.

The worker's loop is replaced by one that executes what it is sent, so that a scene decides what a worker does.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from mcp_server.sandbox import launch
from mcp_server.sandbox.cell import Cell, Spawned, WorkerExit
from mcp_server.sandbox.policy import CellPlan, Tier, environment_for
from mcp_server.worker import confine, linux

ORDINARY_UID = 64_321
"""Nobody's on any machine that follows the usual allocation."""

BOUND_S = 60.0

OBEDIENT_MAIN = """
import json, os, socket

class Post:
    def take(self, control, random_seed):
        control.setblocking(True)
        self.stream = socket.socket(fileno=control.detach()).makefile("rwb")

    def rehearse(self):
        pass

    def receive(self):
        pass

    def begin(self, first):
        pass

    def serve(self):
        scope = {}
        while True:
            line = self.stream.readline()
            if not line:
                os._exit(0)
            scope["answer"] = None
            try:
                exec(json.loads(line), scope)
                reply = {"answer": scope["answer"]}
            except Exception as error:
                reply = {"error": "%s: %s" % (type(error).__name__, error)}
            self.stream.write(json.dumps(reply).encode() + b"\\n")
            self.stream.flush()

def prepare():
    pass

def prepared():
    return Post()
"""

DAEMON = """
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        os.setpgid(0, 0)
        while True:
            time.sleep(1000)
    os._exit(0)
os.wait()
"""
"""Leaves its session, its group and its parent, and ignores polite signals. It keeps stdout open."""


@dataclass(frozen=True)
class Stage:
    """Where a scene plays. `directory` is the player's own, and empty at first."""

    tier: Tier
    python: str
    directory: Path

    @property
    def plan(self) -> CellPlan:
        environment = environment_for(self.python, {})
        return CellPlan(self.python, str(self.directory / "state"), self.tier, environment=environment)

    @asynccontextmanager
    async def cell(self, **changes: Any) -> AsyncIterator[Cell]:
        cell = Cell(replace(self.plan, **changes))
        await cell.start()
        try:
            yield cell
        finally:
            await cell.close()


class Player:
    """A worker that does as it is told."""

    def __init__(self, spawned: Spawned, exited: asyncio.Future[WorkerExit]) -> None:
        self.spawned = spawned
        self.exited = exited

    async def do(self, code: str) -> Any:
        """What the code assigned to `answer`. Raises EOFError where the worker is gone, RuntimeError for its error."""
        loop = asyncio.get_running_loop()
        reply = b""
        try:
            await loop.sock_sendall(self.spawned.control, json.dumps(code).encode() + b"\n")
            while not reply.endswith(b"\n"):
                data = await loop.sock_recv(self.spawned.control, 65536)
                if not data:
                    raise EOFError
                reply += data
        except (BrokenPipeError, ConnectionResetError):
            raise EOFError from None
        message = json.loads(reply)
        if "error" in message:
            raise RuntimeError(message["error"])
        return message["answer"]

    async def fall(self, code: str) -> WorkerExit:
        """How the worker ended by executing this. (Its children may keep the socket open.)"""
        await asyncio.get_running_loop().sock_sendall(self.spawned.control, json.dumps(code).encode() + b"\n")
        return await asyncio.shield(self.exited)

    def everything_is_gone(self) -> bool:
        """Whether no process holds the worker's stdout any more."""
        os.set_blocking(self.spawned.stdout_fd, False)
        try:
            return os.read(self.spawned.stdout_fd, 1) == b""
        except BlockingIOError:
            return False

    def let_go(self) -> None:
        self.spawned.control.close()
        for fd in (self.spawned.stdout_fd, self.spawned.stderr_fd, self.spawned.pidfd):
            os.close(fd)


async def enter(cell: Cell, sandbox: str = "sandbox", directory: str = "") -> Player:
    exited: asyncio.Future[WorkerExit] = asyncio.get_running_loop().create_future()
    spawned = await cell.spawn(sandbox, exited.set_result, directory)
    await asyncio.shield(spawned.housed)
    return Player(spawned, exited)


Scene = Callable[[Stage], Coroutine[Any, Any, None]]


def landlock_suffices() -> bool:
    try:
        return linux.landlock_abi() >= confine.NEEDED_LANDLOCK_ABI
    except OSError:  # not built in, or turned off
        return False


def require_tier(tier: Tier, ordinary_user: bool) -> None:
    """Skip where the tier cannot be had, or nobody can become another user."""
    if ordinary_user and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    if tier is Tier.STANDARD and not landlock_suffices():
        pytest.skip("this kernel's Landlock is older than ABI 6")
    if tier is Tier.STRONG_CELL and shutil.which("bwrap") is None:
        pytest.skip("bwrap is not installed")
    if tier is Tier.STRONG_CELL and os.geteuid() == 0 and not ordinary_user:
        pytest.skip("this tier is not for root")


def play(scene: Scene, tier: Tier, ordinary_user: bool) -> None:
    """Play a scene in a process of its own; its failure fails the test with its traceback."""
    directory = Path(tempfile.mkdtemp(prefix="scene-"))
    readable, writable = os.pipe()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # the runner's threads are none of ours
        pid = os.fork()
    if pid == 0:
        os.close(readable)
        _act(scene, tier, ordinary_user, directory, writable)
    os.close(writable)
    try:
        with open(readable, "rb") as failure:
            text = failure.read().decode()
        _, status = os.waitpid(pid, 0)
    finally:
        shutil.rmtree(directory)
    if text or status:
        pytest.fail(text or f"the scene ended with wait status {status}", pytrace=False)


def _act(scene: Scene, tier: Tier, ordinary_user: bool, directory: Path, failure: int) -> NoReturn:
    try:
        worker_dir = directory / "worker"
        shutil.copytree(launch.WORKER_DIR, worker_dir, ignore=shutil.ignore_patterns("__pycache__"))
        (worker_dir / "main.py").write_text(OBEDIENT_MAIN)
        launch.WORKER_DIR = worker_dir
        own = directory / "own"
        own.mkdir(0o700)
        if ordinary_user:
            directory.chmod(0o755)
            os.chown(own, ORDINARY_UID, ORDINARY_UID)
            os.setgroups([])
            os.setresgid(ORDINARY_UID, ORDINARY_UID, ORDINARY_UID)
            os.setresuid(ORDINARY_UID, ORDINARY_UID, ORDINARY_UID)
        python = next(path for path in (sys.executable, "/usr/bin/python3") if os.access(path, os.X_OK))
        sys.executable = python
        asyncio.run(asyncio.wait_for(scene(Stage(tier, python, own)), BOUND_S))
    except BaseException:  # noqa: BLE001  (whatever it is, the test must show it)
        os.write(failure, traceback.format_exc().encode()[-60_000:])
        os._exit(1)
    os._exit(0)


def descendants(pid: int) -> set[int]:
    """All processes below this one."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        for task in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            try:
                children = {int(child) for child in task.read_text().split()}
            except (FileNotFoundError, ProcessLookupError):
                continue
            waiting += children - found
            found |= children
    return found


def wait_until_gone(pidfds: set[int]) -> None:
    """Raises TimeoutError where one of the processes lives on."""
    waiting = select.poll()
    for pidfd in pidfds:
        waiting.register(pidfd, select.POLLIN)
    left = set(pidfds)
    while left:
        ended = waiting.poll(BOUND_S * 1000)
        if not ended:
            raise TimeoutError(f"{len(left)} processes live on")
        for pidfd, _ in ended:
            waiting.unregister(pidfd)
            os.close(pidfd)
            left.discard(pidfd)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
