"""Our extension beside the plain protocol: one socket that carries many runs, raw output and whole outcomes. Pure.

Each WebSocket message is binary:

    kind (1 byte) | header length (u32, big endian) | header (JSON object) | body (bytes)

`call` numbers, chosen by the client and never used twice on a socket, say what a message is about. A call of CREATE or
LISTEN stays open as the channel of what its context prints between runs.

    client → server   CREATE     {"call", "sandbox", "cwd", "envs"}
                      LISTEN     {"call", "sandbox", "context"}         of a context made on an earlier socket
                      RUN        {"call", "sandbox", "context", "timeout", "envs"}     body: the code, surrogates passed
                      STOP       {"call"}                                    of a RUN: interrupt it, or never begin it
                      DELETE     {"call", "sandbox", "context"}
                      CREDIT     {"call", "bytes"}                           so much of its output has been taken
    server → client   OUTPUT     {"call", "stream"}                          body: raw bytes
                      DISPLAY    {"call", "is_result", "parts": [{"mime", "bytes", "alt", "original"}]} body: data
                      DONE       {"call"}                                    answers LISTEN, DELETE, CREATE; of CREATE
                                 with {"context", "cwd"}
                      END        {"call", …outcome}                          answers RUN
                      FAILED     {"call", "error", "message"}                answers any of the four

Output flows by credit, for each call on its own, so that a reader who is slow in one holds back no other: the server
sends while a call's credit is above zero, and each chunk takes its size. It begins with `WINDOW_BYTES`.
The socket's end stops every run on it; contexts stay. Version and name are negotiated as a WebSocket subprotocol.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Any, TypeVar

from mcp_server.errors import (
    CallerError,
    CodeInterpreterError,
    EngineUnavailable,
    InternalError,
    InvalidArgument,
    LimitReached,
    ProtocolViolation,
    UnknownContext,
    UnknownSandbox,
)
from mcp_server.model import (
    NO_ENVS,
    Chunk,
    DisplayChunk,
    ErrorInfo,
    Outcome,
    OutputChunk,
    Representation,
    State,
    Status,
    Stream,
)
from mcp_server.toolbox.wire import DEFAULT_CONTEXT, ExecuteRequest

SUBPROTOCOL = "code-interpreter-mux.v1"
VERSION = 1

WINDOW_BYTES = 1024 * 1024
"""Output that may be under way for one call. At 100 MB/s and 5 ms there and back, half of it is in use."""

MAX_MUX_BYTES = 48 * 1024 * 1024
"""Of one message: a worker's largest frame (32 MiB of data and 4 MiB of header) with room to spare."""

GRANT_BYTES = WINDOW_BYTES // 4
"""Credit is given back in pieces of this size: often enough that output flows on, seldom enough to cost little."""

MUX_PATH = "x/mux"
INFO_PATH = "x/info"

MUX_OPTIONS: Mapping[str, Any] = MappingProxyType({"max_size": MAX_MUX_BYTES, "subprotocols": [SUBPROTOCOL]})
"""For the websockets library's clients."""

LOST = "The connection to the toolbox server was lost; code that was running on it was interrupted there."

_HEAD = struct.Struct(">BI")

_to_json = json.JSONEncoder(separators=(",", ":")).encode


class Kind(IntEnum):
    CREATE = 1
    LISTEN = 2
    RUN = 3
    STOP = 4
    DELETE = 5
    CREDIT = 6
    OUTPUT = 16
    DISPLAY = 17
    DONE = 18
    END = 19
    FAILED = 20


@dataclass(frozen=True, slots=True)
class Message:
    """One message. ``call`` is its header's."""

    kind: Kind
    call: int
    header: Mapping[str, Any] = field(default_factory=dict)
    body: bytes = b""


def encode(message: Message) -> bytes:
    header = _to_json({"call": message.call, **message.header}).encode("ascii")
    return b"".join((_HEAD.pack(message.kind, len(header)), header, message.body))


def decode(data: str | bytes) -> Message:
    """Raises ProtocolViolation for anything that is no message."""
    if isinstance(data, str) or len(data) < _HEAD.size:
        raise ProtocolViolation("a message is not binary, or too short")
    kind, length = _HEAD.unpack_from(data)
    body_at = _HEAD.size + length
    if body_at > len(data):
        raise ProtocolViolation("a message is shorter than its header")
    try:
        header = json.loads(data[_HEAD.size : body_at].decode("utf-8", "surrogatepass"))
        known = Kind(kind)
    except (ValueError, RecursionError) as error:
        raise ProtocolViolation("a message's kind or header cannot be read") from error
    if not isinstance(header, dict):
        raise ProtocolViolation("a message's header is no object")
    return Message(known, entry(header, "call", int), header, data[body_at:])


@dataclass(frozen=True, slots=True)
class RunOrder:
    """What to run where. ``context_id`` is the server's; ``timeout_s`` None means the server's default, 0 none."""

    sandbox_id: str
    context_id: str
    code: str
    timeout_s: float | None = None
    envs: Mapping[str, str] = field(default_factory=lambda: NO_ENVS)

    @classmethod
    def of(cls, sandbox_id: str, request: ExecuteRequest) -> RunOrder:
        """What the plain protocol's first message asks for."""
        context_id = request.context_id or DEFAULT_CONTEXT
        return cls(sandbox_id, context_id, request.code, request.timeout_s, request.envs)

    def message(self, call: int) -> Message:
        header = {
            "sandbox": self.sandbox_id,
            "context": self.context_id,
            "timeout": self.timeout_s,
            "envs": dict(self.envs),
        }
        return Message(Kind.RUN, call, header, self.code.encode("utf-8", "surrogatepass"))


