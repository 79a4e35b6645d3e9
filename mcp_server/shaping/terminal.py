"""Decoded text in, the lines that a terminal would show out.

Understood: carriage return, backspace, cursor up, down, forward, back and to a column, erasing within a line and below
it. Every other escape sequence (colours, titles, links, modes) is removed. What is no complete sequence is text: its
escape character is shown. Sequences are bounded and end with their line at the latest, so that a broken one swallows
nothing.

A terminal of endless width and `SCREEN_ROWS` rows: what scrolls off its top is final and goes to its `LineSink`.
"""

from __future__ import annotations

import math
import re
from typing import Protocol

from mcp_server.shaping.terminal_line import LONG_LINE, OTHER_COLUMNS, TerminalLine

SCREEN_ROWS = 50
"""How far up the cursor can go: more than any program's block of progress bars on a usual screen."""

MAX_STRING = 4096
"""Characters in the body of an OSC or DCS string: longer than any title or link; inline images are text to a model."""

MAX_WORK = 1 << 25
"""Units of about 0.1 µs. Output that is nothing but cursor movement is not followed further than some seconds' work."""

_CONTROL_WORK = 16
_IRREGULAR_LINE_WORK = 8
_WIDE_WORK = 64
_SLOW_WORK = 8
"""A wide character makes its line be redrawn cell by cell."""

_CONTROL = re.compile(r"[\x08\x0d\x1b]")
_RETURNS = re.compile(r"\r+")
_END_OF_RETURNS = re.compile(r"[\x08\x0a\x1b]")
_BODY = rf"[^\x00-\x1f\x7f]{{0,{MAX_STRING}}}"
_SEQUENCE = re.compile(
    r"\x1b(?:\[(?P<numbers>[0-?]{0,64})[ -/]{0,8}(?P<move>[@-~])"
    rf"|[\]PX^_]{_BODY}(?:\x07|\x1b\\)"
    r"|[ -/]{1,8}[0-~]"
    r"|(?P<short>[0-OQ-WYZ\\`-~]))"
)
_BEGINNING = re.compile(rf"\x1b(?:\[[0-?]{{0,64}}[ -/]{{0,8}}|[\]PX^_]{_BODY}\x1b?|[ -/]{{0,8}})")
"""As much as there is of what may become a sequence."""

_NUMBER = re.compile(r"\d{1,4}")


class LineSink(Protocol):
    """Where lines go once nothing can change them any more."""

    @property
    def full(self) -> bool:
        """Whether to stop at the next fresh line."""

    def line(self, line: TerminalLine) -> None: ...

    def repeated(self, times: int, chars: int) -> None:
        """The line given last came `times` more, each of `chars` characters, its newline included."""


