"""The story that clients are put through says no to a client that keeps something from its model."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import pytest

from tests.clients.story import COLUMNS, Call, Model, Seen, shows_something

HANDLE = "ctx_2cG7vYbJm3nQ0tXwZk5LrA"
SCHEMA: dict[str, object] = {"required": ["code"], "properties": {"timeout": {"type": "number"}}}
TOOLS = dict.fromkeys(("run_code", "create_context", "list_contexts", "delete_context"), SCHEMA)


def png(pixels: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 100, 100, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


FIGURE = png(bytes(range(101)) * 100)

SHOWN = {
    1: Seen("ok · run 1 · 0.00 s\n3"),
    2: Seen("error · run 2 · variables kept\nNameError: name 'lap' is not defined"),
    3: Seen("ok · run 3 · 0.00 s\n60.47"),
    4: Seen("ok · run 4 · 0.40 s", (FIGURE,)),
    5: Seen("ok · run 5 · 0.10 s\nrow 0\n⟦4,000 lines left out: /outputs/run-5/stdout⟧"),
    6: Seen("ok · run 6 · 0.00 s\n5000"),
    7: Seen(f'{{"context_id": "{HANDLE}"}}'),
    8: Seen(f"ok · run 1 · {HANDLE}"),
    9: Seen(f"ok · run 2 · {HANDLE}\n42"),
    10: Seen("No context 'ctx_of_nobody'"),
    11: Seen("No context 'ctx_of_nobody'"),
    12: Seen("ok · run 7 · 0.00 s\n3"),
}
"""What a client that keeps nothing back gives of each call."""


def judged(give: Callable[[Call], Seen], tools: dict[str, dict[str, object]] = TOOLS) -> dict[str, str]:
    model = Model()
    model.offered(tools)
    seen = None
    while (call := model.reply(seen)) is not None:
        seen = give(call)
    return model.faults


def whole(call: Call) -> Seen:
    return SHOWN[int(call.id.removeprefix("call_"))]


def test_a_client_that_keeps_nothing_back_is_good_in_every_column() -> None:
    assert judged(whole) == dict.fromkeys(COLUMNS, "")


@pytest.mark.parametrize(
    ("number", "instead", "column"),
    [
        (2, Seen("An error occurred while running the tool."), "error"),
        (3, Seen("error · run 1 · NameError: name 'laps' is not defined"), "state"),
        (4, Seen("ok · run 4 · 0.40 s"), "image"),
        (4, Seen("ok · run 4 · 0.40 s", (png(bytes(10_100)),)), "image"),
        (5, Seen('["ok · run 5 · 0.10 s\\n/outputs/run-5/stdout","run://x/5/stdout"]'), "long"),
        (5, Seen(SHOWN[5].text, (), ("file",)), "long"),
        (9, Seen("error · run 1 · NameError: name 'laps' is not defined"), "handle"),
        (11, Seen(""), "error"),
        (12, Seen("ok · run 7 · 0.00 s\n6"), "state"),
    ],
)
def test_a_client_that_keeps_something_back_is_found_out(number: int, instead: Seen, column: str) -> None:
    faults = judged(lambda call: instead if call.id == f"call_{number}" else whole(call))
    assert faults[column]


def test_a_client_that_changes_the_schema_is_found_out() -> None:
    assert judged(whole, TOOLS | {"run_code": SCHEMA | {"required": ["code", "timeout"]}})["tools"]
    assert judged(whole, {"run_code": SCHEMA})["tools"]


def test_half_a_png_shows_nothing() -> None:
    assert shows_something(FIGURE)
    assert not shows_something(FIGURE[:-12])
    assert not shows_something(b"GIF89a")
