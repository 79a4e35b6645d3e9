"""One stream of one run: raw bytes in, in pieces of any size, shaped text out, in constant memory.

The beginning is shaped as it comes, until it fills the window at the end of a line. From there on nothing is shaped
any more: bytes are only counted, the last of them kept, and the first line that tells of a failure with them. `cut`
and `finish` then shape the kept end, beginning at a line's start. Head, gap and tail are therefore places in the raw
stream, and the counts of a gap are exact whatever shaping does to the lines beside it.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from mcp_server.shaping.folding import RowFolder
from mcp_server.shaping.graphemes import MAX_CLUSTER, cut_at_or_after, cut_at_or_before, is_flag_half
from mcp_server.shaping.lines import LineLimits, Row, shape_line
from mcp_server.shaping.notable import FailureSearch
from mcp_server.shaping.terminal import Terminal
from mcp_server.shaping.terminal_line import TerminalLine
from mcp_server.shaping.window import ShapedText

__all__ = ["LAST_LINE_CHARS", "ShapedText", "StreamShaper"]

LAST_LINE_CHARS = 200
"""As `model.Progress` promises."""

_LAST_LINE_BYTES = 4096

_KEPT_BYTES_WIDE = 3 * 1024 * 1024
"""UTF-8 takes up to four bytes for a character. A very large window is kept whole for text of one byte each."""

_KEPT_BYTES_EXTRA = 16 * 1024
"""So that escape sequences and redrawn lines, which show little, still leave something of the end."""


def _new_decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")


@dataclass(slots=True)
class _Middle:
    """What is known of a window from where its head ended: `start` in the stream, `newlines` before that."""

    start: int
    newlines: int
    search: FailureSearch
    chars_before_find: int = 0
    newlines_before_find: int = 0


class StreamShaper:
    """Any chunking of the same bytes gives the same text. Memory is some ten times `window_chars`, and 100 KiB.

    `cut` ends a window and begins the next: each byte is shown, or counted as left out, in exactly one of them.
    """

    def __init__(self, window_chars: int) -> None:
        self._window_chars = window_chars
        self._limits = LineLimits.for_window(window_chars)
        self._kept_bytes = window_chars + min(3 * window_chars, _KEPT_BYTES_WIDE) + _KEPT_BYTES_EXTRA
        self._decoder = _new_decoder()
        self._recent = _Recent(self._kept_bytes)
        self._total_bytes = 0
        self._window_start = 0
        self._chars = 0
        self._newlines = 0
        self._middle: _Middle | None = None
        self._begin_window("")

    @property
    def total_bytes(self) -> int:
        """All that it was fed."""
        return self._total_bytes

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        state = self._decoder.getstate()
        text = self._decoder.decode(data)
        self._total_bytes += len(data)
        self._recent.append(data)
        self._chars += len(text)
        self._newlines += data.count(b"\n")
        if self._middle is None:
            taken = self._terminal.feed(text)
            if not self._terminal.full:
                return
            data = data[_bytes_for(state, data, taken) :]
            start = self._total_bytes - len(data)
            self._middle = _Middle(start, self._newlines - data.count(b"\n"), FailureSearch(start))
        self._search(self._middle, data)

    def last_line(self) -> str:
        """The last line of the stream so far that is not blank, as shown, at most `LAST_LINE_CHARS` long."""
        raw = self._recent.last(_LAST_LINE_BYTES)
        if len(raw) < self._total_bytes:
            raw = raw[_clean_start(raw) :]
        last = _LastLine(self._limits)
        terminal = Terminal(last, long_line=self._limits.redrawn_line)
        terminal.feed(_new_decoder().decode(raw))
        terminal.flush()
        return last.text

    def cut(self) -> ShapedText:
        """Everything since the start or the previous cut. An unfinished line is shown as it stands."""
        return self._end_window(final=False)

    def finish(self) -> ShapedText:
        """The last window, with what has remained unfinished: part of a character, of an escape sequence."""
        return self._end_window(final=True)

    def _begin_window(self, unfinished: str) -> None:
        self._folder = RowFolder(self._limits, self._window_chars)
        self._terminal = Terminal(self._folder, unfinished, self._limits.redrawn_line, bounded=True)
        self._middle = None
        self._chars = len(unfinished)
        self._newlines = 0
        self._window_start = self._total_bytes

    def _search(self, middle: _Middle, data: bytes) -> None:
        found = middle.search.feed(data)
        if found:
            middle.chars_before_find = self._chars - len(_new_decoder().decode(found))
            middle.newlines_before_find = self._newlines - found.count(b"\n")

    def _end_window(self, *, final: bool) -> ShapedText:
        if final:
            rest = self._decoder.decode(b"", True)
            self._chars += len(rest)
            if self._middle is None:
                self._terminal.feed(rest)
        if self._middle is None:
            if final:
                self._terminal.finish()
            else:
                self._terminal.flush()
            rows, unfinished = self._folder.finish(), self._terminal.unfinished
        else:
            self._terminal.flush(ended=False)
            rows, unfinished = self._with_tail(self._middle, self._folder.finish(), final=final)
        shaped = ShapedText(rows, self._total_bytes - self._window_start)
        if not final:
            self._begin_window(unfinished)
        return shaped

    def _with_tail(self, middle: _Middle, head: tuple[Row, ...], *, final: bool) -> tuple[tuple[Row, ...], str]:
        length = self._total_bytes - middle.start
        raw = self._recent.last(min(length, self._kept_bytes))
        if len(raw) < length:
            raw = raw[_clean_start(raw) :]
        tail, unfinished = _shape_all(raw, self._limits, final=final)
        chars = self._chars - _chars(head) - _chars(tail) - len(unfinished)
        lines = self._newlines - middle.newlines - raw.count(b"\n")
        gap = self._gap(middle, Row("", lines, chars, hidden=True), _chars(head), self._total_bytes - len(raw))
        return (*head, *(row for row in gap if not row.hidden or row.chars), *tail), unfinished

    def _gap(self, middle: _Middle, gap: Row, chars_before: int, tail_start: int) -> tuple[Row, ...]:
        """The gap, in two parts where a line that tells of a failure was found in it."""
        start = middle.search.start
        if start is None or start >= tail_start:
            return (gap,)
        raw = bytes(middle.search.raw[: tail_start - start])
        raw = raw[: raw.rfind(b"\n") + 1]
        found, _ = _shape_all(raw, self._limits, final=True, ended=False)
        first = Row(
            "", middle.newlines_before_find - middle.newlines, middle.chars_before_find - chars_before, hidden=True
        )
        lines = gap.lines - first.lines - raw.count(b"\n")
        return (first, *found, Row("", lines, gap.chars - first.chars - _chars(found), hidden=True))


class _Recent:
    """The last bytes of a stream."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._bytes = bytearray()

    def append(self, data: bytes) -> None:
        if len(data) >= self._capacity:
            self._bytes[:] = data[-self._capacity :]
            return
        self._bytes += data
        if len(self._bytes) > 2 * self._capacity:
            del self._bytes[: -self._capacity]

    def last(self, count: int) -> bytes:
        """The last `count` bytes, at most the capacity; fewer where there were no more."""
        return bytes(self._bytes[-count:]) if count else b""


