"""A finished line of the terminal becomes a row of the report: control characters visible, blobs elided.

A line that is too long loses its middle. What may stay whole depends on the window: whoever asks for a large one gets
long lines and blobs whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mcp_server.shaping.graphemes import cut_at_or_after, cut_at_or_before
from mcp_server.shaping.marks import counted, note, visible
from mcp_server.shaping.terminal_line import LONG_LINE, TerminalLine

BLOB_HEAD = 24
"""Characters of a blob that are shown: enough for the magic number of any common file format in base64."""

BLOB_TAIL = 8

_BLOB_CHARS = "A-Za-z0-9+/_-"
_RUN = re.compile(rf"[{_BLOB_CHARS}]{{64,}}={{0,2}}")
_RUN_AT_END = re.compile(rf"[{_BLOB_CHARS}]{{64,}}\Z")
_RUN_AT_START = re.compile(rf"\A[{_BLOB_CHARS}]{{64,}}={{0,2}}")
_HEX = re.compile(r"(?:[0-9a-f]+|[0-9A-F]+)\Z")
_HEX_SIGNS = (re.compile("[a-fA-F]"), re.compile("[0-9]"))
_BASE64_SIGNS = (re.compile("[A-Z]"), re.compile("[a-z]"), re.compile("[0-9]"))
_SAMPLE_CHARS = 256


@dataclass(frozen=True, slots=True)
class LineLimits:
    """Characters. A blob of more than `blob` is elided; a line of more than `line` loses its middle."""

    line: int
    blob: int

    @property
    def redrawn_line(self) -> int:
        """The longest line that a terminal is taken to redraw in place."""
        return max(self.line, LONG_LINE)

    @classmethod
    def for_window(cls, window_chars: int) -> LineLimits:
        """No line takes more than a quarter of the window, no blob more than a thirty-second part."""
        return cls(line=max(500, window_chars // 4), blob=max(200, window_chars // 32))


@dataclass(frozen=True, slots=True)
class Elision:
    """`text[start:end]` of a row is a note of ours that stands for `hidden` characters of the line."""

    start: int
    end: int
    hidden: int


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a report, and how many lines and characters of the raw stream it stands for.

    `hidden`: the row is itself a gap, of which only the counts are known.
    """

    text: str
    lines: int
    chars: int
    elisions: tuple[Elision, ...] = ()
    hidden: bool = False


def shape_line(line: TerminalLine, limits: LineLimits) -> Row:
    """The row that shows `line`."""
    head, dropped, tail = line.parts()
    if line.redrawn and not dropped:
        head = (head + tail).rstrip(" ")  # blanks that wiped out what was there before
        tail = ""
    pieces = _around_gap(head, dropped, tail, one_run=line.gap_is_one_run) if dropped else [_Piece(head + tail)]
    if sum(len(piece.text) for piece in pieces) > limits.blob:
        pieces = [part for piece in pieces for part in _without_blobs(piece, limits.blob)]
    text, elisions = _join(pieces)
    row = Row(text, line.lines, line.chars, elisions)
    return row if len(text) <= limits.line else shorten(row, limits.line)


def shorten(row: Row, max_chars: int, of: str = "this line") -> Row:
    """`row` without its middle, at most `max_chars` long (where these are at least some 60), the count exact."""
    text = row.text
    if len(text) <= max_chars:
        return row
    room = max_chars - len(_left_out(len(text) + sum(elision.hidden for elision in row.elisions), of))
    start = cut_at_or_before(text, max(room, 0) // 2)
    end = cut_at_or_after(text, len(text) - (max(room, 0) - start))
    for elision in row.elisions:
        if elision.start < start < elision.end:
            start = elision.start
        if elision.start < end < elision.end:
            end = elision.end
    inside = [elision for elision in row.elisions if start <= elision.start and elision.end <= end]
    hidden = end - start + sum(elision.hidden - (elision.end - elision.start) for elision in inside)
    said = _left_out(hidden, of)
    shift = start + len(said) - end
    elisions = (
        *(elision for elision in row.elisions if elision.end <= start),
        Elision(start, start + len(said), hidden),
        *(
            Elision(elision.start + shift, elision.end + shift, elision.hidden)
            for elision in row.elisions
            if elision.start >= end
        ),
    )
    return Row(text[:start] + said + text[end:], row.lines, row.chars, elisions)


def _left_out(hidden: int, of: str = "this line") -> str:
    return note(f"… {counted(hidden, 'character')} of {of} left out …")


@dataclass(frozen=True, slots=True)
class _Piece:
    """Text of the program's, or with `hidden` a note that stands for so many characters."""

    text: str
    hidden: int = 0


def _join(pieces: list[_Piece]) -> tuple[str, tuple[Elision, ...]]:
    shown: list[str] = []
    elisions: list[Elision] = []
    length = 0
    for piece in pieces:
        shown.append(piece.text if piece.hidden else visible(piece.text))
        if piece.hidden:
            elisions.append(Elision(length, length + len(piece.text), piece.hidden))
        length += len(piece.text)
    return "".join(shown), tuple(elisions)


def _around_gap(head: str, dropped: int, tail: str, *, one_run: bool) -> list[_Piece]:
    """Beginning and end of an endless line; what of a blob stands at the gap's edges goes into the gap."""
    before, after = _RUN_AT_END.search(head), _RUN_AT_START.search(tail)
    kind_before = _kind_of_blob(before[0]) if before else ""
    kind_after = _kind_of_blob(after[0]) if after else ""
    head_end = before.start() + BLOB_HEAD if before and kind_before else cut_at_or_before(head, len(head) - 1)
    tail_start = after.end() - BLOB_TAIL if after and kind_after else cut_at_or_after(tail, 1)
    hidden = len(head) - head_end + dropped + tail_start
    whole_gap = kind_before if one_run and kind_before == kind_after else ""
    return [
        _Piece(head[:head_end]),
        _Piece(_left_out(hidden, whole_gap or "this line"), hidden),
        _Piece(tail[tail_start:]),
    ]


def _without_blobs(piece: _Piece, limit: int) -> Iterator[_Piece]:
    if piece.hidden:
        yield piece
        return
    done = 0
    for run in _RUN.finditer(piece.text):
        kind = _kind_of_blob(run[0]) if len(run[0]) > limit else ""
        if kind:
            start, end = run.start() + BLOB_HEAD, run.end() - BLOB_TAIL
            yield _Piece(piece.text[done:start])
            yield _Piece(_left_out(end - start, kind), end - start)
            done = end
    yield _Piece(piece.text[done:])


def _kind_of_blob(run: str) -> str:
    """What a long run of letters and digits is; nothing for what only looks like a blob: rules, paths, numbers."""
    if _HEX.match(run) and all(sign.search(run, 0, _SAMPLE_CHARS) for sign in _HEX_SIGNS):
        return "hex digits"
    if all(sign.search(run, 0, _SAMPLE_CHARS) for sign in _BASE64_SIGNS):
        return "base64"
    return ""
