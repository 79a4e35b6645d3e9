"""`repr`, bounded: the same text for what is small, head and tail for what is large, a sentence for what fails.

Containers are walked item by item, so that a list of a hundred million numbers costs no more than the part of it that
is shown. What objects of other kinds say of themselves is cut to the bound after they said it. Text that is longer
than a line is laid out over several.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterable
from typing import Any

MOST_CHARS = 32_000
"""Several times what a report gives to a result by default."""

_WIDTH = 120
_MOST_DEPTH = 100
_LEAST_ITEM_CHARS = 40
_MOST_INT_BITS = 14_000
"""Below the 4,300 digits up to which Python turns an int into decimal digits without being asked twice."""

_TAIL_SHARE = 4
"""A quarter of the room is the tail's."""


def plain_text(value: object, most: int = MOST_CHARS) -> str:
    """At most about `most` characters (twice that in the worst nesting). Raises only what is no `Exception`."""
    if type(value) in _ATOMS:
        return _ATOMS[type(value)](value, most)
    form = _Walk(2 * most).form(value, most)
    text = _lay_out(form, 0)
    if len(text) > most:  # then the indents may be most of it
        text = min(text, _flat(form), key=len)
    return cut(text, 2 * most)


def cut(text: str, most: int) -> str:
    """Head and tail with the number of characters left out between."""
    if len(text) <= most:
        return text
    tail = most // _TAIL_SHARE
    head = most - tail
    return "%s[… %s of %s characters left out …]%s" % (
        text[:head],
        format(len(text) - most, ","),
        format(len(text), ","),
        text[len(text) - tail :],
    )


def own_text(value: object) -> str:
    """What an object says of itself; what went wrong, where it cannot."""
    try:
        return str.__str__(repr(value))
    except Exception as trouble:
        return "<%s object whose repr raised %s>" % (type(value).__name__, type(trouble).__name__)


class _Group:
    """A container: brackets around items. `width` is that of its text in one line."""

    __slots__ = ("opening", "items", "closing", "width", "is_flat")

    def __init__(self, opening: str, items: list[_Item], closing: str) -> None:
        self.opening = opening
        self.items = items
        self.closing = closing
        inner = sum(len(item.prefix) + _width(item.form) + 2 for item in items)
        self.width = len(opening) + max(inner - 2, 0) + len(closing)
        self.is_flat = all(_is_flat(item.form) for item in items)


class _Item:
    """One item of a container. `prefix` is the key of a mapping with its colon, or empty; a gap stands alone."""

    __slots__ = ("prefix", "form", "is_gap")

    def __init__(self, prefix: str, form: str | _Group, is_gap: bool = False) -> None:
        self.prefix = prefix
        self.form = form
        self.is_gap = is_gap


def _width(form: str | _Group) -> int:
    return len(form) if isinstance(form, str) else form.width


def _is_flat(form: str | _Group) -> bool:
    return "\n" not in form if isinstance(form, str) else form.is_flat


