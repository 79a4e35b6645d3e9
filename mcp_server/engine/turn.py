"""What a worker may say, and when: frames in, events out. Pure.

    phase      frame      next phase   event
    STARTING   READY      IDLE         Ready
    STARTING   REFUSED    REFUSED      Refused
    RUNNING    DISPLAY    RUNNING      DisplayChunk
    RUNNING    END        IDLE         Ended

Any other frame, or one whose header is not of the documented shape, is a `ProtocolViolation`: the worker shares its
process with the user's code, so a forged frame is expected, and can only be about that code's own context.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, TypeVar

from mcp_server.errors import ProtocolViolation
from mcp_server.model import DisplayChunk, ErrorInfo, Representation
from mcp_server.worker import frames
from mcp_server.worker.frames import Frame

MAX_TRACEBACK_CHARS = 512 * 1024
"""The worker caps its tracebacks at 256 KiB; what is longer was not made by our code."""

MAX_PARTS = 64
"""A mimebundle has a handful of forms; the cap bounds what one frame can make the host build."""


class Phase(Enum):
    STARTING = auto()
    IDLE = auto()
    RUNNING = auto()
    REFUSED = auto()


LEGAL: Mapping[tuple[Phase, int], Phase] = {
    (Phase.STARTING, frames.READY): Phase.IDLE,
    (Phase.STARTING, frames.REFUSED): Phase.REFUSED,
    (Phase.RUNNING, frames.DISPLAY): Phase.RUNNING,
    (Phase.RUNNING, frames.END): Phase.IDLE,
}


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker stands in its directory and takes runs."""

    cwd: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The worker cannot start as asked; the message is for the caller."""

    message: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The code ran to its end. ``error`` is None where it succeeded; ``exit_code`` where it called `exit`."""

    error: ErrorInfo | None
    exit_code: int | None


Event = Ready | Refused | DisplayChunk | Ended


class Turn:
    """Follows one worker's side of the alternation: one request, any number of events, exactly one end."""

    __slots__ = ("_run", "phase")

    def __init__(self) -> None:
        self.phase = Phase.STARTING
        self._run = 0

    def begin(self, run: int) -> None:
        """Note that RUN is being sent. Raises RuntimeError out of turn: that is the host's own mistake."""
        if self.phase is not Phase.IDLE:
            raise RuntimeError(f"a run cannot begin while the worker is {self.phase.name.lower()}")
        self.phase = Phase.RUNNING
        self._run = run

    def receive(self, frame: Frame) -> Event:
        """The event that a frame means. Raises ProtocolViolation."""
        phase = LEGAL.get((self.phase, frame.kind))
        if phase is None:
            raise ProtocolViolation(f"frame kind {frame.kind} while {self.phase.name.lower()}")
        event = self._read(frame)
        self.phase = phase
        return event

    def _read(self, frame: Frame) -> Event:
        header = frame.header
        if frame.kind == frames.READY:
            return Ready(cwd=_field(header, "cwd", str))
        if frame.kind == frames.REFUSED:
            return Refused(message=_field(header, "message", str)[:2000])
        if frame.kind == frames.DISPLAY:
            return _display(frame)
        return self._end(header)

    def _end(self, header: Mapping[str, Any]) -> Ended:
        run = _field(header, "run", int)
        if run != self._run:
            raise ProtocolViolation(f"the end of run {run} while run {self._run} is on")
        exit_code = header.get("exit_code")
        if exit_code is not None:
            exit_code = _field(header, "exit_code", int)
        return Ended(error=_error(header.get("error")), exit_code=exit_code)


def _display(frame: Frame) -> DisplayChunk:
    described = _field(frame.header, "parts", list)
    if len(described) > MAX_PARTS:
        raise ProtocolViolation(f"{len(described)} parts in one display")
    parts: list[Representation] = []
    start = 0
    for part in described:
        if not isinstance(part, dict):
            raise ProtocolViolation("a display's part is not an object")
        end = start + _size(part, "bytes")
        if end > len(frame.body):
            raise ProtocolViolation("a display's parts are longer than its body")
        parts.append(
            Representation(
                mime=_field(part, "mime", str)[:200],
                data=frame.body[start:end],
                alt=_field(part, "alt", str)[:500],
                original_bytes=_size(part, "original"),
            )
        )
        start = end
    if start != len(frame.body):
        raise ProtocolViolation("a display's body is longer than its parts")
    return DisplayChunk(is_result=_field(frame.header, "is_result", bool), representations=tuple(parts))


def _error(value: object) -> ErrorInfo | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ProtocolViolation("an error is not an object")
    return ErrorInfo(
        name=_field(value, "name", str)[:500],
        message=_field(value, "message", str)[:MAX_TRACEBACK_CHARS],
        traceback=_field(value, "traceback", str)[:MAX_TRACEBACK_CHARS],
    )


T = TypeVar("T")


def _field(header: Mapping[str, Any], name: str, kind: type[T]) -> T:
    value = header.get(name)
    if type(value) is not kind:  # a bool is no int here, and JSON makes no other subclasses
        raise ProtocolViolation(f"field {name!r} is not {kind.__name__}")
    return value


def _size(header: Mapping[str, Any], name: str) -> int:
    value = _field(header, name, int)
    if value < 0:
        raise ProtocolViolation(f"field {name!r} is negative")
    return value
