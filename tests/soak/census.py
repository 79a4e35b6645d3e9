"""What a server and everything below it takes of the machine, as /proc says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.mcp.server_processes import descendants

MIB = 1024 * 1024

SEALED = "2"
"""Of `Seccomp:` in a process's status: a filter holds it, as it does every worker with a context."""


@dataclass(frozen=True, slots=True)
class Census:
    """Sizes in bytes. ``descendants_pss`` counts what processes share once; None where the kernel does not tell us."""

    server_rss: int
    server_descriptors: int
    server_threads: int
    processes: int
    descendants_pss: int | None


def take(pid: int) -> Census:
    below = descendants(pid)
    status = _status(pid)
    return Census(
        server_rss=int(status["VmRSS"].split()[0]) * 1024,
        server_descriptors=len(os.listdir(f"/proc/{pid}/fd")),
        server_threads=int(status["Threads"]),
        processes=len(below),
        descendants_pss=_pss(below),
    )


def workers(pid: int) -> Iterator[int]:
    """The processes that hold contexts: sealed children of one that is not, but for the first process of a room."""
    for below in descendants(pid):
        try:
            status = _status(below)
            parent = _status(int(status["PPid"]))
        except (FileNotFoundError, ProcessLookupError):
            continue
        if status["Seccomp"] == SEALED and parent["Seccomp"] != SEALED and status["Name"] != "room":
            yield below


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _pss(pids: list[int]) -> int | None:
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        except PermissionError:
            return None
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total
