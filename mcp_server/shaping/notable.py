"""Lines that nobody should miss: where something failed.

When the middle of an output is left out, the first such line in it is shown all the same, in its place between two
gaps. A search for fixed strings costs little; whether the line truly matters is for the reader to judge.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SIGNS = (
    "Traceback (most recent call last)",
    "Error",
    "ERROR",
    "FAILED",
    "FATAL",
    "CRITICAL",
    "Exception",
    "panicked at",
)
"""As Python, its logging, pytest, Java, JavaScript and Rust write them."""

SEARCHED_BYTES = 64 * 1024 * 1024
"""How far into what is left out a failure is looked for: searching costs more than all the rest of shaping."""

KEPT_BYTES = 4096
"""Of the line found and what follows it."""

_RAW_SIGNS = tuple(sign.encode() for sign in SIGNS)
_LONGEST_SIGN = max(map(len, _RAW_SIGNS))
_LINE_BEFORE = 1024
"""Bytes. A sign further into its line is part of a dump, not of a message."""


def is_notable(line: str) -> bool:
    return any(sign in line for sign in SIGNS)


@dataclass(slots=True)
class FailureSearch:
    """Finds the first notable line in raw bytes that come in pieces; any pieces give the same.

    `position` is where in the stream the bytes begin, at a line's start. Once found, `start` is where in the stream
    the line begins and `raw` holds the bytes from there on, as far as they are kept.
    """

    position: int
    start: int | None = None
    raw: bytearray = field(default_factory=bytearray)
    _before: bytes = b"\n"
    _searched: int = 0

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes. Returns, only where they complete the find, all bytes from the line's start on."""
        if self.start is not None:
            self.raw += data[: KEPT_BYTES - len(self.raw)]
            return b""
        if self._searched >= SEARCHED_BYTES:
            return b""
        known = self._before + data
        first = self.position + self._searched - len(self._before)
        self._searched += len(data)
        line = self._find_line(known, SEARCHED_BYTES + self.position - first)
        if line < 0:
            self._before = known[-_LINE_BEFORE - _LONGEST_SIGN :]
            return b""
        self.start = first + line
        self.raw += known[line : line + KEPT_BYTES]
        self._before = b""
        return known[line:]

    def _find_line(self, known: bytes, limit: int) -> int:
        """Where in `known` the first line begins that has a sign, ending before `limit`, near enough; -1 for none."""
        at = max(len(self._before) - _LONGEST_SIGN, 0)
        while True:
            places = [place for sign in _RAW_SIGNS if (place := known.find(sign, at, limit)) >= 0]
            if not places:
                return -1
            place = min(places)
            line = known.rfind(b"\n", max(place - _LINE_BEFORE, 0), place) + 1
            if line:
                return line
            at = known.find(b"\n", place)
            if at < 0:
                return -1
