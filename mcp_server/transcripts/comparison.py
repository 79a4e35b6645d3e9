"""Whether a run came out as it did before. Pure: two results in, what differs out.

What must differ is made alike first: handles, the paths that hold them, addresses of objects. The first line of a
report and the statements below it are of the one run, and are left out.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MAX_DIFF_LINES = 12
"""Of one run: enough to see what it is about."""

MAX_DIFF_CHARS = 160
"""Of one line."""

STOPPED = frozenset(("interrupted", "cancelled"))
"""Stopped from outside: which of the two depends on who asked."""

BY_THE_CLOCK = STOPPED | {"timeout"}
"""How far such a run came is the machine's matter; its output is not compared."""

_HEADING = re.compile(r"⟦(.*)⟧")
# The headings of reports; what stands under none is stdout.
_OUTPUT = ("", "stderr", "output from after earlier runs had ended", "files")
_VALUES = ("displayed", "result", "error")

_ALIKE = (
    (re.compile(r"ctx_[\w-]{8,22}"), "ctx_…"),
    (re.compile(r"\b0x[0-9a-f]{6,16}\b"), "0x…"),
    (re.compile(r"/\S*/cell-[0-9a-f]{16}/"), "/…/"),
)


@dataclass(frozen=True, slots=True)
class Played:
    """How one run came out. ``reports`` are the texts that its calls returned; none where its output was streamed.

    ``images`` are digests.
    """

    status: str
    state: str
    reports: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    error: str = ""
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """``parts`` say of status, output and result whether they are the same; None: not compared, and ``note`` why."""

    parts: dict[str, bool | None]
    diff: tuple[str, ...] = ()
    note: str = ""

    @property
    def same(self) -> bool:
        return all(part is not False for part in self.parts.values())


def compare(before: Played, now: Played) -> Comparison:
    status = _status(before) == _status(now)
    if not before.reports:
        return Comparison({"status": status, "output": None, "result": None}, note="its output was not recorded")
    if before.status in BY_THE_CLOCK:
        diff = _diff([_status(before)], [_status(now)])
        note = "where it was stopped depends on the clock"
        return Comparison({"status": status, "output": None, "result": None}, diff, note)
    was, came = _sections(before.reports), _sections(now.reports)
    split = len(before.reports) > 1
    output = _text(was, _OUTPUT, split=split) == _text(came, _OUTPUT, split=split)
    errors = alike(before.error) == alike(now.error)
    result = _text(was, _VALUES) == _text(came, _VALUES) and before.images == now.images and errors
    parts: dict[str, bool | None] = {"status": status, "output": output, "result": result}
    if status and output and result:
        return Comparison(parts)
    diff = _diff([_status(before), *_lines(was)], [_status(now), *_lines(came)])
    return Comparison(parts, diff or ("another image, or another error",))


def alike(text: str) -> str:
    """The text without what differs from one run to the next in any case."""
    for pattern, instead in _ALIKE:
        text = pattern.sub(instead, text)
    return text


def _status(played: Played) -> str:
    status = "stopped" if played.status in STOPPED else played.status
    code = "" if played.exit_code is None else f", exit code {played.exit_code}"
    return f"{status}, variables {played.state}{code}"


def _sections(reports: Sequence[str]) -> dict[str, list[str]]:
    """The lines below the headings of all reports together; under no heading, stdout."""
    sections: dict[str, list[str]] = {name: [] for name in (*_OUTPUT, *_VALUES)}
    for report in reports:
        section = sections[""]
        for line in _below_opening(alike(report).split("\n")):
            heading = _HEADING.fullmatch(line)
            if heading is not None and heading[1] in sections:
                section = sections[heading[1]]
            else:
                section.append(line)
    return sections


def _text(sections: Mapping[str, list[str]], names: Sequence[str], *, split: bool = False) -> list[str]:
    """What came in several reports may have been cut inside of any line."""
    return [("" if split else "\n").join(sections[name]) for name in names]


def _lines(sections: Mapping[str, list[str]]) -> list[str]:
    named = ([f"⟦{name}⟧", *lines] if name else lines for name, lines in sections.items() if lines)
    return list(itertools.chain.from_iterable(named))


def _below_opening(report: Sequence[str]) -> Sequence[str]:
    def opening(line: str) -> bool:
        heading = _HEADING.fullmatch(line)
        return heading is not None and heading[1] not in (*_OUTPUT, *_VALUES)

    return list(itertools.dropwhile(opening, report[1:]))


def _diff(before: Sequence[str], now: Sequence[str]) -> tuple[str, ...]:
    lines = [
        line if len(line) <= MAX_DIFF_CHARS else line[:MAX_DIFF_CHARS] + "…"
        for line in itertools.islice(difflib.unified_diff(before, now, lineterm="", n=1), 2, None)
        if not line.startswith("@@")
    ]
    if len(lines) > MAX_DIFF_LINES:
        left = len(lines) - MAX_DIFF_LINES
        return (*lines[:MAX_DIFF_LINES], f"… {left} more lines")
    return tuple(lines)
