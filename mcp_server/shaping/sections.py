"""The sections of a report share its room: by rank, then evenly, and what one does not use another may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mcp_server.shaping.marks import note
from mcp_server.shaping.window import Excerpt, ShapedText

FAILURE, VALUES, STREAMS = range(3)
"""Ranks: each but the last may take half of what the ranks before it left, and more where others leave it."""


@dataclass(frozen=True, slots=True)
class Section:
    """Rows to be cut to what room there is, or a `fixed` text that stands whole. Without either it is not shown.

    `where` says in gap lines where all of the rows' text is.
    """

    heading: str
    rows: ShapedText
    rank: int
    where: str = ""
    fixed: str = ""

    @property
    def blank(self) -> bool:
        return self.rows.blank and not self.fixed

    @property
    def frame_chars(self) -> int:
        """What the section takes besides its rows; each line with its newline."""
        pointer = len(self._pointer()) + 1 if self.rows.elided_chars else 0
        heading = len(self.heading) + 1 if self.heading else 0
        return heading + (len(self.fixed) + 1 if self.fixed else 0) + pointer

    @property
    def wanted_chars(self) -> int:
        return 0 if self.rows.blank else self.rows.wanted_chars(self.where)

    @property
    def least_chars(self) -> int:
        return 0 if self.rows.blank else min(self.wanted_chars, self.rows.least_chars(self.where))

    def excerpt(self, room: int) -> Excerpt:
        return self.rows.fit(room - 1, self.where)

    def text(self, excerpt: Excerpt) -> str:
        """Heading and rows; lines that lost their middle are followed by where all of it is."""
        pointer = self._pointer() if excerpt.elided_chars and not excerpt.missing_chars else ""
        return "\n".join(filter(None, (self.heading, excerpt.text, self.fixed, pointer)))

    def _pointer(self) -> str:
        return note(self.where) if self.where else ""


@dataclass(frozen=True, slots=True)
class Body:
    """The sections' text, and what each of them showed, in their order."""

    text: str
    excerpts: tuple[Excerpt, ...]


def arrange(sections: Sequence[Section], room: int) -> Body:
    """All sections in at most `room` characters.

    Where not even a gap line for each finds room, the sections of the lowest rank go, and a line says so.
    """
    chosen = [section for section in sections if not section.blank]
    room += 1  # the last line has no newline
    wanted = {id(section): section.wanted_chars for section in chosen}
    if sum(section.frame_chars for section in chosen) + sum(wanted.values()) <= room:
        return _body(sections, wanted)
    dropped = _drop_until_fitting(chosen, room)
    room -= sum(section.frame_chars + section.least_chars for section in chosen)
    room -= sum(len(line) + 1 for line in dropped)
    ranks = [[section for section in chosen if section.rank == rank] for rank in (FAILURE, VALUES, STREAMS)]
    more = share_by_rank(room, [[section.wanted_chars - section.least_chars for section in rank] for rank in ranks])
    rooms = {
        id(section): section.least_chars + extra
        for rank, extras in zip(ranks, more, strict=True)
        for section, extra in zip(rank, extras, strict=True)
    }
    return _body(sections, rooms, dropped)


def _body(sections: Sequence[Section], rooms: Mapping[int, int], dropped: Sequence[str] = ()) -> Body:
    """The sections that have a room, each within its own."""
    excerpts = tuple(section.excerpt(rooms.get(id(section), 0)) for section in sections)
    texts = [section.text(excerpt) for section, excerpt in zip(sections, excerpts, strict=True) if id(section) in rooms]
    return Body("\n".join([*texts, *dropped]), excerpts)


def _drop_until_fitting(sections: list[Section], room: int) -> list[str]:
    """Take sections away until the least of each fits; returns the line that says so, or nothing."""
    said = note("some sections left out: no room")
    least = sum(section.frame_chars + section.least_chars for section in sections)
    if least <= room:
        return []
    while sections and least + len(said) + 1 > room:
        droppable = [section for section in sections if not (section.rank == FAILURE and section.fixed)]
        if not droppable:
            break
        section = max(reversed(droppable), key=lambda section: section.rank)
        sections.remove(section)
        least -= section.frame_chars + section.least_chars
    return [said]


def share_by_rank(room: int, ranks: Sequence[Sequence[int]]) -> list[list[int]]:
    """Parts of `room` for the wants in each rank. What the last rank leaves goes back to the first that wants more."""
    parts: list[list[int]] = []
    for number, wants in enumerate(ranks):
        given = share_evenly(room if number == len(ranks) - 1 else room // 2, wants)
        room -= sum(given)
        parts.append(given)
    for number, wants in enumerate(ranks):
        more = share_evenly(room, [want - got for want, got in zip(wants, parts[number], strict=True)])
        room -= sum(more)
        parts[number] = [got + extra for got, extra in zip(parts[number], more, strict=True)]
    return parts


def share_evenly(room: int, wants: Sequence[int]) -> list[int]:
    """Parts of `room`, none more than its want; what a small want does not use goes to the larger ones."""
    parts = [0] * len(wants)
    order = sorted(range(len(wants)), key=lambda index: wants[index])
    for place, index in enumerate(order):
        parts[index] = min(wants[index], room // (len(order) - place))
        room -= parts[index]
    return parts
