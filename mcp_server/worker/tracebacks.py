"""An exception as text: the user's frames with their lines, none of the worker's, nothing without bound.

Everything about an exception may be the user's code: its text, its notes, its chain, the lines of its syntax error.
Each of these may raise, be of any type, or be enormous; what cannot be had is said in its place.
"""

from __future__ import annotations

import builtins
from typing import Any, NamedTuple

from . import hints, stacks

globals()["__builtins__"] = dict(vars(builtins))

_MOST_MESSAGE_CHARS = 4_000
"""A report gives about 9,000 characters to everything; the message is what may never be lost from it."""

_MOST_NAME_CHARS = 300

_MOST_CHARS = 256 * 1024
"""Escaped to ASCII at its worst (twelve bytes for a character) this still fits a frame's header."""

_MOST_LINES = 10_000
_MOST_CHAINED = 20
_MOST_NOTES = 20
_MOST_GROUPED = 15
_MOST_GROUP_DEPTH = 10
"""The last two are those of Python's own traceback module."""

_MOST_SOURCE_CHARS = 200

_CAUSE = "The above exception was the direct cause of the following exception:"
_CONTEXT = "During handling of the above exception, another exception occurred:"


class Failure(NamedTuple):
    """What END says of an error. `traceback` ends in `name: message`; notes and hints are lines of the message."""

    name: str
    message: str
    traceback: str


def describe(error: BaseException) -> Failure:
    """Never raises."""
    try:
        name, message = _head(error, with_hint=True)
        writer = _Writer()
        _write_chain(writer, error, message, ())
        if _grouped(error):
            writer.add("", _last_line(name, message))
        return Failure(name, message, _cut("\n".join(writer.lines), _MOST_CHARS))
    except BaseException as trouble:
        return _plain(type(error), trouble)


def _plain(kind: type[BaseException], trouble: BaseException) -> Failure:
    name = _short(str(type.__getattribute__(kind, "__name__")))
    message = "(the error could not be described: %s was raised)" % type.__getattribute__(type(trouble), "__name__")
    return Failure(name, message, _last_line(name, message))


class _Writer:
    """The lines of a traceback, up to a bound on their number; `prefix` stands before those of a group's members."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.prefix = ""

    @property
    def is_full(self) -> bool:
        return len(self.lines) >= _MOST_LINES

    def add(self, *lines: str) -> None:
        for text in lines:
            self.lines += [(self.prefix + line).rstrip(" ") for line in text.split("\n")]


def _write_chain(writer: _Writer, error: BaseException, message: str, above: tuple[int, ...]) -> None:
    """Write an exception after those that led to it, oldest first. `above` are the groups that it is in."""
    chain: list[tuple[BaseException, str]] = [(error, "")]
    seen = {id(error), *above}
    while len(chain) < 100 * _MOST_CHAINED:
        earlier, link = _earlier(chain[-1][0])
        if earlier is None or id(earlier) in seen:
            break
        seen.add(id(earlier))
        chain.append((earlier, link))
    dropped = len(chain) - _MOST_CHAINED
    if dropped > 0:
        chain[_MOST_CHAINED // 2 : -_MOST_CHAINED // 2] = []
    for index in range(len(chain) - 1, 0, -1):
        earlier, link = chain[index]
        _write_one(writer, earlier, _head(earlier)[1], above)
        writer.add("", link, "")
        if dropped > 0 and index == _MOST_CHAINED // 2:
            writer.add("[%d more exceptions of this chain are left out]" % dropped, "")
    _write_one(writer, error, message, above)


def _earlier(error: BaseException) -> tuple[BaseException | None, str]:
    if error.__cause__ is not None:
        return error.__cause__, _CAUSE
    if error.__context__ is not None and not error.__suppress_context__:
        return error.__context__, _CONTEXT
    return None, ""


def _write_one(writer: _Writer, error: BaseException, message: str, above: tuple[int, ...]) -> None:
    if writer.is_full:
        writer.add("[more left out]")
        return
    members = _grouped(error)
    frames = _frames(error)
    outer = writer.prefix
    header = "%sTraceback (most recent call last):" % ("Exception Group " if members else "")
    if members and not above:
        header = "  + " + header
    if frames:
        writer.add(header)
    if members and not above:
        writer.prefix = "  | "
    writer.add(*frames)
    if isinstance(error, SyntaxError):
        writer.add(*_syntax_lines(error))
    writer.add(_last_line(_name(error), message))
    if members:
        _write_members(writer, members, (*above, id(error)))
    writer.prefix = outer


def _frames(error: BaseException) -> list[str]:
    try:
        return stacks.render(error.__traceback__)
    except Exception as trouble:  # user code may have changed what this needs: linecache, a module's loader
        return ["  [the frames cannot be shown: %s was raised]" % type(trouble).__name__]


def _write_members(writer: _Writer, members: tuple[BaseException, ...], above: tuple[int, ...]) -> None:
    """Write the exceptions of a group, each in a box of its own, under the begin of the group's own lines."""
    if len(above) > _MOST_GROUP_DEPTH:
        writer.add("[deeper groups are left out]")
        return
    box = writer.prefix[:-2]
    for number, member in enumerate(members[:_MOST_GROUPED], 1):
        writer.prefix = box
        writer.add("%s---------------- %d ----------------" % ("+-+" if number == 1 else "  +", number))
        writer.prefix = box + "  | "
        if id(member) not in above:
            _write_chain(writer, member, _head(member)[1], above)
    if len(members) > _MOST_GROUPED:
        writer.add("[%d more exceptions of this group are left out]" % (len(members) - _MOST_GROUPED))
    writer.prefix = box
    writer.add("  +------------------------------------")


