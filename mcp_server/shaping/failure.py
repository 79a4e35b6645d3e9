"""An exception of the user's code as text: type and message always, the traceback as far as there is room.

The traceback was made inside the sandbox and is not trusted: it is shaped like any other output.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mcp_server.model import ErrorInfo
from mcp_server.shaping.lines import Row, shorten
from mcp_server.shaping.marks import one_line, visible
from mcp_server.shaping.stream import StreamShaper
from mcp_server.shaping.window import ShapedText

NAME_CHARS = 80
"""Of an exception's type: longer than any that a person wrote."""

PLAIN_CHARS = 200
"""One line of as many visible characters is shown as it is, in every window: most results are no longer."""

AFTER_CHARS = 600
"""Of what stands after the message: notes, the exceptions of a group."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_TRAILING_BLANKS = re.compile(r"[ \t]+$", re.MULTILINE)
_FRAME = re.compile(
    r'^ *File "(?P<file>[^"\n]*)", line (?P<line>\d+)(?:, in (?P<function>[^\n]*))?(?:\n +(?P<source>[^\n]*))?',
    re.MULTILINE,
)
_LIBRARY = re.compile(r"/(?:site|dist)-packages/|/lib/python3[./]|<frozen |\A<__array_function__")


@dataclass(frozen=True, slots=True)
class FailureText:
    """`message` is ``Type: message``, capped; `before` and `after` are what the traceback has around it."""

    before: ShapedText
    message: str
    after: ShapedText


def without_surrogates(text: str) -> str:
    """`text` as UTF-8 can carry it."""
    return _SURROGATE.sub("\ufffd", text)


def shape_text(text: str, window_chars: int) -> ShapedText:
    """Any text (surrogates and all) as shaped output."""
    if 0 < len(text) <= PLAIN_CHARS and text.isascii() and text.isprintable():
        return ShapedText((Row(text, 1, len(text)),), len(text))
    shaper = StreamShaper(window_chars)
    shaper.feed(without_surrogates(text).encode())
    return shaper.finish()


def shape_failure(error: ErrorInfo, window_chars: int, message_chars: int) -> FailureText:
    """The parts of an error's report; `message` takes at most `NAME_CHARS` + `message_chars` and a few more."""
    ending = _without_trailing_blanks(f"{error.name}: {error.message}" if error.message else error.name)
    traceback = _without_trailing_blanks(error.traceback)
    at = traceback.rfind(ending)
    before, after = (traceback, "") if at < 0 else (traceback[:at], traceback[at + len(ending) :])
    name = one_line(error.name, NAME_CHARS)
    message = "\n".join(map(visible, error.message.split("\n")))
    short = shorten(Row(message, 0, 0), message_chars, of="this message").text
    return FailureText(
        shape_text(before.rstrip("\n"), window_chars),
        f"{name}: {short}" if short else name,
        shape_text(after.strip("\n"), min(window_chars, AFTER_CHARS)),
    )


def _without_trailing_blanks(text: str) -> str:
    return _TRAILING_BLANKS.sub("", text)


def stopped_at(error: ErrorInfo) -> str:
    """Where the user's code was when it was stopped, on one line; empty where the traceback does not say."""
    frames = list(_FRAME.finditer(error.traceback))
    own = [frame for frame in frames if not _LIBRARY.search(frame["file"])]
    if not frames:
        return ""
    frame = (own or frames)[-1]
    place = f"line {frame['line']} of {one_line(frame['file'], 100)}"
    if frame["function"] and frame["function"] != "<module>":
        place += f", in {one_line(frame['function'], 100)}"
    source = one_line(frame["source"] or "", 200)
    return f"{place}: {source}" if source else place
