"""One line of a terminal while it is being written, redrawn and erased.

A line is held in the cheapest form that is exact: a string while each character fills one column or text is only
appended; a list of cells once a wide or combined character may be overwritten; and of an endless line its beginning,
its end and a count. Which form it is in never depends on how the input was cut into pieces.
"""

from __future__ import annotations

import re
import unicodedata

from mcp_server.shaping.graphemes import MAX_CLUSTER, binds, flag_halves_before, is_flag_half

LONG_LINE = 2048
"""Characters. No terminal is as wide: beyond this a line is no longer redrawn in place, only appended to."""

_SINGLE = r"\x00-\u02ff\u0370-\u0482\u048a-\u0590\u2010-\u2027\u2190-\u21ff\u2500-\u25fc\u2800-\u28ff\ufffd"
_SINGLE_COLUMN = re.compile(f"[{_SINGLE}]*").fullmatch
BREAKS_RUN = re.compile(r"[^A-Za-z0-9+/_-]")
"""What no blob of base64 or hex digits has in it."""

OTHER_COLUMNS = re.compile(f"[^{_SINGLE}]")
"""Characters that may fill two columns or none."""


def is_wide(char: str) -> bool:
    """Whether it fills two columns. Until Python 3.12 what is no character yet counted as full-width."""
    width = unicodedata.east_asian_width(char)
    return width == "W" or (width == "F" and unicodedata.category(char) != "Cn")


