"""Output: how fast it comes through, and what a flood of it costs the server."""

from __future__ import annotations

import asyncio
import os
import time
from typing import cast

from benchmarks import shaping
from benchmarks.effort import Effort
from benchmarks.engines import BARE, service
from benchmarks.jsonlines import JsonLines
from benchmarks.measure import Subject, one, side_by_side
from benchmarks.processes import on_pipes, resident_bytes, server
from benchmarks.results import Goal, Row, Section, Unit
from mcp_server.engine.local import LocalEngine
from mcp_server.model import Conversation, RunCall
from mcp_server.sandbox.cell import Spawned
from mcp_server.service import Service
from mcp_server.worker import frames

MIB = 1024 * 1024

PRINT_LOOP = "for number in range({count}):\n    print('line', number)"
ONE_WRITE = "import sys\nn = sys.stdout.write('{line}\\n' * {count})"
LINE = "2026-01-05 12:00:00 INFO worker.3 step 1234 finished in 0.123 s"


def programs(effort: Effort) -> dict[str, tuple[str, int, float]]:
    """Code, the bytes that it prints, and the share of the bare loop's speed that is asked for."""
    lines = effort.of(300_000, 100_000)
    writes = effort.of(256, 64) * MIB // (len(LINE) + 1)
    printed = sum(len(f"line {number}\n") for number in range(lines))
    return {
        "a print loop": (PRINT_LOOP.format(count=lines), printed, 0.9),
        "one big write": (ONE_WRITE.format(line=LINE, count=writes), writes * (len(LINE) + 1), 0.7),
    }


async def throughput(effort: Effort) -> Section:
    """The same code in the same kind of worker: into a report, and into a bare loop of reads."""
    rows = []
    async with service(preload=BARE) as served:
        reader = await BareReader.start(served)
        for name, (code, size, share) in programs(effort).items():
            subjects: dict[str, Subject] = {"report": reporting(served, code, size), "bare": reader.reading(code, size)}
            seen = await side_by_side(subjects, effort.of(9, 2), warm_up=1)
            rows.append(
                Row(
                    f"stdout of {name}, into a report",
                    Unit.THROUGHPUT,
                    seen["report"],
                    Goal(least_times=share),
                    {"bare read loop": seen["bare"]},
                    f"{size / 1e6:,.0f} MB",
                )
            )
        reader.close()
    return Section("Streaming", rows)


def reporting(served: Service, code: str, size: int) -> Subject:
    """Bytes in a second, through the service, until the report is there."""

    async def subject() -> float:
        began = time.perf_counter()
        report = await served.run(RunCall(Conversation("bench"), code, wait_s=600))
        took = time.perf_counter() - began
        record = report.record
        if record["status"] != "ok" or record["stdout"]["total_bytes"] != size:
            raise RuntimeError(f"{size} bytes were printed, and the report says: {record}")
        return size / took

    return subject


class BareReader:
    """A worker of the same cell, driven by hand, whose stdout is read and thrown away in a plain loop."""

    def __init__(self, worker: Spawned) -> None:
        self._worker = worker
        self._runs = 0

    @classmethod
    async def start(cls, served: Service) -> BareReader:
        engine = cast("LocalEngine", served._engine)
        cell = await engine._cells.serving("sbx_reader")
        worker = await cell.spawn("sbx_reader", lambda _exit: None, "reader")
        worker.control.setblocking(True)
        os.set_blocking(worker.stdout_fd, True)
        reader = cls(worker)
        reader._send(frames.INIT, {"cwd": cell.work_dir("sbx_reader"), "envs": {}})
        reader._receive(frames.READY)
        return reader

    def reading(self, code: str, size: int) -> Subject:
        async def subject() -> float:
            return await asyncio.to_thread(self._read, code, size)

        return subject

    def close(self) -> None:
        self._worker.control.close()
        for fd in (self._worker.stdout_fd, self._worker.stderr_fd, self._worker.pidfd):
            os.close(fd)

    def _read(self, code: str, size: int) -> float:
        began = time.perf_counter()
        self._runs += 1
        self._send(frames.RUN, {"run": self._runs, "envs": {}}, code.encode())
        left = size
        while left > 0:
            left -= len(os.read(self._worker.stdout_fd, 256 * 1024))
        self._receive(frames.END)
        return size / (time.perf_counter() - began)

    def _send(self, kind: int, header: dict[str, object], body: bytes = b"") -> None:
        self._worker.control.sendall(frames.encode(frames.Frame(kind, header, body)))

    def _receive(self, kind: int) -> None:
        decoder = frames.Decoder()
        while not (done := decoder.feed(self._worker.control.recv(65536))):
            pass
        if done[-1].kind != kind:
            raise RuntimeError(f"the worker answered {done}")


FLOOD = """
block = b"".join(b"line %07d of a flood that nobody can read\\n" % number for number in range(24_576))
import os
for _ in range({times}):
    left = memoryview(block)
    while left:
        left = left[os.write(1, left):]
"""
FLOOD_BLOCK_BYTES = 24_576 * len("line 0000000 of a flood that nobody can read\n")


async def flood(effort: Effort) -> Section:
    """A gigabyte in one run through the real server over stdio, and what the server's memory grows by."""
    size = effort.of(1024, 128) * MIB
    times = size // FLOOD_BLOCK_BYTES
    with on_pipes(server("--preload", "")) as process:
        wire = JsonLines(process)
        wire.shake_hands()
        wire.run_code("print('ready')\n'x' * 100")
        before = resident_bytes(process.pid)
        began = time.perf_counter()
        record = wire.run_code(FLOOD.format(times=times), wait=600)
        took = time.perf_counter() - began
        grown = resident_bytes(process.pid, "VmHWM") - before
    written = times * FLOOD_BLOCK_BYTES
    if record["status"] != "ok" or record["stdout"]["total_bytes"] != written:
        raise RuntimeError(f"{written} bytes were printed, and the report says: {record}")
    note = f"{written / 2**20:,.0f} MiB in one run, report right"
    return Section(
        "A flood over stdio MCP",
        [
            Row("the server's memory grows by", Unit.BYTES, one(float(grown)), Goal(most=16 * MIB), note=note),
            Row("its throughput, the report included", Unit.THROUGHPUT, one(written / took)),
        ],
    )


WHOLE_GIGABYTES = ("log lines", "one endless line", "carriage returns alone")
"""Whose memory is of interest; the others are as long as they are fast."""


async def shaped(effort: Effort) -> Section:
    """Shaping alone, beside the loop that reads and does nothing; each kind of output in a process of its own."""
    rows = []
    for name in shaping.SOURCES if not effort.quick else WHOLE_GIGABYTES:
        size = effort.of(1024 if name in WHOLE_GIGABYTES else 64, 64) * MIB
        seen = await asyncio.to_thread(shaping.measure_apart, name, size)
        goal = Goal(least=600e6) if name == "log lines" else Goal()
        shaped_rate, bare_rate = seen["bytes"] / seen["shaped_s"], seen["bytes"] / seen["bare_s"]
        rows.append(Row(f"shaping {name}", Unit.THROUGHPUT, one(shaped_rate), goal, {"read only": one(bare_rate)}))
        rows.append(
            Row(
                f"memory for {size // MIB} MiB of {name}", Unit.BYTES, one(seen["grown_mib"] * MIB), Goal(most=16 * MIB)
            )
        )
    return Section("Shaping", rows)
