"""What goes over the plain toolbox socket: one first message, JSON frames, one closing frame. Pure; both sides use it.

    client → server   {"code": str, "contextId"?: str, "timeout"?: seconds, "envs"?: {str: str}}      once, first
    server → client   {"type": "stdout" | "stderr" | "error" | "control",
                       "text": str, "name": str, "value": str, "traceback": str}                        any number
    server → client   a closing frame                                                                  always

`text` is output, or for `control` either ``completed`` or ``interrupted``; `name`, `value` and `traceback` are of an
exception of the code's. The protocol has no place for values that are shown: what `display` is given goes out as text
on stdout, and the value of a last expression is dropped, as in a script.
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

from mcp_server.model import NO_ENVS, Chunk, DisplayChunk, ErrorInfo, Outcome, OutputChunk, State, Status, Stream

DEFAULT_CONTEXT = "default"
"""How this protocol names a sandbox's default context."""

MAX_TEXT_CHARS = 128 * 1024
"""JSON takes at most six bytes for a character, so a frame of this much text stays under `MAX_FRAME_BYTES`."""

MAX_ERROR_CHARS = 64 * 1024
"""For the value and for the traceback of an error, which share one frame."""

MAX_FRAME_BYTES = 1024 * 1024
"""The default limit of the websockets library's clients."""

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""Of a client's message: room for 4 MiB of code and 1 MiB of environment, escaped to ASCII."""

MAX_REASON_BYTES = 122
"""RFC 6455, section 5.5: a control frame holds 125 bytes, two of them for the code; the limit here is under 123."""


