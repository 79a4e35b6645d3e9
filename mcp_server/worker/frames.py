"""The wire between host and worker: length-prefixed frames over a stream socket. Pure; both sides use it.

    frame  = kind (1 byte) | header length (u32, big endian) | body length (u32) | header (JSON object) | body (bytes)

    host → worker   INIT     {"cwd": str, "envs": {str: str}}              once, first
                    RUN      {"run": int, "envs": {str: str}}              body: the code, UTF-8 with surrogates passed
    worker → host   READY    {"cwd": str, "pid": int, "python": str}       answers INIT
                    REFUSED  {"message": str}                              answers INIT; the worker then exits
                    DISPLAY  {"is_result": bool, "parts": [{"mime": str, "bytes": int, "alt": str, "original": int}]}
                                                                           body: the parts' data, one after another
                    END      {"run": int, "status": "ok" | "error",
                              "error": {"name": str, "message": str, "traceback": str} | null,
                              "exit_code": int | null}                     exactly one answers each RUN

A peer is not trusted: lengths are capped before anything is allocated, and `engine.turn` checks what each frame says.
JSON is written in ASCII, so that lone surrogates pass.
"""

from __future__ import annotations

import builtins
import json
import struct
from collections.abc import Callable, Iterable
from typing import Any

# In the worker, user code may delete or replace builtins; what ends a run must not notice.
globals()["__builtins__"] = dict(vars(builtins))

# Behind `json.dumps`, whose way through Python's own code costs each worker 15 pages.
_json_pieces: Callable[[object, int], Iterable[str]] = json.encoder.c_make_encoder(  # type: ignore[attr-defined]
    None, None, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, True
)
_scan_json = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # the scanner in C, which needs no builtins

INIT = 1
RUN = 2
READY = 16
REFUSED = 17
DISPLAY = 18
END = 19

KINDS = frozenset((INIT, RUN, READY, REFUSED, DISPLAY, END))

PREFIX = struct.Struct(">BII")

MAX_HEADER_BYTES = 4 * 1024 * 1024
"""Room for an environment of 1 MiB or a traceback of 256 KiB, both escaped to ASCII."""

MAX_BODY_BYTES = 32 * 1024 * 1024
"""Room for code of 4 MiB and for ten images of the largest size that a report shows."""


class FrameError(ValueError):
    """Bytes that are no frame. The connection cannot be used further."""


class Frame:
    """One message: `kind` is a constant above, `header` a JSON object, `body` raw bytes."""

    __slots__ = ("kind", "header", "body")

    def __init__(self, kind: int, header: dict[str, Any], body: bytes = b"") -> None:
        self.kind = kind
        self.header = header
        self.body = body

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Frame):
            return NotImplemented
        return (self.kind, self.header, self.body) == (other.kind, other.header, other.body)

    def __repr__(self) -> str:
        return "Frame(%r, %r, %d bytes)" % (self.kind, self.header, len(self.body))


def encode(frame: Frame) -> bytes:
    """The frame as bytes. Raises FrameError where it is over a cap, ValueError where the header is not JSON."""
    header = _to_json(frame.header)
    _check(frame.kind, len(header), len(frame.body))
    return b"".join((PREFIX.pack(frame.kind, len(header), len(frame.body)), header, frame.body))


class Decoder:
    """Bytes in, frames out; any chunking gives the same frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Frames completed by `data`, in order. Raises FrameError at the first byte that cannot be right."""
        buffer = self._buffer
        if buffer:
            buffer += data
        whole = buffer or data
        done: list[Frame] = []
        start = 0
        while len(whole) - start >= PREFIX.size:
            kind, header_length, body_length = PREFIX.unpack_from(whole, start)
            _check(kind, header_length, body_length)
            header_at = start + PREFIX.size
            body_at = header_at + header_length
            end = body_at + body_length
            if len(whole) < end:
                break
            done.append(Frame(kind, _header(bytes(whole[header_at:body_at])), bytes(whole[body_at:end])))
            start = end
        if buffer:
            del buffer[:start]
        elif start < len(data):
            buffer += data[start:]
        return done


