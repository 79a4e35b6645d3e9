"""The frames of a traceback as lines: the user's with their source, a library's in one line, the worker's never."""

from __future__ import annotations

import builtins
import itertools
import linecache
import os
import sys
import sysconfig
import traceback
from types import TracebackType

globals()["__builtins__"] = dict(vars(builtins))

_OWN = os.path.dirname((lambda: None).__code__.co_filename) + os.sep
"""As code objects name it: the place that this package was loaded from."""

_CELL = "<cell "
_LIBRARIES = tuple(
    sorted(
        {os.path.join(place, "") for key, place in sysconfig.get_paths().items() if key.endswith(("lib", "stdlib"))},
        key=len,
        reverse=True,
    )
)
_PACKAGES = (os.sep + "site-packages" + os.sep, os.sep + "dist-packages" + os.sep)

_LONGEST_PERIOD = 10
"""Functions that call each other in a ring of up to this many are folded as one recursion."""

_LEAST_REPEATS = 3
_MOST_LIBRARY = 4
"""Consecutive library frames shown in full; of more, the first and the last two: where it went in, where it ended."""

_MOST_SHOWN = 200
_MOST_SOURCE_CHARS = 500


def render(entry: TracebackType | None) -> list[str]:
    """The lines under `Traceback (most recent call last):`; empty where no frame is the user's or a library's."""
    entries = _relevant(entry)
    lines: list[str] = []
    position = shown = 0
    while position < len(entries):
        if shown >= _MOST_SHOWN and len(entries) - position > _MOST_SHOWN:
            left_out = len(entries) - position - _MOST_SHOWN
            lines.append("  [%d frames left out]" % left_out)
            position += left_out
        period, repeats = _repetition(entries, position)
        count = period if repeats else _run_length(entries, position)
        lines += _block(entries[position : position + count])
        if repeats:
            what = "frame" if period == 1 else "%d frames" % period
            lines.append("  [the last %s repeated %d more times]" % (what, repeats - 1))
            count = period * repeats
        position += count
        shown += 1
    return lines


def _relevant(entry: TracebackType | None) -> list[TracebackType]:
    """All frames but ours; of what led into the user's code (the event loop), none."""
    entries = []
    while entry is not None:
        entries.append(entry)
        entry = entry.tb_next
    start = 0
    if entries and _file(entries[0]).startswith(_OWN):
        start = next((index for index, found in enumerate(entries) if _file(found).startswith(_CELL)), 0)
    return [found for found in entries[start:] if not _file(found).startswith(_OWN)]


def _file(entry: TracebackType) -> str:
    return entry.tb_frame.f_code.co_filename


def _line(entry: TracebackType) -> int:
    line: int | None = entry.tb_lineno  # None for instructions of no line, which the type stubs do not know
    return line or 0


def _key(entry: TracebackType) -> tuple[int, int]:
    return id(entry.tb_frame.f_code), _line(entry)


def _repetition(entries: list[TracebackType], start: int) -> tuple[int, int]:
    """The shortest period that repeats from `start` on and how often it stands there; (0, 0) for none."""
    for period in range(1, _LONGEST_PERIOD + 1):
        if start + period * _LEAST_REPEATS > len(entries):
            break
        if _key(entries[start]) != _key(entries[start + period]):
            continue
        position = start
        while position + period < len(entries) and _key(entries[position]) == _key(entries[position + period]):
            position += 1
        repeats = (position - start) // period + 1
        if repeats >= _LEAST_REPEATS:
            return period, repeats
    return 0, 0


def _run_length(entries: list[TracebackType], start: int) -> int:
    """One frame of the user's, or as many of libraries as stand together."""
    end = start
    while end < len(entries) and _is_library(_file(entries[end])):
        end += 1
    return max(end - start, 1)


def _block(entries: list[TracebackType]) -> list[str]:
    lines: list[str] = []
    for is_library, group in itertools.groupby(entries, lambda entry: _is_library(_file(entry))):
        members = list(group)
        if not is_library:
            for entry in members:
                lines += _with_source(entry)
        elif len(members) <= _MOST_LIBRARY:
            lines += [_in_one_line(entry) for entry in members]
        else:
            lines.append(_in_one_line(members[0]))
            lines.append("  [%d library frames]" % (len(members) - 3))
            lines += [_in_one_line(entry) for entry in members[-2:]]
    return lines


def _is_library(filename: str) -> bool:
    if filename.startswith(_CELL):
        return False
    return (
        filename.startswith((*_LIBRARIES, "<frozen "))
        or filename.endswith((".pyx", ".pxi"))
        or any(place in filename for place in _PACKAGES)
    )


def _in_one_line(entry: TracebackType) -> str:
    return "  %s:%d, in %s" % (_short(_file(entry)), _line(entry), _function(entry))


def _short(filename: str) -> str:
    """A library's file as its package names it."""
    for place in _PACKAGES:
        if place in filename:
            return filename.rsplit(place, 1)[1]
    for place in _LIBRARIES:
        if filename.startswith(place):
            return filename[len(place) :]
    return filename


def _function(entry: TracebackType) -> str:
    return entry.tb_frame.f_code.co_name


def _with_source(entry: TracebackType) -> list[str]:
    """As Python shows a frame, with marks under the part of the line where its version knows them."""
    frame = entry.tb_frame
    code = frame.f_code
    number = _line(entry)
    linecache.lazycache(code.co_filename, frame.f_globals)
    line = linecache.getline(code.co_filename, number)
    if len(line) > _MOST_SOURCE_CHARS:
        text = "%s [… a line of %d characters]" % (line.strip()[:_MOST_SOURCE_CHARS], len(line))
        return ['  File "%s", line %d, in %s' % (code.co_filename, number, code.co_name), "    " + text]
    if sys.version_info >= (3, 11):
        positions = next(itertools.islice(code.co_positions(), entry.tb_lasti // 2, None), (None, None, None, None))
        summary = traceback.FrameSummary(
            code.co_filename,
            number,
            code.co_name,
            lookup_line=False,
            end_lineno=positions[1],
            colno=positions[2],
            end_colno=positions[3],
        )
    else:
        summary = traceback.FrameSummary(code.co_filename, number, code.co_name, lookup_line=False)
    return "".join(traceback.StackSummary.from_list([summary]).format()).rstrip("\n").split("\n")
