"""Rows in, rows out: a run of the same row becomes one, and a line that says how often it came again."""

from __future__ import annotations

from dataclasses import replace

from mcp_server.shaping.lines import LineLimits, Row, shape_line
from mcp_server.shaping.marks import note
from mcp_server.shaping.terminal_line import TerminalLine

FOLDED_REPEATS = 3
"""So many repeats of a row and more are folded; fewer are shown, being no longer than the line that would say so."""


class RowFolder:
    """Collects rows until there are `limit_chars` characters of them; 0 means without a limit."""

    def __init__(self, limits: LineLimits, limit_chars: int) -> None:
        self._limits = limits
        self._limit_chars = limit_chars
        self._rows: list[Row] = []
        self._chars = 0
        self._first: Row | None = None
        self._repeats: list[Row] = []
        self._times = 0
        self._lines = 0
        self._raw_chars = 0
        self._invisible_chars = 0
        """Of what shows nothing and ends no line (a lone colour reset): counted to the row beside it."""

    @property
    def full(self) -> bool:
        return 0 < self._limit_chars <= self._chars

    def line(self, line: TerminalLine) -> None:
        row = shape_line(line, self._limits)
        if not row.text and not row.lines:
            self._invisible_chars += row.chars
            return
        if self._invisible_chars:
            row = replace(row, chars=row.chars + self._invisible_chars)
            self._invisible_chars = 0
        if self._first is not None and row.text == self._first.text:
            self._count(row, 1)
        else:
            self._close_run()
            self._first = row

    def repeated(self, times: int, chars: int) -> None:
        """The row given last came `times` more, each one line of `chars` characters with its newline."""
        if self._first is None:
            raise AssertionError("nothing to repeat")
        self._count(replace(self._first, lines=1, chars=chars), times)

    def finish(self) -> tuple[Row, ...]:
        """All rows. Nothing may be given after this."""
        self._close_run()
        if self._invisible_chars:
            last = self._rows.pop() if self._rows else Row("", 0, 0)
            self._rows.append(replace(last, chars=last.chars + self._invisible_chars))
        return tuple(self._rows)

    def _count(self, row: Row, times: int) -> None:
        if len(self._repeats) < FOLDED_REPEATS:
            self._repeats.extend([row] * min(times, FOLDED_REPEATS))
        self._times += times
        self._lines += times * row.lines
        self._raw_chars += times * row.chars

    def _close_run(self) -> None:
        if self._first is None:
            return
        self._append(self._first)
        if self._times >= FOLDED_REPEATS:
            what = "previous line repeated" if self._first.text else "blank line repeated"
            self._append(Row(note(f"{what} {self._times:,} more times"), self._lines, self._raw_chars))
        else:
            for row in self._repeats:
                self._append(row)
        self._first = None
        self._repeats = []
        self._times = self._lines = self._raw_chars = 0

    def _append(self, row: Row) -> None:
        self._rows.append(row)
        self._chars += len(row.text) + 1