def _to_json(value: dict[str, Any]) -> bytes:
    return "".join(_json_pieces(value, 0)).encode("ascii")


def _check(kind: int, header_length: int, body_length: int) -> None:
    if kind not in KINDS:
        raise FrameError("unknown frame kind %d" % kind)
    if header_length > MAX_HEADER_BYTES:
        raise FrameError("header of %d bytes is over the cap of %d" % (header_length, MAX_HEADER_BYTES))
    if body_length > MAX_BODY_BYTES:
        raise FrameError("body of %d bytes is over the cap of %d" % (body_length, MAX_BODY_BYTES))


def _header(raw: bytes) -> dict[str, Any]:
    try:
        text = raw.decode("ascii").strip(" \t\r\n")
        header, end = _scan_json(text, 0)
    except (ValueError, StopIteration, RecursionError) as error:
        raise FrameError("header is not JSON: %s" % type(error).__name__) from error
    if end != len(text):
        raise FrameError("header is not JSON: more follows")
    if not isinstance(header, dict):
        raise FrameError("header is not an object")
    return header


# The wire between host and zygote: one JSON object in each packet of a SOCK_SEQPACKET pair, descriptors beside it.
#
#     host → builder  {"op": "build", …plan}                                     once; it then becomes the zygote
#     host → zygote   {"op": "begin", …plan}                                     once, first
#                     {"op": "prepare", "worker": int, "outputs": str}         + the worker's ends: control socket,
#                                                           stdout, stderr, and doors into its limits (`limits`);
#                                                           outputs are for its room, where they can be already
#                     {"op": "house", "worker": int, "sandbox": str, "outputs": str, "directory": str}
#                     {"op": "destroy", "worker": int}
#                     {"op": "reach", "sandbox": str}
#                     {"op": "forget", "sandbox": str}                           its workers are destroyed already
#     zygote → host   {"op": "alive"}                    first                   + pidfd of the zygote
#                     {"op": "outputs"}                  before ready            + directory for outputs of runs
#                     {"op": "ready", …facts}            answers begin
#                     {"op": "born", "worker": int}      answers prepare         + pidfd of the worker
#                     {"op": "spawned", "worker": int}   answers house: it is sealed, and has answered INIT
#                     {"op": "failed", "worker": int | null, "text": str}        answers prepare, house, begin (null)
#                     {"op": "exited", "worker": int, "status": int}             a wait status, as soon as it is known
#                     {"op": "destroyed", "worker": int, "survivors": int}       answers destroy
#                     {"op": "reached", "sandbox": str, "text": str}             + directory, where text is empty
#                     {"op": "forgotten", "sandbox": str, "text": str}           answers forget; empty text: done
#
# End of file ends everything that the zygote ever started, and then the zygote.

MAX_PACKET_BYTES = 128 * 1024
"""Fits the kernel's default send buffer (net.core.wmem_default, 208 KiB with its bookkeeping)."""

MAX_PACKET_FDS = 5

TAGS_PER_CELL = 1 << 24
"""A worker's tag (`tags`) is its cell's first tag plus its number; cells take distinct ranges of so many."""


def encode_packet(message: dict[str, Any]) -> bytes:
    """The message as one packet. Raises FrameError where it is over the cap."""
    packet = _to_json(message)
    if len(packet) > MAX_PACKET_BYTES:
        raise FrameError("packet of %d bytes is over the cap of %d" % (len(packet), MAX_PACKET_BYTES))
    return packet


def decode_packet(packet: bytes) -> dict[str, Any]:
    """The message of one packet. Raises FrameError."""
    message = _header(packet)
    if not isinstance(message.get("op"), str):
        raise FrameError("packet names no operation")
    return message
