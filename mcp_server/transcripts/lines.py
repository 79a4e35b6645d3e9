"""The lines of a transcript: JSON objects told apart by `event`, the first of which names the format's version.

What code, output and names hold may be any text, also halves of characters: the file is plain ASCII, with escapes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from mcp_server.arguments import Text
from mcp_server.errors import SetupFailed

VERSION = 1

MAX_LINE_BYTES = 256 * 1024 * 1024
"""The largest report and the largest code, each character in JSON's longest spelling, and as much again."""


class _Line(BaseModel):
    """Fields that are not known are passed over: a later version may add some."""

    model_config = ConfigDict(frozen=True)

    def encode(self) -> bytes:
        return json.dumps(self.model_dump(), separators=(",", ":")).encode("ascii") + b"\n"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class _Event(_Line):
    at: str = Field(default_factory=now)


class Header(_Event):
    """The first line. ``conversation`` is its key as the server knew it; the defaults are of the settings in force."""

    event: Literal["transcript"] = "transcript"
    version: int
    server: str
    conversation: Text
    principal: Text = ""
    timeout_s: float
    max_output_chars: int


class ContextCreated(_Event):
    """A value of `envs` is null where it was left out."""

    event: Literal["context_created"] = "context_created"
    context_id: str
    cwd: Text
    asked_cwd: Text = ""
    envs: dict[Text, Text | None] = Field(default_factory=dict)
    default: bool = False


class ContextDeleted(_Event):
    event: Literal["context_deleted"] = "context_deleted"
    context_id: str


class RunQueued(_Event):
    """A call with code, as it was asked; null: the setting's default. `streamed`: its output went out unshaped."""

    event: Literal["run"] = "run"
    context_id: str
    run: int
    code: Text
    timeout_s: float | None = None
    wait_s: float | None = None
    max_output_chars: int | None = None
    interrupt: bool = False
    envs: dict[Text, Text | None] = Field(default_factory=dict)
    streamed: bool = False


class RunBegan(_Event):
    event: Literal["began"] = "began"
    context_id: str
    run: int


class Failure(_Line):
    name: Text
    message: Text


class RunEnded(_Event):
    event: Literal["ended"] = "ended"
    context_id: str
    run: int
    status: str
    state: str
    elapsed_s: float
    error: Failure | None = None
    exit_code: int | None = None
    signal: int | None = None


class RunFailed(_Event):
    """It could not be carried out."""

    event: Literal["failed"] = "failed"
    context_id: str
    run: int
    reason: Text


class Image(_Line):
    mime: str
    size_bytes: int
    sha256: str


class ReportGiven(_Event):
    """What a call returned: `record` is the machine record of its `_meta`."""

    event: Literal["report"] = "report"
    context_id: str
    run: int
    record: dict[str, Any]
    text: Text
    images: tuple[Image, ...] = ()


class LinesLost(_Event):
    """So many lines before this one could not be written."""

    event: Literal["lost"] = "lost"
    lines: int


Line = Annotated[
    Header | ContextCreated | ContextDeleted | RunQueued | RunBegan | RunEnded | RunFailed | ReportGiven | LinesLost,
    Field(discriminator="event"),
]

_LINE: TypeAdapter[Line] = TypeAdapter(Line)


@dataclass(frozen=True, slots=True)
class Transcript:
    """``torn``: the last line has no end, as where its server was killed, and is left out."""

    header: Header
    lines: tuple[Line, ...]
    torn: bool = False


def read(path: Path) -> Transcript:
    """Raises SetupFailed, in one line that names the file and the line, for whatever is no transcript."""
    try:
        with path.open("rb") as file:
            raw = list(iter(lambda: file.readline(MAX_LINE_BYTES), b""))
    except OSError as error:
        raise SetupFailed(f"Cannot read {path}: {error.strerror}.") from None
    torn = bool(raw) and not raw[-1].endswith(b"\n")
    lines = list(_parsed(path, raw[:-1] if torn else raw))
    if not lines or not isinstance(lines[0], Header):
        raise SetupFailed(f"{path} is no transcript: its first line does not say so.")
    return Transcript(lines[0], tuple(lines[1:]), torn)


def _parsed(path: Path, raw: list[bytes]) -> Iterator[Line]:
    for number, data in enumerate(raw, start=1):
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            raise SetupFailed(f"{path} is no transcript: line {number} is no JSON.") from None
        if isinstance(value, dict) and value.get("event") == "transcript" and value.get("version") != VERSION:
            raise SetupFailed(
                f"{path} is of version {str(value.get('version'))[:20]!r}; this program reads version {VERSION}."
            )
        try:
            yield _LINE.validate_python(value)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in fault["loc"]) or "event"
            raise SetupFailed(f"{path} is no transcript: line {number}, {where}: {fault['msg']}.") from None