def _grouped(error: BaseException) -> tuple[BaseException, ...]:
    """The members of an exception group, those of the backport for older Pythons included."""
    members = getattr(error, "exceptions", None)
    if "ExceptionGroup" not in "".join(kind.__name__ for kind in type(error).__mro__):
        return ()
    return tuple(members) if isinstance(members, (tuple, list)) else ()


def _name(error: BaseException) -> str:
    kind = type(error)
    module = kind.__module__
    return _short(kind.__qualname__ if module in ("builtins", "__main__") else "%s.%s" % (module, kind.__qualname__))


def _short(name: str) -> str:
    return name if len(name) <= _MOST_NAME_CHARS else name[:_MOST_NAME_CHARS] + "…"


def _head(error: BaseException, with_hint: bool = False) -> tuple[str, str]:
    """Name and message; notes and a hint are further lines of the message."""
    parts = [_cut(_own_message(error), _MOST_MESSAGE_CHARS), *_notes(error)]
    if with_hint:
        parts += _hints(error)
    return _name(error), "\n".join(filter(None, parts))


def _hints(error: BaseException) -> list[str]:
    try:
        found = hints.hint(error)
    except Exception:  # it looks at objects of the user's, and is no loss
        return []
    return [found] if found else []


def _own_message(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and isinstance(error.msg, str):
        return error.msg
    return _text(error)


def _text(value: object) -> str:
    """`str(value)` as an exact string, or what became of it."""
    try:
        return str.__str__(str(value))
    except BaseException as trouble:
        return "(its text cannot be had: %s was raised)" % type(trouble).__name__


def _notes(error: BaseException) -> list[str]:
    notes: Any = getattr(error, "__notes__", None)
    if not isinstance(notes, (list, tuple)):
        return []
    lines = [_cut(_text(note), _MOST_MESSAGE_CHARS // 2) for note in notes[:_MOST_NOTES]]
    if len(notes) > _MOST_NOTES:
        lines.append("[%d more notes are left out]" % (len(notes) - _MOST_NOTES))
    return lines


def _last_line(name: str, message: str) -> str:
    return "%s: %s" % (name, message) if message else name


def _syntax_lines(error: SyntaxError) -> list[str]:
    """Where a syntax error is, with a caret under it where its position is known."""
    if not isinstance(error.filename, str) or not isinstance(error.lineno, int):
        return []
    lines = ['  File "%s", line %d' % (error.filename, error.lineno)]
    if not isinstance(error.text, str):
        return lines
    text = error.text.split("\n", 1)[0].replace("\t", " ")
    source = text.strip()
    if len(source) > _MOST_SOURCE_CHARS:
        return [*lines, "    " + _cut(source, _MOST_SOURCE_CHARS)]
    lines.append("    " + source)
    if isinstance(error.offset, int) and error.offset > 0:
        start = min(max(error.offset - 1 - (len(text) - len(text.lstrip())), 0), len(source))
        width = 1
        end_offset = getattr(error, "end_offset", None)
        if isinstance(end_offset, int) and getattr(error, "end_lineno", None) == error.lineno:
            width = min(max(end_offset - error.offset, 1), max(len(source) - start, 1))
        lines.append("    " + " " * start + "^" * width)
    return lines


def _cut(text: str, most: int) -> str:
    """Three quarters from the begin and one from the end, with what is missing said between."""
    if len(text) <= most:
        return text
    head, tail = most * 3 // 4, most // 4
    gap = "\n[… %s of %s characters left out …]\n" % (format(len(text) - head - tail, ","), format(len(text), ","))
    return text[:head] + gap + text[-tail:]
