"""How fast output is shaped, and in how much memory: prints a Markdown table.

    python benchmarks/shaping.py [--mib 1024]

Each kind of output runs in a process of its own, so that its peak memory is its own. "read only" is the same loop in
the same process without the shaping. Times are of the CPU, so that a busy machine matters less.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from mcp_server.shaping.stream import StreamShaper

CHUNK_BYTES = 64 * 1024
"""What a pipe of the usual size gives at most in one read."""

WINDOW_CHARS = 9_000
MIB = 1024 * 1024


def log_lines() -> bytes:
    rng = random.Random(1)
    lines = (
        f"2026-01-05 12:{n // 60 % 60:02}:{n % 60:02} INFO  worker.{n % 8} step {n} finished in {rng.random():.3f} s\n"
        for n in range(40_000)
    )
    return "".join(lines).encode()


def progress_bar() -> bytes:
    states = (f"\r{n:3}%|{'█' * (n // 4):25}| {n * 37}/3700 [00:{n % 60:02}<00:07, 41.3it/s]" for n in range(101))
    return "".join(states).encode()


def unicode_lines() -> bytes:
    return "".join(f"{n}: größer als 漢字 und кириллица 🚀\n" for n in range(20_000)).encode()


SOURCES: dict[str, Callable[[], bytes]] = {
    "log lines": log_lines,
    "one line over and over": lambda: b"y\n" * CHUNK_BYTES,
    "one endless line": lambda: b"0123456789abcdef," * CHUNK_BYTES,
    "carriage returns alone": lambda: b"\r" * CHUNK_BYTES,
    "a progress bar": progress_bar,
    "a progress bar with an emoji": lambda: progress_bar().replace("█".encode(), "🚀".encode(), 1),
    "coloured lines": lambda: log_lines().replace(b"INFO", b"\x1b[32mINFO\x1b[0m"),
    "text of many scripts": unicode_lines,
    "random bytes": lambda: random.Random(2).randbytes(4 * MIB),
}


def write_source(name: str, file: IO[bytes]) -> None:
    """Some 4 MiB of the source, in whole chunks."""
    source = SOURCES[name]()
    whole = source * (4 * MIB // len(source) + 1)
    file.write(whole[: len(whole) // CHUNK_BYTES * CHUNK_BYTES])
    file.flush()


def read_over_and_over(path: str, total: int) -> Iterator[bytes]:
    """`total` bytes in chunks, read from a file that is in the page cache, from its start again at its end."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for _ in range(total // CHUNK_BYTES):
            chunk = os.read(descriptor, CHUNK_BYTES)
            if not chunk:
                os.lseek(descriptor, 0, os.SEEK_SET)
                chunk = os.read(descriptor, CHUNK_BYTES)
            yield chunk
    finally:
        os.close(descriptor)


def measure(path: str, total: int) -> dict[str, float]:
    """CPU seconds of the bare loop and of shaping, and by how many MiB the process's memory grew at most."""
    began = time.process_time()
    length = sum(map(len, read_over_and_over(path, total)))
    bare = time.process_time() - began
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak that VmHWM tells
    before = status_kib("VmRSS")
    shaper = StreamShaper(WINDOW_CHARS)
    began = time.process_time()
    for chunk in read_over_and_over(path, total):
        shaper.feed(chunk)
    shaped = shaper.finish()
    text = shaped.fit(WINDOW_CHARS).text
    seconds = time.process_time() - began
    if shaped.total_bytes != length or len(text) > WINDOW_CHARS:
        raise AssertionError(f"{shaped.total_bytes} of {length} bytes, {len(text)} characters")
    grown = (status_kib("VmHWM") - before) / 1024
    return {"bytes": length, "bare_s": bare, "shaped_s": seconds, "grown_mib": grown, "text_chars": len(text)}


def status_kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def measure_apart(name: str, total: int) -> dict[str, float]:
    """`measure` in a process that never held the source."""
    with tempfile.NamedTemporaryFile() as file:
        write_source(name, file)
        command = [sys.executable, __file__, "--measure", file.name, "--mib", str(total // MIB)]
        seen: dict[str, float] = json.loads(
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
        )
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024, help="of each kind of output (default: 1024)")
    parser.add_argument("--measure", metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.mib * MIB)))
        return
    print(f"{options.mib} MiB each, in chunks of {CHUNK_BYTES // 1024} KiB, window of {WINDOW_CHARS:,} characters\n")
    print("| output | shaped, MB/s | read only, MB/s | memory grown by, MiB | text, characters |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name in SOURCES:
        seen = measure_apart(name, options.mib * MIB)
        shaped, bare = (seen["bytes"] / seen[key] / 1e6 for key in ("shaped_s", "bare_s"))
        print(
            f"| {name} | {shaped:,.0f} | {bare:,.0f} | {seen['grown_mib']:.1f} | {seen['text_chars']:,} |", flush=True
        )


if __name__ == "__main__":
    main()
