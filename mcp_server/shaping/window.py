"""Shaped output, cut to a budget: head and tail, and in the gap between them the first line that tells of a failure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mcp_server.shaping.lines import Row, shorten
from mcp_server.shaping.marks import counted, note
from mcp_server.shaping.notable import is_notable

HEAD_PART = 0.4
"""Of the room for rows. Summaries and errors stand at the end, so the end gets more."""

NOTABLE_PART = 0.2
NOTABLE_ROWS = 12
"""A line that tells of a failure and what follows it, such as a short traceback."""


SHORTEST_ROW = 120
"""A row that does not fit is shortened to what room there is, but not to less than this: then it goes whole."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What a budget had room for.

    Counts of lines and characters are of the raw stream; shown and missing ones add up to all of it. `elided_chars`
    are those left out inside of lines that are shown, each place saying so.
    """

    text: str
    shown_lines: int = 0
    shown_chars: int = 0
    missing_lines: int = 0
    missing_chars: int = 0
    elided_chars: int = 0

    @property
    def complete(self) -> bool:
        return not self.missing_chars and not self.elided_chars


@dataclass(frozen=True, slots=True)
class ShapedText:
    """A stream, or what one window of it held, as rows. A gap that was not kept is a row that is `hidden`.

    `total_bytes` is of the raw stream. Lines are counted by their newlines, an unfinished last line as one.
    """

    rows: tuple[Row, ...] = ()
    total_bytes: int = 0
    total_lines: int = field(init=False)
    total_chars: int = field(init=False)
    """Characters of the decoded raw stream."""
    missing_lines: int = field(init=False)
    """Lines that no budget brings back."""
    missing_chars: int = field(init=False)
    elided_chars: int = field(init=False)
    """Characters left out inside of lines, each place saying so."""
    gaps: int = field(init=False)
    text_chars: int = field(init=False)
    """Of all rows, each with a newline."""

    def __post_init__(self) -> None:
        lines = chars = missing_lines = missing_chars = elided = gaps = text = 0
        for row in self.rows:
            lines += row.lines
            chars += row.chars
            text += len(row.text) + 1
            if row.hidden:
                gaps += 1
                missing_lines += row.lines
                missing_chars += row.chars
            for elision in row.elisions:
                elided += elision.hidden
        note_down = object.__setattr__
        note_down(self, "total_lines", lines)
        note_down(self, "total_chars", chars)
        note_down(self, "missing_lines", missing_lines)
        note_down(self, "missing_chars", missing_chars)
        note_down(self, "elided_chars", elided)
        note_down(self, "gaps", gaps)
        note_down(self, "text_chars", text)

    @property
    def blank(self) -> bool:
        """Whether there is nothing to show."""
        return self.text_chars == len(self.rows) and not self.gaps

    def wanted_chars(self, where: str = "") -> int:
        """Room, with a newline for each line, in which `fit` leaves out nothing that is still here."""
        if not self.gaps:
            return self.text_chars
        shown = sum(len(row.text) + 1 for row in self.rows if not row.hidden)
        return shown + self.gaps * self.least_chars(where)

    def least_chars(self, where: str = "") -> int:
        """Room for a gap line that stands for everything."""
        return len(_gap_line(self.total_lines, self.total_chars, where)) + 1

    def fit(self, budget_chars: int, where: str = "") -> Excerpt:
        """The rows that fit into `budget_chars`; `where` in each gap line says where all of it is.

        Nothing but the rows and the arguments decides: cutting again, from the same rows, to a smaller budget gives
        what cutting to it at once would have given. A budget too small for a gap line shows nothing.
        """
        if not self.rows:
            return Excerpt("")
        if not self.missing_chars and self.text_chars <= budget_chars + 1:
            text = "\n".join([row.text for row in self.rows])
            return Excerpt(text, self.total_lines, self.total_chars, elided_chars=self.elided_chars)
        gap = self.least_chars(where)
        if gap > budget_chars + 1:
            return self.fit(budget_chars) if where else Excerpt("", 0, 0, self.total_lines, self.total_chars)
        return _excerpt(_choose(self.rows, budget_chars + 1 - gap, gap), where)


NOTHING = ShapedText()


def _choose(rows: Sequence[Row], room: int, gap: int) -> list[Sequence[Row]]:
    """Rows to show and rows to leave out, by turns, beginning with what to show."""
    head, omitted, tail = _head_and_tail(rows, room)
    if not any(_tells_of_failure(row) for row in omitted):
        return [head, omitted, tail]
    reserved = int(room * NOTABLE_PART)
    smaller = room - reserved - gap
    if reserved < SHORTEST_ROW or smaller < 2 * SHORTEST_ROW:
        return [head, omitted, tail]
    head, omitted, tail = _head_and_tail(rows, smaller)
    start = next(index for index, row in enumerate(omitted) if _tells_of_failure(row))
    island = _fitting(omitted[start : start + NOTABLE_ROWS], reserved)
    if not island:
        island = [shorten(omitted[start], reserved - 1)]
    rest = omitted[start + len(island) :]
    more = _fitting(reversed(rest), reserved - _cost(island))[::-1]
    return [head, omitted[:start], island, rest[: len(rest) - len(more)], [*more, *tail]]


def _tells_of_failure(row: Row) -> bool:
    return not row.hidden and is_notable(row.text)


def _head_and_tail(rows: Sequence[Row], room: int) -> tuple[Sequence[Row], Sequence[Row], Sequence[Row]]:
    head = _fitting(rows, int(room * HEAD_PART))
    left = room - _cost(head)
    tail = _fitting(rows[: len(head) - len(rows) - 1 : -1], left)[::-1]
    if not tail and not rows[-1].hidden and left > SHORTEST_ROW:
        tail = [shorten(rows[-1], left - 1)]
    left -= _cost(tail)
    middle = rows[len(head) : len(rows) - len(tail)]
    more = _fitting(middle, left)
    left -= _cost(more)
    head, middle = [*head, *more], middle[len(more) :]
    if not head and middle and not middle[0].hidden and left > SHORTEST_ROW:
        head, middle = [shorten(middle[0], left - 1)], middle[1:]
    return head, middle, tail


def _fitting(rows: Iterable[Row], room: int) -> list[Row]:
    """The first rows, up to a gap, that `room` has place for with the newline of each."""
    taken: list[Row] = []
    for row in rows:
        room -= len(row.text) + 1
        if row.hidden or room < 0:
            break
        taken.append(row)
    return taken


def _cost(rows: Iterable[Row]) -> int:
    return sum(len(row.text) + 1 for row in rows)


def _excerpt(spans: Sequence[Sequence[Row]], where: str) -> Excerpt:
    shown = [row for span in spans[::2] for row in span]
    omitted = [row for span in spans[1::2] for row in span]
    lines: list[str] = []
    for index, span in enumerate(spans):
        if index % 2 == 0:
            lines.extend(row.text for row in span)
        elif span:
            lines.append(_gap_line(sum(row.lines for row in span), sum(row.chars for row in span), where))
    return Excerpt(
        text="\n".join(lines),
        shown_lines=sum(row.lines for row in shown),
        shown_chars=sum(row.chars for row in shown),
        missing_lines=sum(row.lines for row in omitted),
        missing_chars=sum(row.chars for row in omitted),
        elided_chars=sum(elision.hidden for row in shown for elision in row.elisions),
    )


def _gap_line(lines: int, chars: int, where: str) -> str:
    characters = counted(chars, "character")
    what = f"{counted(lines, 'line')} ({characters})" if lines else characters
    return note(f"… {what} left out{'; ' + where if where else ''}")
