"""Memory is bounded by the window, never by the output."""

from __future__ import annotations

import gc
import random
import tracemalloc

import pytest

from mcp_server.shaping.stream import StreamShaper

CHUNK = 64 * 1024
WINDOW = 9_000
ALLOWED_BYTES = 16 * 1024 * 1024

FLOODS = {
    "lines": b"".join(b"%d some text on a line\n" % n for n in range(3_000)),
    "one endless line": b"0123456789 " * 6_000,
    "one line over and over": b"y\n" * 32_768,
    "carriage returns": b"\r" * CHUNK,
    "a bar redrawn": b"".join(b"\r%3d%%|%s|" % (n % 100, b"#" * (n % 50)) for n in range(1_500)),
    "colours": b"\x1b[31m\x1b[0m" * 2_000,
    "marks on one character": "\u0301".encode() * 32_768,
    "marks redrawn": ("\r" + "漢\u0301" * 700).encode() * 2,
    "a sequence that never ends": b"\x1b]0;" + b"x" * CHUNK,
    "cursor up and down": b"one\ntwo\n\x1b[2A" * 1_000,
    "random bytes": random.Random(3).randbytes(CHUNK),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_does_not_grow_memory(name: str) -> None:
    flood = FLOODS[name]
    gc.collect()
    tracemalloc.start()
    try:
        shaper = StreamShaper(WINDOW)
        for _ in range(12):
            shaper.feed(flood)
        shaper.last_line()
        once = tracemalloc.get_traced_memory()[1]
        for _ in range(24):
            shaper.feed(flood)
        shaped = shaper.finish()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert shaped.total_bytes == 36 * len(flood)
    assert len(shaped.fit(WINDOW).text) <= WINDOW
    assert peak < ALLOWED_BYTES
    assert peak < 2 * once + 2 * 1024 * 1024


def test_many_windows_do_not_add_up() -> None:
    shaper = StreamShaper(WINDOW)
    shaper.feed(FLOODS["lines"])
    shaper.cut()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(10):
            shaper.feed(FLOODS["lines"])
            shaper.cut()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 1024 * 1024
    finally:
        tracemalloc.stop()
