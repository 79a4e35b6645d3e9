"""Where text may be cut without breaking what a reader sees as one character.

A practical reading of Unicode's extended grapheme clusters (UAX #29): combining marks, variation selectors, emoji
modifiers, tags and Hangul vowels and finals belong to what stands before them, a zero width joiner binds both sides,
and regional indicators (flags) go in pairs. A cluster of more than `MAX_CLUSTER` code points is no writing system's,
and may be cut.
"""

from __future__ import annotations

import unicodedata

MAX_CLUSTER = 64
"""Code points. The longest emoji in use has ten; Unicode's Stream-Safe Text Format allows 30 marks in a row."""

_JOINER = "\u200d"
_MARKS = frozenset(("Mn", "Mc", "Me"))


def extends(char: str) -> bool:
    """Whether `char` belongs to the character before it, whichever that is."""
    if char < "\u0300":
        return False
    return (
        unicodedata.category(char) in _MARKS
        or char == _JOINER
        or "\u1160" <= char <= "\u11ff"
        or "\U0001f3fb" <= char <= "\U0001f3ff"
        or "\U000e0020" <= char <= "\U000e007f"
    )


def is_flag_half(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def binds(cluster: str, char: str) -> bool:
    """Whether `char` continues `cluster`, the whole of the character before it."""
    if not cluster or len(cluster) >= MAX_CLUSTER:
        return False
    if extends(char) or cluster[-1] == _JOINER:
        return True
    return is_flag_half(char) and len(cluster) == 1 and is_flag_half(cluster)


def is_boundary(text: str, at: int) -> bool:
    """Whether `text` may be cut before index `at`."""
    if at <= 0 or at >= len(text):
        return True
    before, after = text[at - 1], text[at]
    if before < "\u0300" and after < "\u0300":
        return True
    if extends(after) or before == _JOINER:
        return False
    return not (is_flag_half(after) and flag_halves_before(text, at) % 2 == 1)


def cut_at_or_before(text: str, at: int) -> int:
    """The last place not after `at` where `text` may be cut; `at` itself inside an endless cluster."""
    for place in range(at, max(at - MAX_CLUSTER, -1), -1):
        if is_boundary(text, place):
            return place
    return at


def cut_at_or_after(text: str, at: int) -> int:
    """The first place not before `at` where `text` may be cut; `at` itself inside an endless cluster."""
    for place in range(at, min(at + MAX_CLUSTER, len(text)) + 1):
        if is_boundary(text, place):
            return place
    return at


def flag_halves_before(text: str, at: int) -> int:
    """How many regional indicators stand in a row just before `at`."""
    start = at
    while start > 0 and is_flag_half(text[start - 1]):
        start -= 1
    return at - start