class _LastLine:
    """A line sink that remembers the last line which is not blank."""

    full = False

    def __init__(self, limits: LineLimits) -> None:
        self._limits = limits
        self.text = ""

    def line(self, line: TerminalLine) -> None:
        text = shape_line(line, self._limits).text.strip()
        if len(text) > LAST_LINE_CHARS:
            text = text[: cut_at_or_before(text, LAST_LINE_CHARS - 1)] + "…"
        self.text = text or self.text

    def repeated(self, times: int, chars: int) -> None:
        """The same line again changes nothing."""


def _shape_all(raw: bytes, limits: LineLimits, *, final: bool, ended: bool = True) -> tuple[tuple[Row, ...], str]:
    """Rows of bytes that begin where a line or at least a character does, and the escape sequence left open."""
    folder = RowFolder(limits, 0)
    terminal = Terminal(folder, long_line=limits.redrawn_line)
    terminal.feed(_new_decoder().decode(raw, final))
    if final:
        terminal.finish(ended=ended)
    else:
        terminal.flush(ended=ended)
    return folder.finish(), terminal.unfinished


def _chars(rows: tuple[Row, ...]) -> int:
    return sum(row.chars for row in rows)


def _clean_start(raw: bytes) -> int:
    """Where to begin in bytes that were cut out of a stream: after a newline, else where a line is redrawn.

    Not further than half way, or a long last line would be lost: then where a character begins that does not belong to
    one before it. Of flags, which go in pairs, none is begun with: nobody knows which half would be the first.
    """
    for sign in (b"\n", b"\r"):
        place = raw.find(sign, 0, len(raw) // 2)
        if place >= 0:
            return place + 1
    start = next((index for index, byte in enumerate(raw[:4]) if byte & 0xC0 != 0x80), min(4, len(raw)))
    beginning = raw[start : start + 8 * MAX_CLUSTER]
    text = beginning.decode("utf-8", "replace")
    chars = cut_at_or_after(text, 1)
    while chars < len(text) and is_flag_half(text[chars]):
        chars += 1
    return start + _bytes_for((b"", 0), beginning, chars)


def _bytes_for(state: tuple[bytes, int], data: bytes, chars: int) -> int:
    """Where in `data` the first `chars` characters end, for a decoder that was in `state` before it."""
    low, high = 0, len(data)
    decoder = _new_decoder()
    while low < high:
        middle = (low + high + 1) // 2
        decoder.setstate(state)
        if len(decoder.decode(data[:middle], True)) <= chars:
            low = middle
        else:
            high = middle - 1
    return low