class TerminalLine:
    """`lines` and `chars` count what of the raw stream was spent on this line. `redrawn`: the cursor moved
    in it. `gap_is_one_run`: of an endless line, what was dropped from the middle is letters and digits without a break.

    Columns count from 0; the column None stands for the line's end.
    """

    __slots__ = (
        "_cells",
        "_half_flag",
        "_head",
        "_size",
        "_text",
        "chars",
        "gap_is_one_run",
        "lines",
        "long_line",
        "redrawn",
    )

    def __init__(self, long_line: int = LONG_LINE) -> None:
        self.lines = 0
        self.chars = 0
        self.redrawn = False
        self.gap_is_one_run = False
        self.long_line = long_line
        self._text = ""
        self._cells: list[str] | None = None
        self._head: str | None = None
        self._half_flag = False
        self._size = 0

    @property
    def size(self) -> int:
        """Characters, those dropped from the middle included."""
        return self._size

    def parts(self) -> tuple[str, int, str]:
        """The line as its beginning, the count of characters dropped after that, and its end (empty without a gap)."""
        if self._head is None:
            return self._whole(), 0, ""
        self._drop(self._kept_tail())
        end = self._text[1:] if self._half_flag and is_flag_half(self._text[0]) else self._text
        return self._head, self._size - len(self._head) - len(end), end

    def plain_text(self) -> str | None:
        """The text, where the line was only ever appended to and none of it was dropped."""
        return self._text if self._cells is None and self._head is None else None

    def write(self, text: str, column: int | None) -> int | None:
        """Put `text` at `column`, over what is there. Returns the column after it."""
        if self._head is not None:
            return self._write_long(text, column)
        if column is None:
            self._append(text)
        else:
            column = self._overwrite(text, column)
        if self._head is None and self._size > self.long_line:
            self._become_long()
            return None
        return column

    def column_of_end(self) -> int:
        """The number of columns in use; a line too long to be redrawn counts as none."""
        if self._head is not None:
            return 0
        if self._cells is None and _SINGLE_COLUMN(self._text):
            return len(self._text)
        return len(self._as_cells())

    def erase(self, start: int, end: int | None) -> None:
        """Blank the columns from `start` up to `end`, or all from `start` on."""
        if self._head is not None:
            if start == 0:
                self._restart()
            return
        if start == 0 and end is None:
            self._restart()
        elif self._cells is None and _SINGLE_COLUMN(self._text):
            blanks = "" if end is None else " " * (min(end, self._size) - start)
            self._text = self._text[:start] + blanks + ("" if end is None else self._text[end:])
            self._size = len(self._text)
        else:
            self._erase_cells(start, end)

    def redraw(self, states: list[str]) -> bool:
        """Write each state at column 0, one after another, where no character among them takes more than a column.

        False, and nothing written, where that cannot be done at once.
        """
        longest = max(max(map(len, states)), self._size)
        if (
            self._head is not None
            or longest > self.long_line
            or not self.is_simple()
            or not all(map(_SINGLE_COLUMN, states))
        ):
            return False
        self._text = _last_state([self._text, *states], longest)
        self._size = longest
        return True

    def is_simple(self) -> bool:
        """Whether each character fills one column, so that redrawing costs no more than copying."""
        if self._head is None and self._cells is not None:
            whole = "".join(self._cells)
            if not _SINGLE_COLUMN(whole):
                return False
            self._text, self._cells = whole, None
        return self._head is not None or bool(_SINGLE_COLUMN(self._text))

    def _whole(self) -> str:
        return self._text if self._cells is None else "".join(self._cells)

    def _append(self, text: str) -> None:
        if self._cells is None:
            self._text += text
            self._size += len(text)
        else:
            self._write_cells(text, len(self._cells))

    def _overwrite(self, text: str, column: int) -> int | None:
        if self._cells is None and _SINGLE_COLUMN(self._text) and _SINGLE_COLUMN(text):
            old = self._text
            end = column + len(text)
            self._text = f"{old[:column]:<{column}}{text}{old[end:]}" if column else text + old[end:]
            self._size = len(self._text)
            return end if end < self._size else None
        return self._write_cells(text, column)

    def _as_cells(self) -> list[str]:
        if self._cells is None:
            text, self._text, self._size = self._text, "", 0
            self._cells = []
            self._write_cells(text, 0)
        return self._cells

    def _write_cells(self, text: str, column: int) -> int | None:
        cells = self._as_cells()
        if column > len(cells):
            self._size += column - len(cells)
            cells.extend(" " * (column - len(cells)))
        for number, char in enumerate(text, 1):
            before = _cluster_before(cells, column)
            if before is not None and binds(cells[before], char):
                cells[before] += char
                self._size += 1
            else:
                column = self._put(cells, column, char)
            if self._size > self.long_line:  # at this character, however the text was cut
                self._become_long()
                return self._write_long(text[number:], None)
        return column if column < len(cells) else None

    def _erase_cells(self, start: int, end: int | None) -> None:
        cells = self._as_cells()
        for column in range(start, min(start + 1 if end is None else end, len(cells))):
            _blank(cells, column)
        if end is None:
            del cells[start:]
        self._size = sum(map(len, cells))

    def _put(self, cells: list[str], column: int, char: str) -> int:
        width = 2 if is_wide(char) else 1
        if column == len(cells):
            cells.append(char)
            self._size += 1
        else:
            self._size += _blank(cells, column)
            cells[column] = char
        if width == 2:
            if column + 1 == len(cells):
                cells.append("")
            else:
                self._size += _blank(cells, column + 1) - 1
                cells[column + 1] = ""
        return column + width

    def _become_long(self) -> None:
        whole = self._whole()
        self._cells = None
        self._head = whole[: self.long_line // 2]
        self._text = whole[len(self._head) :]
        self._half_flag = flag_halves_before(self._head, len(self._head)) % 2 == 1
        self._size = len(whole)
        self.gap_is_one_run = True

    def _write_long(self, text: str, column: int | None) -> int | None:
        if column is not None:
            self._restart()
            return self.write(text, None)
        self._size += len(text)
        self._text += text
        kept = self._kept_tail()
        if len(self._text) > 4 * kept:
            self._drop(kept)
        return None

    def _drop(self, kept: int) -> None:
        """Keep only the last `kept` characters of an endless line's end, and whether a flag is cut in two there."""
        dropped = self._text[:-kept]
        if self.gap_is_one_run and BREAKS_RUN.search(dropped):
            self.gap_is_one_run = False
        halves = flag_halves_before(dropped, len(dropped))
        if halves == len(dropped):
            halves += self._half_flag
        self._half_flag = halves % 2 == 1
        self._text = self._text[-kept:]

    def _kept_tail(self) -> int:
        return self.long_line // 2 + MAX_CLUSTER

    def _restart(self) -> None:
        self._text, self._cells, self._head, self._size = "", None, None, 0


def _last_state(segments: list[str], longest: int) -> str:
    state = ""
    for segment in reversed(segments):
        if len(segment) > len(state):
            state += segment[len(state) :]
            if len(state) == longest:
                break
    return state


def _cluster_before(cells: list[str], column: int) -> int | None:
    """The cell of the character before `column`; the second column of a wide one is an empty cell."""
    if column == 0 or column > len(cells):
        return None
    return column - 2 if column > 1 and not cells[column - 1] else column - 1


def _blank(cells: list[str], column: int) -> int:
    """Make `column` a blank of its own; the other half of a wide character goes blank too.

    Returns by how many characters the cells grew.
    """
    first = column if cells[column] else column - 1
    grown = -len(cells[first])
    columns = 2 if first + 1 < len(cells) and not cells[first + 1] else 1
    cells[first : first + columns] = [" "] * columns
    return grown + columns
