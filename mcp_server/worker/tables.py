"""Data frames, series and arrays as text: what they are, then head and tail, with what is between counted.

How many rows and columns of a table are shown is ours, unless code has set pandas' own options for it.
Nothing is imported: what user code never imported cannot be the type of a value.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

_MOST_CHARS = 6_000
"""Two thirds of what a report gives to everything by default."""

_MOST_LINE_CHARS = 250

_MOST_WISHED_CHARS = 30_000
_MOST_WISHED_LINE_CHARS = 2_000
"""The same where code wishes for rows or columns: the whole of what a text may have, and of what a line may."""

_MOST_WISHED = {"display.max_rows": 2_000, "display.max_columns": 500}
"""More would be made into text only to be cut."""

_USUAL = {"display.max_rows": (60,), "display.max_columns": (0, 20)}
"""What pandas' options are where nobody has set them."""

_MOST_CELL_CHARS = 60
_MOST_DTYPES = 40
_MOST_WHOLE_ROWS = 60
_ROWS = ((20, 10), (10, 5), (5, 3), (3, 2), (1, 1))
"""Rows from the begin and from the end, in the order in which they are tried."""

_COLUMNS = (20, 12, 8, 5, 3, 2)
_MOST_PLAIN_ARRAY = 20
_MOST_WHOLE_ARRAY = 400
_ARRAY_ENDS = (30, 10)
_ARRAY_ROWS = (8, 4)
_ARRAY_COLUMNS = (8, 4)


def table_text(value: object) -> str | None:
    """The text of a pandas or numpy value; None for any other. May raise what their methods raise."""
    frame, series = _types("pandas", "DataFrame", "Series")
    if frame is not None and isinstance(value, frame):
        return _frame_text(value)
    if series is not None and isinstance(value, series):
        return _series_text(value)
    (array,) = _types("numpy", "ndarray")
    if array is not None and type(value) is array:
        return _array_text(value)
    return None


def is_table(value: object) -> bool:
    """Whether the text above says more than a rich form would."""
    (frame,) = _types("pandas", "DataFrame")
    return frame is not None and isinstance(value, frame)


def _types(module: str, *names: str) -> tuple[Any, ...]:
    loaded = sys.modules.get(module)
    return tuple(getattr(loaded, name, None) for name in names)