class _Walk:
    """One walk through nested containers; knows which it is in.

    A container that holds another several times, in many layers, is exponentially long: the steps are bounded too, by
    a number that no text within the bound needs.
    """

    def __init__(self, most_steps: int) -> None:
        self._inside: set[int] = set()
        self._steps_left = most_steps

    def form(self, value: object, most: int) -> str | _Group:
        self._steps_left -= 1
        if self._steps_left < 0:
            return "…"
        kind = type(value)
        atom = _ATOMS.get(kind)
        if atom is not None:
            return atom(value, most)
        shape = _shape(value)
        if shape is None:
            return cut(own_text(value), most)
        opening, closing, count, items, tail, separator = shape
        if id(value) in self._inside:
            return "%s...%s" % (opening, closing.lstrip(","))
        if len(self._inside) >= _MOST_DEPTH:
            return "%s…%s" % (opening, closing)
        self._inside.add(id(value))
        try:
            return _Group(opening, self._items(count, items, tail, separator, most), closing)
        except RuntimeError as trouble:  # it changes while it is walked
            return "<%s object that cannot be walked: %s>" % (kind.__name__, trouble)
        finally:
            self._inside.discard(id(value))

    def _items(
        self, count: int, items: Iterable[Any], tail: Iterable[Any] | None, separator: str, most: int
    ) -> list[_Item]:
        taken = self._take(items, separator, most)
        if len(taken) >= count:
            return taken
        head: list[_Item] = []
        room = most - most // _TAIL_SHARE
        for item in taken:
            room -= _cost(item)
            if head and room < 0:
                break
            head.append(item)
        last: list[_Item] = []
        if tail is not None:
            last = self._take(itertools.islice(tail, count - len(head)), separator, most // _TAIL_SHARE)
            last.reverse()
        missing = count - len(head) - len(last)
        gap = [_Item("", "… %s more …" % format(missing, ","), is_gap=True)] if missing > 0 else []
        return [*head, *gap, *last]

    def _take(self, items: Iterable[Any], separator: str, most: int) -> list[_Item]:
        """Items in order until the room is used up; at least one."""
        taken: list[_Item] = []
        used = 0
        for item in items:
            room = max(most - used, _LEAST_ITEM_CHARS)
            if separator:
                key, value = item
                prefix = (key if separator == _FIELD else _flat(self.form(key, room))) + separator
                entry = _Item(prefix, self.form(value, max(room - len(prefix), _LEAST_ITEM_CHARS)))
            else:
                entry = _Item("", self.form(item, room))
            taken.append(entry)
            used += _cost(entry)
            if used > most + 2 or self._steps_left < 0:
                break
        return taken


def _cost(item: _Item) -> int:
    return len(item.prefix) + _width(item.form) + 2


def _lay_out(form: str | _Group, indent: int) -> str:
    """In one line where it fits, else an item a line, short ones filled up."""
    if isinstance(form, str):
        return form
    if form.is_flat and form.width + indent <= _WIDTH:
        return _flat(form)
    inner = indent + len(form.opening)
    lines: list[str] = []
    line = ""
    last = len(form.items) - 1
    for index, item in enumerate(form.items):
        comma = "," if index < last else ""
        text = item.prefix + _lay_out(item.form, inner + len(item.prefix)) + ("" if item.is_gap else comma)
        if line and (item.is_gap or "\n" in text or inner + len(line) + 1 + len(text) > _WIDTH):
            lines.append(line)
            line = ""
        line = line + " " + text if line else text
        if item.is_gap or item.prefix or "\n" in text:
            lines.append(line)
            line = ""
    if line:
        lines.append(line)
    return form.opening + ("\n" + " " * inner).join(lines) + form.closing


def _flat(form: str | _Group) -> str:
    if isinstance(form, str):
        return form
    return form.opening + ", ".join(item.prefix + _flat(item.form) for item in form.items) + form.closing


_PLAIN, _MAPPING, _FIELD = "", ": ", "="
"""What separates the two parts of an item; a field's name is written as it is."""

_Shape = tuple[str, str, int, Iterable[Any], "Iterable[Any] | None", str]


def _shape(value: Any) -> _Shape | None:
    """How a container that shows itself as a built-in one does is written: opening, closing, number of items, the
    items from the begin and (where that is possible) from the end, and what separates the two parts of an item."""
    kind: Any = type(value)
    shown_by = kind.__repr__
    if shown_by is list.__repr__:
        return "[", "]", list.__len__(value), list.__iter__(value), list.__reversed__(value), _PLAIN
    if shown_by is dict.__repr__:
        return "{", "}", dict.__len__(value), dict.items(value), reversed(dict.items(value)), _MAPPING
    if shown_by is tuple.__repr__:
        count = tuple.__len__(value)
        closing = ",)" if count == 1 else ")"
        backwards = map(tuple.__getitem__, itertools.repeat(value), range(count - 1, -1, -1))
        return "(", closing, count, tuple.__iter__(value), backwards, _PLAIN
    if shown_by in (set.__repr__, frozenset.__repr__) and len(value):
        opening, closing = ("{", "}") if kind is set else (kind.__name__ + "({", "})")
        return opening, closing, len(value), iter(value), None, _PLAIN
    if kind is collections.deque:
        closing = "])" if value.maxlen is None else "], maxlen=%d)" % value.maxlen
        return "deque([", closing, len(value), iter(value), reversed(value), _PLAIN
    if kind is collections.defaultdict:
        opening = "defaultdict(%s, {" % own_text(value.default_factory)
        return opening, "})", len(value), value.items(), reversed(value.items()), _MAPPING
    if kind is collections.Counter and value:
        return "Counter({", "})", len(value), iter(_by_count(value)), None, _MAPPING
    return _dataclass_shape(value)


def _by_count(counter: collections.Counter[Any]) -> list[tuple[Any, int]]:
    try:
        return counter.most_common()
    except TypeError:  # counts that cannot be compared
        return list(counter.items())


def _dataclass_shape(value: Any) -> _Shape | None:
    """A dataclass that shows itself as `dataclasses` made it: its fields may hold what is large."""
    kind = type(value)
    fields = getattr(kind, "__dataclass_fields__", None)
    generated = getattr(getattr(kind.__repr__, "__wrapped__", None), "__code__", None)
    if not isinstance(fields, dict) or generated is None or generated.co_filename != "<string>":
        return None
    names = [name for name, about in fields.items() if about.repr and about._field_type.name == "_FIELD"]  # noqa: SLF001
    if not all(hasattr(value, name) for name in names):
        return None
    pairs = [(name, getattr(value, name)) for name in names]
    return kind.__qualname__ + "(", ")", len(pairs), pairs, None, _FIELD


def _int(value: Any, most: int) -> str:
    if value.bit_length() > _MOST_INT_BITS:
        return "<int of %s bits>" % format(value.bit_length(), ",")
    return cut(repr(value), most)


def _string(value: Any, most: int) -> str:
    """A str or bytes; of a long one only the parts that are shown are escaped."""
    if len(value) <= most:
        return cut(repr(value), most)
    tail = most // _TAIL_SHARE
    what = "characters" if isinstance(value, str) else "bytes"
    return "%s[… %s of %s %s left out …]%s" % (
        cut(repr(value[: most - tail]), most),
        format(len(value) - most, ","),
        format(len(value), ","),
        what,
        cut(repr(value[len(value) - tail :]), most),
    )


def _short(value: Any, _most: int) -> str:
    return repr(value)


_ATOMS: dict[type, Callable[[Any, int], str]] = {
    int: _int,
    str: _string,
    bytes: _string,
    float: _short,
    bool: _short,
    complex: _short,
    type(None): _short,
}