T = TypeVar("T")


def entry(header: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """A field of a header. Raises ProtocolViolation where it is missing or of another type."""
    value = header.get(name)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ProtocolViolation(f"field {name!r} is not {kind.__name__}")
    return value


def text_map(header: Mapping[str, Any], name: str) -> dict[str, str]:
    """A field that maps text to text. Raises ProtocolViolation."""
    values = entry(header, name, dict)
    if not all(isinstance(text, str) for text in values.values()):
        raise ProtocolViolation(f"field {name!r} does not map text to text")
    return values


# -- chunks -----------------------------------------------------------------------------------------------------------


def chunk_message(call: int, chunk: Chunk) -> Message:
    if isinstance(chunk, OutputChunk):
        return Message(Kind.OUTPUT, call, {"stream": chunk.stream.value}, chunk.data)
    parts = [
        {"mime": part.mime, "bytes": len(part.data), "alt": part.alt, "original": part.original_bytes}
        for part in chunk.representations
    ]
    body = b"".join(part.data for part in chunk.representations)
    return Message(Kind.DISPLAY, call, {"is_result": chunk.is_result, "parts": parts}, body)


def chunk_of(message: Message) -> Chunk:
    """The chunk of an OUTPUT or DISPLAY. Raises ProtocolViolation."""
    if message.kind is Kind.OUTPUT:
        return OutputChunk(_member(Stream, message.header, "stream"), message.body)
    forms: list[Representation] = []
    start = 0
    for part in entry(message.header, "parts", list):
        if not isinstance(part, dict):
            raise ProtocolViolation("a display's part is no object")
        end = start + entry(part, "bytes", int)
        if not start <= end <= len(message.body):
            raise ProtocolViolation("a display's parts do not fit its body")
        data = message.body[start:end]
        forms.append(
            Representation(entry(part, "mime", str), data, entry(part, "alt", str), entry(part, "original", int))
        )
        start = end
    return DisplayChunk(entry(message.header, "is_result", bool), tuple(forms))


def cost(message: Message) -> int:
    """What a chunk takes of its call's credit: never nothing, so that no flood is free."""
    return max(1, len(message.body))


# -- outcomes ---------------------------------------------------------------------------------------------------------


def outcome_fields(outcome: Outcome) -> dict[str, Any]:
    error = outcome.error
    return {
        "status": outcome.status.value,
        "state": outcome.state.value,
        "elapsed_s": outcome.elapsed_s,
        "error": {"name": error.name, "message": error.message, "traceback": error.traceback} if error else None,
        "exit_code": outcome.exit_code,
        "signal": outcome.signal,
        "lost_before": outcome.lost_before,
        "detail": outcome.detail,
    }


def outcome_of(header: Mapping[str, Any]) -> Outcome:
    """The outcome that an END tells. Raises ProtocolViolation."""
    status = _member(Status, header, "status")
    if not status.ended:
        raise ProtocolViolation(f"a run cannot end as {status}")
    error = header.get("error")
    if error is not None and not isinstance(error, dict):
        raise ProtocolViolation("an error is no object")
    return Outcome(
        status=status,
        state=_member(State, header, "state"),
        elapsed_s=float(header["elapsed_s"]) if isinstance(header.get("elapsed_s"), int | float) else 0.0,
        error=ErrorInfo(entry(error, "name", str), entry(error, "message", str), entry(error, "traceback", str))
        if error is not None
        else None,
        exit_code=_number_or_none(header, "exit_code"),
        signal=_number_or_none(header, "signal"),
        lost_before=entry(header, "lost_before", str),
        detail=entry(header, "detail", str),
    )


E = TypeVar("E", Stream, Status, State)


def _member(kind: type[E], header: Mapping[str, Any], name: str) -> E:
    value = entry(header, name, str)
    try:
        return kind(value)
    except ValueError:
        raise ProtocolViolation(f"field {name!r} is {value[:40]!r}") from None


def _number_or_none(header: Mapping[str, Any], name: str) -> int | None:
    return None if header.get(name) is None else entry(header, name, int)


# -- errors -----------------------------------------------------------------------------------------------------------


_NAMED: Mapping[str, type[CodeInterpreterError]] = {
    kind.__name__: kind
    for kind in (InvalidArgument, LimitReached, EngineUnavailable, CallerError, InternalError, UnknownSandbox)
}


def failure_fields(error: CallerError | InternalError) -> dict[str, Any]:
    """Of the error's most special class that the other side knows."""
    name = next(kind.__name__ for kind in type(error).__mro__ if kind is UnknownContext or kind.__name__ in _NAMED)
    return {"error": name, "message": str(error)}


def failure_of(header: Mapping[str, Any], context_id: str) -> CodeInterpreterError:
    """The error that a FAILED tells, of a call about `context_id`."""
    name = entry(header, "error", str)
    if name == UnknownContext.__name__:
        return UnknownContext(context_id)
    return _NAMED.get(name, InternalError)(entry(header, "message", str))