def size(count: int) -> str:
    """A number of bytes, for people."""
    number = float(count)
    for unit in ("bytes", "KB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return "%d bytes" % count if unit == "bytes" else "%.1f %s" % (number, unit)
        number /= 1000
    raise AssertionError  # the last unit takes every number


def _memory(value: Any) -> str:
    """What a frame or series holds itself; for objects that it points to, "more than"."""
    used = value.memory_usage(index=True, deep=False)
    dtypes = list(value.dtypes) if value.ndim == 2 else [value.dtype]
    text = size(int(used.sum() if value.ndim == 2 else used))
    return "more than " + text if any(str(dtype) == "object" for dtype in dtypes) else text


def _frame_text(frame: Any) -> str:
    rows, columns = frame.shape
    kind = type(frame).__name__
    title = "%s: %s × %s, %s" % (kind, _count(rows, "row"), _count(columns, "column"), _memory(frame))
    lines = [title, "dtypes: " + _dtypes(frame, columns)] if columns else [title]
    return "\n".join([*lines, *_frame_body(frame, rows, columns)])


def _count(number: int, noun: str) -> str:
    return "%s %s%s" % (format(number, ","), noun, "" if number == 1 else "s")


def _dtypes(frame: Any, columns: int) -> str:
    kinds = [str(dtype) for dtype in frame.dtypes]
    if columns > 1 and len(set(kinds)) == 1:
        return "all %s" % kinds[0]
    named = ["%s %s" % (name, kinds[index]) for index, name in enumerate(frame.columns[:_MOST_DTYPES])]
    if columns > _MOST_DTYPES:
        named.append("… %s more" % format(columns - _MOST_DTYPES, ","))
    return ", ".join(named)


def _wish(option: str) -> int | None:
    """How many code wants to see, by an option of pandas; None where it says nothing."""
    get_option: Any = getattr(sys.modules["pandas"], "get_option")  # noqa: B009  (the type of a module has none)
    value = get_option(option)
    if value in _USUAL[option]:
        return None
    most = _MOST_WISHED[option]
    return min(value, most) if isinstance(value, int) and value > 0 else most


def _row_plans(rows: int, wished: int | None) -> list[tuple[int, int]]:
    """Rows from the begin and from the end, in the order in which they are to be tried."""
    if wished is None:
        return [(rows, 0), *_ROWS] if rows <= _MOST_WHOLE_ROWS else list(_ROWS)
    whole = [(rows, 0)] if rows <= wished else [(wished - wished // 2, wished // 2)]
    return whole + [plan for plan in _ROWS if sum(plan) < wished]


def _frame_body(frame: Any, rows: int, columns: int) -> list[str]:
    """The largest choice of rows and columns that fits."""
    wished_rows, wished_columns = _wish("display.max_rows"), _wish("display.max_columns")
    most_chars = _MOST_CHARS if wished_rows is None and wished_columns is None else _MOST_WISHED_CHARS
    line_chars = _MOST_LINE_CHARS if wished_columns is None else _MOST_WISHED_LINE_CHARS
    sizes = _COLUMNS if wished_columns is None else (wished_columns, *_COLUMNS)
    body: list[str] = []
    for wanted_columns in _choices(columns, sizes):
        chosen = _ends(columns, wanted_columns - wanted_columns // 3, wanted_columns // 3)
        note = []
        if len(chosen) < columns:
            note = ["columns shown: %s" % _ranges(columns, chosen)]
        for head, tail in _row_plans(rows, wished_rows):
            body = note + _rows_with_gap(frame.iloc[:, chosen], rows, head, tail)
            if max(map(len, body)) > line_chars:
                break  # fewer rows make no line shorter
            if sum(map(len, body)) <= most_chars:
                return body
    return [line[:line_chars] for line in body][: most_chars // line_chars]


def _choices(available: int, sizes: tuple[int, ...]) -> list[int]:
    return [min(available, sizes[0]), *(size for size in sizes[1:] if size < min(available, sizes[0]))]


def _ends(count: int, head: int, tail: int) -> list[int]:
    if count <= head + tail:
        return list(range(count))
    return [*range(head), *range(count - tail, count)]


def _ranges(count: int, chosen: list[int]) -> str:
    head = sum(1 for index, position in enumerate(chosen) if index == position)
    if head == len(chosen):
        return "the first %d of %s" % (head, format(count, ","))
    return "the first %d and the last %d of %s" % (head, len(chosen) - head, format(count, ","))


def _rows_with_gap(table: Any, rows: int, head: int, tail: int) -> list[str]:
    chosen = _ends(rows, head, tail)
    shown = table.iloc[chosen]
    options = (
        {"max_colwidth": _MOST_CELL_CHARS} if table.ndim == 2 else {"name": False, "dtype": False, "length": False}
    )
    text: str = shown.to_string(**options)
    lines = text.split("\n")
    missing = rows - len(chosen)
    if missing:
        lines.insert(len(lines) - min(tail, len(chosen)), "… %s more rows …" % format(missing, ","))
    return lines


def _series_text(series: Any) -> str:
    count = len(series)
    name = "" if series.name is None else " %s" % (series.name,)
    facts = (type(series).__name__, name, _count(count, "value"), series.dtype, _memory(series))
    title = "%s%s: %s, %s, %s" % facts
    wished = _wish("display.max_rows")
    body: list[str] = []
    for head, tail in _row_plans(count, wished):
        body = _rows_with_gap(series, count, head, tail)
        if sum(map(len, body)) <= (_MOST_CHARS if wished is None else _MOST_WISHED_CHARS):
            break
    return "\n".join([title, *(line[:_MOST_LINE_CHARS] for line in body)])


def _array_text(array: Any) -> str | None:
    """None for a small one, whose own text says everything."""
    if array.size <= _MOST_PLAIN_ARRAY or array.ndim == 0:
        return None
    shape = " × ".join(format(side, ",") for side in array.shape)
    title = "ndarray: shape %s, %s, %s" % (shape, array.dtype, size(array.nbytes))
    if array.size <= _MOST_WHOLE_ARRAY:
        body = [_plain(array)]
    elif array.ndim == 1:
        body = _joined(array, _ARRAY_ENDS, "values", _plain)
    elif array.ndim == 2:
        body = _matrix(array)
    else:
        body = _planes(array)
    return "\n".join([title, *(line[: 2 * _MOST_LINE_CHARS] for part in body for line in part.split("\n"))])


def _plain(array: Any) -> str:
    text: str = sys.modules["numpy"].array2string(array, threshold=sys.maxsize, max_line_width=120)
    return text


def _joined(array: Any, ends: tuple[int, int], what: str, text: Callable[[Any], str]) -> list[str]:
    count = len(array)
    head, tail = ends
    if count <= head + tail:
        return [text(array)]
    gap = "… %s more %s …" % (format(count - head - tail, ","), what)
    return [text(array[:head]), gap, text(array[-tail:])]


def _matrix(array: Any) -> list[str]:
    columns = array.shape[1]
    chosen = _ends(columns, *_ARRAY_COLUMNS) if columns > _MOST_PLAIN_ARRAY else list(range(columns))
    note = [] if len(chosen) == columns else ["columns shown: %s" % _ranges(columns, chosen)]
    return note + _joined(array, _ARRAY_ROWS, "rows", lambda rows: _plain(rows[:, chosen]))


def _planes(array: Any) -> list[str]:
    """The first and the last matrix of an array of more dimensions."""
    outer = array.ndim - 2
    parts = []
    for index in (0, -1):
        position = (index,) * outer
        parts += ["[%s]:" % ", ".join(map(str, position)), *_matrix(array[position])]
    return parts