class FrameType(StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"
    ERROR = "error"
    CONTROL = "control"


class CloseCode(IntEnum):
    """How a run's socket ends."""

    DONE = 1000
    """The code ran to its end, also where that was an exception."""
    GONE = 1001
    """The worker ended, or the context was deleted."""
    BAD_MESSAGE = 1002
    """The first message is not of the documented shape."""
    REFUSED = 1008
    """The first message asks for what cannot be done."""
    FAILED = 1011
    """The server's own failure."""
    TIMEOUT = 4008


COMPLETED = "completed"
INTERRUPTED = "interrupted"

NO_CONTEXT = "no context "
"""How the reason of a refusal begins where the context is unknown."""


@dataclass(frozen=True, slots=True)
class Close:
    """A closing frame. `reason` is at most `MAX_REASON_BYTES` long; `code` may be one of others', such as 1006."""

    code: CloseCode | int
    reason: str = ""

    @classmethod
    def because(cls, code: CloseCode, text: str) -> Close:
        """With as much of the text as fits, cut at a character."""
        data = valid_text(text).encode()
        if len(data) > MAX_REASON_BYTES:
            data = data[: MAX_REASON_BYTES - len("…".encode())].decode(errors="ignore").encode() + "…".encode()
        return cls(code, data.decode())


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of the server's."""

    type: FrameType
    text: str = ""
    name: str = ""
    value: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class ExecuteRequest:
    """The first message. `context_id` empty means the default context, `timeout_s` None the server's default."""

    code: str
    context_id: str = ""
    timeout_s: float | None = None
    envs: Mapping[str, str] = field(default_factory=lambda: NO_ENVS)


@dataclass(frozen=True, slots=True)
class Ending:
    """The last frames of a run, and its closing frame."""

    frames: tuple[Frame, ...]
    close: Close


def encode_frame(frame: Frame) -> str:
    """The frame as JSON with all five keys. Its strings must be `valid_text`."""
    return json.dumps(
        {
            "type": frame.type.value,
            "text": frame.text,
            "name": frame.name,
            "value": frame.value,
            "traceback": frame.traceback,
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )


def parse_frame(message: str | bytes) -> Frame | None:
    """A server's message as a frame; None for one that this version does not know, which is to be passed over."""
    fields = json_object(message)
    if fields is None or fields.get("type") not in list(FrameType):
        return None
    texts = {key: value for key in ("text", "name", "value", "traceback") if isinstance(value := fields.get(key), str)}
    return Frame(FrameType(fields["type"]), **texts)


def encode_request(request: ExecuteRequest) -> str:
    """The first message as JSON, in ASCII so that lone surrogates pass."""
    fields: dict[str, Any] = {"code": request.code}
    if request.context_id:
        fields["contextId"] = request.context_id
    if request.timeout_s is not None:
        fields["timeout"] = request.timeout_s
    if request.envs:
        fields["envs"] = dict(request.envs)
    return json.dumps(fields)


def parse_request(message: str | bytes) -> ExecuteRequest | Close:
    """The first message, or the closing frame that answers one which is malformed or asks for nothing."""
    fields = json_object(message)
    if fields is None:
        return Close(CloseCode.BAD_MESSAGE, "the first message must be a JSON object")
    code, context_id, envs = fields.get("code"), fields.get("contextId"), fields.get("envs")
    if not isinstance(code, str):
        return Close(CloseCode.BAD_MESSAGE, "code must be a string")
    if not isinstance(context_id, str | None):
        return Close(CloseCode.BAD_MESSAGE, "contextId must be a string")
    if envs is not None and not _is_environment(envs):
        return Close(CloseCode.BAD_MESSAGE, "envs must map names to strings")
    timeout_s = seconds(fields.get("timeout"))
    if timeout_s is not None and math.isnan(timeout_s):
        return Close(CloseCode.BAD_MESSAGE, "timeout must be a number of seconds")
    known = "" if context_id is None or context_id == DEFAULT_CONTEXT else context_id
    request = ExecuteRequest(code, known, timeout_s, envs or NO_ENVS)
    return refusal(request) or request


def refusal(request: ExecuteRequest) -> Close | None:
    """The closing frame that answers a request for what cannot be done."""
    if request.timeout_s is not None and request.timeout_s < 0:
        return Close(CloseCode.REFUSED, "timeout must not be negative; 0 means none")
    if not request.code.strip():
        return Close(CloseCode.REFUSED, "code is empty")
    return None


def json_object(message: str | bytes) -> dict[str, Any] | None:
    """A message as a JSON object; None where it is none."""
    try:
        value = json.loads(message)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def seconds(value: object) -> float | None:
    """A JSON number of seconds; NaN for anything else but null."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _is_environment(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


class TextDecoder:
    """The bytes of the two streams, in pieces of any size, as text in pieces that fit into a frame.

    A character that was cut apart waits for its rest; bytes that are no UTF-8 become U+FFFD.
    """

    def __init__(self) -> None:
        new = codecs.getincrementaldecoder("utf-8")
        self._decoders = {stream: new("replace") for stream in Stream}

    def feed(self, stream: Stream, data: bytes) -> str:
        """The text that `data` completes."""
        return self._decoders[stream].decode(data)

    def rest(self) -> Iterator[tuple[Stream, str]]:
        """What an unfinished character at the end of each stream becomes."""
        for stream, decoder in self._decoders.items():
            text = decoder.decode(b"", final=True)
            if text:
                yield stream, text


def pieces(text: str) -> Iterator[str]:
    """The text cut to what one frame may hold, between characters."""
    for start in range(0, len(text), MAX_TEXT_CHARS):
        yield text[start : start + MAX_TEXT_CHARS]


class FrameMaker:
    """What the plain protocol would say of a run whose chunks and outcome are known."""

    def __init__(self) -> None:
        self._decoder = TextDecoder()

    def of_chunk(self, chunk: Chunk) -> Iterator[Frame]:
        if isinstance(chunk, OutputChunk):
            yield from _text_frames(FrameType(chunk.stream.value), self._decoder.feed(chunk.stream, chunk.data))
        else:
            yield from _text_frames(FrameType.STDOUT, displayed_text(chunk))

    def of_outcome(self, outcome: Outcome) -> Iterator[Frame | Close]:
        for stream, text in self._decoder.rest():
            yield from _text_frames(FrameType(stream.value), text)
        end = ending(outcome)
        yield from end.frames
        yield end.close


def _text_frames(kind: FrameType, text: str) -> Iterator[Frame]:
    return (Frame(kind, piece) for piece in pieces(text))


def displayed_text(chunk: DisplayChunk) -> str:
    """What a shown value is on a wire that has only text: its plain text and a newline; nothing for a result."""
    if chunk.is_result:
        return ""
    for form in chunk.representations:
        if form.mime == "text/plain":
            return form.data.decode(errors="replace") + "\n"
    return "".join(f"[{form.alt}]\n" for form in chunk.representations[:1] if form.alt)


def ending(outcome: Outcome) -> Ending:
    """How a run's socket ends, by what became of the run."""
    failure = (_error_frame(outcome.error),) if outcome.error is not None else ()
    completed, interrupted = Frame(FrameType.CONTROL, COMPLETED), Frame(FrameType.CONTROL, INTERRUPTED)
    fate = "its variables are kept" if outcome.state is State.KEPT else "its variables are lost"
    match outcome.status:
        case Status.OK | Status.ERROR:
            return Ending((*failure, completed), Close(CloseCode.DONE))
        case Status.TIMEOUT:
            return Ending((interrupted,), Close(CloseCode.TIMEOUT, f"the code ran into its timeout; {fate}"))
        case Status.INTERRUPTED if outcome.state is State.KEPT:
            return Ending((*failure, interrupted), Close(CloseCode.DONE, "the code was interrupted"))
        case Status.OUT_OF_MEMORY:
            what = "the interpreter was killed for using too much memory"
        case Status.INTERRUPTED | Status.CANCELLED:
            what = outcome.detail or "the code was stopped"
        case _:
            what = f"the interpreter ended: {outcome.detail}"
    return Ending((interrupted,), Close.because(CloseCode.GONE, f"{what}; {fate}"))


def _error_frame(error: ErrorInfo) -> Frame:
    return Frame(
        FrameType.ERROR,
        name=valid_text(error.name),
        value=_bounded(valid_text(error.message)),
        traceback=_bounded(valid_text(error.traceback)),
    )


def _bounded(text: str) -> str:
    """Head and tail of what is too long for its share of a frame, with a line that counts the rest."""
    over = len(text) - MAX_ERROR_CHARS
    if over <= 0:
        return text
    half = MAX_ERROR_CHARS // 2
    return f"{text[:half]}\n… {over:,} characters left out …\n{text[-half:]}"


def valid_text(text: str) -> str:
    """The text with lone surrogates, which no UTF-8 can hold, replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
