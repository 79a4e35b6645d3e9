"""What the interpreter says itself, and how a program's text is kept from looking like it.

Every word of ours inside a report stands between ``⟦`` and ``⟧``: gap lines, fold lines, headings, elisions. The two
characters never come from a program: its own are shown as ``〚`` and ``〛``. So nothing that code prints can be taken
for a statement of the interpreter's.

Each replacement is one character for one, so counts of characters are the same before and after.
"""

from __future__ import annotations

import re

OPEN = "⟦"
CLOSE = "⟧"

_NEWLINE_SYMBOL = 0x2424
_REPLACEMENT = 0xFFFD


def _visible_forms() -> dict[int, int]:
    forms = {code: 0x2400 + code for code in range(0x20) if code != ord("\t")}
    forms[0x7F] = 0x2421
    forms |= dict.fromkeys(range(0x80, 0xA0), _REPLACEMENT)
    # What other programs take for a line break would make lines that we have not counted.
    forms |= dict.fromkeys((0x85, 0x2028, 0x2029), _NEWLINE_SYMBOL)
    # Bidirectional overrides make text read as something that it is not; ordinary right-to-left text needs none.
    forms |= dict.fromkeys(range(0x202A, 0x202F), _REPLACEMENT)
    forms |= dict.fromkeys(range(0xD800, 0xE000), _REPLACEMENT)
    forms[ord(OPEN)] = ord("〚")
    forms[ord(CLOSE)] = ord("〛")
    return forms


_VISIBLE = _visible_forms()
_TO_REPLACE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e⟦⟧\ud800-\udfff]")


def visible(text: str) -> str:
    """One line of a program's text with every control character visible, of the same length."""
    return text.translate(_VISIBLE) if _TO_REPLACE.search(text) else text


def one_line(text: str, limit: int) -> str:
    """Foreign text as part of a line of ours: blanks and line breaks joined, at most `limit` characters."""
    joined = visible(" ".join(text.split()))
    return joined if len(joined) <= limit else joined[: limit - 1] + "…"


def note(text: str) -> str:
    """`text` as a statement of ours."""
    return f"{OPEN}{text}{CLOSE}"


def counted(number: int, unit: str) -> str:
    """``1 line``, ``12,345 lines``."""
    return f"{number:,} {unit}" if number == 1 else f"{number:,} {unit}s"