class Terminal:
    """`unfinished` is the beginning of an escape sequence that the text before this one left open.

    `full` is set where reading stopped: at a fresh line once the sink was full, or, if the work is `bounded`, where it
    became too much; never within what was held back as the beginning of a sequence and is none, since whoever feeds may
    have gone past it.
    """

    def __init__(
        self, sink: LineSink, unfinished: str = "", long_line: int = LONG_LINE, *, bounded: bool = False
    ) -> None:
        self.full = False
        self.unfinished = unfinished
        self._sink = sink
        self._long_line = long_line
        self._rows = [TerminalLine(long_line)]
        self._row = 0
        self._column: int | None = None
        self._slow: bool | None = False
        self._same = 0
        self._settled = 0
        self._work = 0
        self._most_work = MAX_WORK if bounded else math.inf
        self._placed = False

    def feed(self, text: str) -> int:
        """Read `text`; returns how many of its characters were taken (all of them, unless `full`)."""
        before = self._settled = len(self.unfinished)
        text = self.unfinished + text
        self.unfinished = ""
        return self._read(text, final=False) - before

    def finish(self, *, ended: bool = True) -> None:
        """Everything read becomes final, as by `flush`; an open escape sequence turns out to be text."""
        rest, self.unfinished = self.unfinished, ""
        self._settled = len(rest)
        self._read(rest, final=True)
        self.flush(ended=ended)

    def flush(self, *, ended: bool = True) -> None:
        """Give all lines to the sink, the unfinished one included. Nothing may be fed after this.

        Where the text has `ended`, an unfinished line counts as one.
        """
        last = self._rows[-1]
        if ended and last.size and not last.lines:
            last.lines = 1
        for line in self._rows:
            if line.chars:
                self._sink.line(line)
        self._rows = []

    def _read(self, text: str, *, final: bool) -> int:
        at, end = 0, len(text)
        plain = "\x1b" not in text and "\r" not in text and "\b" not in text
        while at < end and not self.full:
            control = None if plain else _CONTROL.search(text, at)
            start = control.start() if control else end
            if start > at:
                at = self._read_plain(text, at, start)
            elif self._work >= self._most_work and at >= self._settled:
                self.full = True
            elif text[at] == "\r":
                at = self._read_returns(text, at)
            elif text[at] == "\b":
                self._spend(1)
                self._move_to(max(0, self._column_number() - 1))
                at += 1
            else:
                taken = self._read_escape(text, at, final=final)
                if not taken:
                    self.unfinished = text[at:]
                    return end
                at += taken
        return at

    def _read_plain(self, text: str, at: int, end: int) -> int:
        while at < end:
            if self._same > SCREEN_ROWS and (times := self._count_repeats(text, at, end)):
                chars = self._rows[-2].chars
                self._sink.repeated(times, chars)
                at += times * chars
                continue
            newline = text.find("\n", at, end)
            stop = end if newline < 0 else newline
            if stop > at:
                self._write(text[at:stop])
            at = stop
            if newline >= 0:
                at += 1
                self._end_line()
                if self.full:
                    break
        return at

    def _count_repeats(self, text: str, at: int, end: int) -> int:
        """How often, at least, the one line that fills the screen comes next; 0 where another does."""
        if self._rows[-1].chars:
            return 0
        unit = (self._rows[-2].plain_text() or "") + "\n"
        times = (end - at) // len(unit)
        while times and not text.startswith(unit * times, at):
            times //= 2
        return times

    def _write(self, text: str) -> None:
        line = self._rows[self._row]
        line.chars += len(text)
        if self._slow is None:
            self._placed = self._column is not None
            self._slow = self._placed and not line.is_simple()
        if self._placed and not text.isascii():
            self._work += _WIDE_WORK * len(OTHER_COLUMNS.findall(text))
        if self._slow:
            self._work += _SLOW_WORK * len(text)
        self._column = line.write(text, self._column)

    def _end_line(self) -> None:
        line = self._rows[self._row]
        line.lines += 1
        line.chars += 1
        self._row += 1
        if self._row < len(self._rows):
            self._move_to(0)
            return
        self._count_same(line)
        self._open_line()
        self.full = self._sink.full or self._work >= self._most_work

    def _open_line(self) -> None:
        self._rows.append(TerminalLine(self._long_line))
        self._move_to(None)
        if len(self._rows) > SCREEN_ROWS + 1:
            self._sink.line(self._rows.pop(0))
        self._row = len(self._rows) - 1

    def _count_same(self, line: TerminalLine) -> None:
        """Keep `_same`, how many lines at the bottom are the same plain text, each with one newline."""
        text = line.plain_text()
        if text is None or line.redrawn or line.chars != len(text) + 1:
            self._same = 0
            self._work += _IRREGULAR_LINE_WORK
        elif self._same and text == self._rows[self._row - 2].plain_text():
            self._same += 1
        else:
            self._same = 1

    def _read_returns(self, text: str, at: int) -> int:
        """Carriage returns and what each redraws, up to the next other control character or the end of the line."""
        stop = _RETURNS.match(text, at).end()  # type: ignore[union-attr]
        if stop == len(text) or text[stop] in "\b\n\x1b":
            zone = text[at:stop]
        else:
            limit = _END_OF_RETURNS.search(text, stop)
            zone = text[at : limit.start() if limit else len(text)]
        line = self._rows[self._row]
        states = [state for state in zone.split("\r") if state] if stop < at + len(zone) else []
        self._same = 0
        line.redrawn = True
        placed = line.size > 0 or len(states) > 1  # where the last of them began to be written
        if not states or line.redraw(states):
            line.chars += len(zone)
            end = 0 if zone.endswith("\r") else len(states[-1])
            self._move_to(end if end < line.size else None)
            if end:
                self._placed, self._slow = placed, False  # as `_write` leaves it, or the rest of the text costs less
            return at + len(zone)
        for state in zone[1:].split("\r"):
            if self._work >= self._most_work:
                break
            line.chars += 1
            self._move_to(0 if line.size else None)
            if state:
                self._write(state)
            at += 1 + len(state)
        return at

    def _read_escape(self, text: str, at: int, *, final: bool) -> int:
        """Carry out the sequence at `at`. Returns its length, 0 where its end has not come yet."""
        sequence = _SEQUENCE.match(text, at)
        if not sequence:
            end = _BEGINNING.match(text, at).end()  # type: ignore[union-attr]  # the escape character itself, at least
            if not final and end == len(text):
                return 0
            self._settled = max(end, self._settled)
            self._write("\x1b")
            return 1
        length = len(sequence[0])
        self._spend(length)
        if sequence["move"]:
            first = _NUMBER.match(sequence["numbers"])
            self._move(sequence["move"], int(first[0]) if first else None)
        elif sequence["short"] == "M":
            self._move("A", 1)
        return length

    def _spend(self, chars: int) -> None:
        line = self._rows[self._row]
        line.chars += chars
        self._work += _CONTROL_WORK + line.size // _CONTROL_WORK
        self._same = 0

    def _move_to(self, column: int | None) -> None:
        """Every move comes here, so that what writing there costs is asked once, however the text comes in."""
        self._column = column
        self._slow = None
        if column is not None:
            self._rows[self._row].redrawn = True

    def _column_number(self) -> int:
        return self._rows[self._row].column_of_end() if self._column is None else self._column

    def _move(self, kind: str, number: int | None) -> None:
        count = number or 1
        if kind in "ABEF":
            column = 0 if kind in "EF" else self._column_number()
            down = count if kind in "BE" else -count
            self._row = min(max(self._row + down, 0), len(self._rows) - 1)
            self._move_to(column)
        elif kind == "C":
            self._move_to(min(self._column_number() + count, self._long_line))
        elif kind == "D":
            self._move_to(max(self._column_number() - count, 0))
        elif kind in "G`":
            self._move_to(min(count - 1, self._long_line))
        elif kind == "K":
            self._erase_in_line(number or 0)
        elif kind == "J" and not number:
            self._erase_in_line(0)
            for line in self._rows[self._row + 1 :]:
                line.erase(0, None)
        elif kind in "Hf":
            self._go_home()

    def _erase_in_line(self, part: int) -> None:
        line = self._rows[self._row]
        if part == 0 and self._column is None:
            return
        column = self._column_number()
        self._move_to(column)
        if part == 0:
            line.erase(column, None)
        else:
            line.erase(0, column + 1 if part == 1 else None)

    def _go_home(self) -> None:
        """A program that paints the whole screen begins anew: below what it painted before, so that nothing is lost."""
        self._row = len(self._rows) - 1
        self._move_to(None)
        if self._rows[self._row].size:
            self._open_line()
