"""Processes that figures are taken of: the peers, real servers, and what /proc says of their memory."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Any, cast

PEERS = Path(__file__).parent / "peers"

PEER_TIMEOUT_S = 300.0


def peer(name: str, *arguments: str) -> list[str]:
    return [sys.executable, os.fspath(PEERS / f"{name}.py"), *arguments]


def server(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mcp_server.cli", "--log-level", "warning", *arguments]


async def answer_of(command: Sequence[str]) -> Any:
    """The JSON that a process prints, once it has ended."""
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    async with asyncio.timeout(PEER_TIMEOUT_S):
        printed, complaint = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {complaint.decode(errors='replace')[-2000:]}")
    return json.loads(printed)


@contextmanager
def on_socket(command: Sequence[str], cpu: int | None = None) -> Iterator[socket.socket]:
    """The other end of the socket that a process has as stdin, kept on `cpu` if given; closing it ends the process."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = subprocess.Popen(command, stdin=theirs.fileno())
        if cpu is not None:
            os.sched_setaffinity(process.pid, {cpu})
        try:
            yield ours
        finally:
            ours.close()
            process.wait(10)


@contextmanager
def kept_on(cpu: int) -> Iterator[None]:
    """Keeps this thread, and those that it starts, on one processor."""
    free = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, free)


@contextmanager
def on_pipes(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process with pipes as stdin and stdout, ended with the block."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    stdin, stdout = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
    try:
        yield process
    finally:
        stdin.close()
        stdout.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@asynccontextmanager
async def listening(command: Sequence[str]) -> AsyncIterator[int]:
    """The port that a server prints on stdout or names in a log line on stderr, once it listens."""
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    stdout = cast("asyncio.StreamReader", process.stdout)
    try:
        while True:
            line = (await stdout.readline()).decode().strip()
            if line.isdigit():
                yield int(line)
                break
            if '"server.listening"' in line:
                yield int(json.loads(line)["url"].rsplit(":", 1)[1].split("/")[0])
                break
            if not line:
                raise RuntimeError(f"{' '.join(command)} ended before it listened")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def descendants(pid: int) -> list[int]:
    """Every process below one, by what /proc says of their parents."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parent = int(Path("/proc", entry, "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(parent, []).append(int(entry))
    found = [pid]
    for above in found:
        found.extend(children.get(above, ()))
    return found[1:]


def own_bytes(pid: int) -> int:
    """What a process shares with no other (USS)."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as lines:
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def resident_bytes(pid: int, field: str = "VmRSS") -> int:
    """``VmRSS`` now, ``VmHWM`` the most there was."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


_HELD = ("AnonPages:", "Shmem:", "SUnreclaim:", "KernelStack:", "PageTables:", "Percpu:")


def held_bytes() -> int:
    """Memory that processes hold, and the kernel for them. What is free also tells of what ended a moment ago."""
    with open("/proc/meminfo", encoding="ascii") as lines:
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(_HELD))
