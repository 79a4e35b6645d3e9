"""What every client is put through: a model's work with the interpreter, and what it must be given at each step.

The model is a script and needs no key. Each client hands it results in its own way; a client's file turns what the
model is given into `Seen`, and that alone is judged. Runs in any of the clients' environments: standard library only.
"""

from __future__ import annotations

import asyncio
import json
import re
import struct
import sys
import uuid
import zlib
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

COLUMNS = ("tools", "state", "error", "image", "long", "handle")
"""What is judged, in the order of the table that `make clients` prints."""

ANSWER = "The mean is 60.47 s."

LONG = 'for number in range(5000): print("row", number)\n_ = open("laps.csv", "w").write("61.2")'
PLOT = "import matplotlib.pyplot as plt\nplt.figure(figsize=(4, 2))\n_ = plt.plot(laps)"


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call of the model's. ``id`` is unique within one story."""

    id: str
    tool: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the model is given of one result. ``other``: the kinds of what is neither text nor an image."""

    text: str
    images: tuple[bytes, ...] = ()
    other: tuple[str, ...] = ()


Turns: TypeAlias = Generator[tuple[str, Mapping[str, Any]], Seen, None]


class Model:
    """A scripted model. ``faults`` says for each column what was wrong, or "" where nothing was."""

    def __init__(self, story: Callable[[dict[str, str]], Turns] | None = None) -> None:
        self.faults: dict[str, str] = {}
        self._turns = (story or whole_story)(self.faults)
        self._calls = 0
        self._last: Call | None = None
        self._started = False

    def offered(self, schemas: Mapping[str, Mapping[str, Any]]) -> None:
        """Take note of the tools that the model is told of, with the JSON Schema of each one's arguments."""
        missing = {"run_code", "create_context", "list_contexts", "delete_context"} - set(schemas)
        if missing:
            return _judge(self.faults, "tools", False, f"no {sorted(missing)}")
        schema = schemas["run_code"]
        required, properties = schema.get("required", []), schema["properties"]
        _judge(self.faults, "tools", required == ["code"], f"required: {required}")
        _judge(self.faults, "tools", properties["timeout"].get("type") == "number", f"timeout: {properties['timeout']}")
        return None

    def reply(self, seen: Seen | None) -> Call | None:
        """The next call, given what came of the last one; None where the model is done and says `ANSWER`."""
        try:
            tool, arguments = self._turns.send(seen if self._started else None)  # type: ignore[arg-type]
        except StopIteration:
            return None
        self._started = True
        self._calls += 1
        return Call(f"call_{self._calls}", tool, arguments)


def whole_story(faults: dict[str, str]) -> Turns:
    """A model that computes, errs, mends its error, plots, prints too much, and opens a second context."""
    seen = yield _run("laps = [61.2, 59.8, 60.4]\nlen(laps)")
    _judge(faults, "state", seen.text.startswith("ok · run 1 · "), seen.text)

    seen = yield _run("mean = sum(laps) / len(lap)")
    named = "NameError: name 'lap' is not defined" in seen.text and "variables kept" in seen.text
    _judge(faults, "error", named, seen.text)

    seen = yield _run("round(sum(laps) / len(laps), 2)")
    _judge(faults, "error", "60.47" in seen.text, seen.text)
    _judge(faults, "state", "60.47" in seen.text and "run 3" in seen.text, seen.text)

    seen = yield _run(PLOT)
    _judge(faults, "image", len(seen.images) == 1, f"{len(seen.images)} images; {seen.text}")
    _judge(faults, "image", all(map(shows_something, seen.images)), "the image is no PNG that shows something")

    seen = yield _run(LONG)
    path = re.search(r"/outputs/run-\d+/stdout", seen.text)
    _judge(faults, "long", seen.text.startswith("ok · run 5 · ") and path is not None, seen.text)
    _judge(faults, "long", len(seen.text) < 12_000, f"{len(seen.text)} characters")
    # Model APIs take text and images as the result of a tool, and refuse a link to anything else.
    _judge(faults, "long", not seen.other, f"the model is given {seen.other}")
    if path is not None:
        seen = yield _run(f"sum(1 for _ in open({path[0]!r}))")
        _judge(faults, "long", "5000" in seen.text, seen.text)

    seen = yield "create_context", {}
    handle = re.search(r"ctx_[\w-]{22}", seen.text)
    _judge(faults, "handle", handle is not None, seen.text)
    if handle is not None:
        seen = yield _run("laps = 6", context_id=handle[0])
        seen = yield _run("laps * 7", context_id=handle[0])
        _judge(faults, "handle", "42" in seen.text and handle[0] in seen.text, seen.text)
    for _ in range(2):  # some frameworks end an agent whose tool refuses twice
        seen = yield _run("1", context_id="ctx_of_nobody")
        _judge(faults, "error", "No context 'ctx_of_nobody'" in seen.text, seen.text)
    seen = yield _run("len(laps)")
    _judge(faults, "state", re.search(r"^3$", seen.text, re.MULTILINE) is not None, seen.text)


def found_again(faults: dict[str, str]) -> Turns:
    """A later connection of the same conversation: the variables of `whole_story` are still there."""
    seen = yield _run("max(laps)")
    _judge(faults, "state", "61.2" in seen.text, f"a second connection: {seen.text}")


def shows_something(png: bytes) -> bool:
    """Whether these bytes are a whole PNG of some size with more than one colour in it."""
    if not png.startswith(b"\x89PNG\r\n\x1a\n"):
        return False
    position, pixels, ended = 8, b"", False
    while position < len(png) and not ended:
        (length,), kind = struct.unpack_from(">I", png, position), png[position + 4 : position + 8]
        if kind == b"IDAT":
            pixels += png[position + 8 : position + 8 + length]
        ended = kind == b"IEND"
        position += 12 + length
    width, height = struct.unpack_from(">II", png, 16)
    return ended and min(width, height) >= 100 and len(set(zlib.decompress(pixels))) > 10


def play(stdio: Callable[[Model], Awaitable[object]], http: Callable[[Model, str, str], Awaitable[object]]) -> None:
    """The command line of a client's file: `stdio FILE` or `http FILE URL`; what was judged goes to FILE, as JSON.

    ``stdio(model)`` lets a model work over a server of its own. ``http(model, url, conversation)`` does over one that
    runs; it is called twice, the second time with another connection.
    """
    transport, result, *url = sys.argv[1:]
    model = Model()
    if transport == "stdio":
        asyncio.run(_awaited(stdio(model)))
    else:
        conversation = f"{Path(sys.argv[0]).stem}-{uuid.uuid4()}"
        asyncio.run(_awaited(http(model, url[0], conversation)))
        later = Model(found_again)
        asyncio.run(_awaited(http(later, url[0], conversation)))
        _judge(model.faults, "state", "state" in later.faults, "the second connection asked nothing")
        _judge(model.faults, "state", not later.faults.get("state"), later.faults.get("state", ""))
    Path(result).write_text(json.dumps(model.faults))


async def _awaited(work: Awaitable[object]) -> None:
    await work


def _run(code: str, **arguments: object) -> tuple[str, Mapping[str, Any]]:
    return "run_code", {"code": code, **arguments}


def _judge(faults: dict[str, str], column: str, good: bool, otherwise: str) -> None:
    """Note the outcome of one check; a column's first fault stays."""
    if not faults.get(column):
        faults[column] = "" if good else otherwise[:2000] or "nothing was given"
