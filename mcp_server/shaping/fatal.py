"""What an interpreter prints as it dies: the frames beneath the cell's are ours, and tell its author nothing."""

from __future__ import annotations

import re

from mcp_server.shaping.lines import Row
from mcp_server.shaping.window import ShapedText

_BEGIN = "Fatal Python error: "

_OWN_FRAME = re.compile(r'  File "(/\.worker|[^"]*/mcp_server/worker)/\w+\.py", line \d+ in \w+')
_OWN_ENTRY = re.compile(r'  File "<string>", line \d+ in <module>')


def without_own_frames(stderr: ShapedText) -> ShapedText:
    """The same, with those frames as a gap."""
    rows = stderr.rows
    begin = next((index for index, row in enumerate(rows) if row.text.startswith(_BEGIN)), len(rows))
    first = next((index for index in range(begin, len(rows)) if _OWN_FRAME.fullmatch(rows[index].text)), len(rows))
    last = first
    while last < len(rows) and (_OWN_FRAME.fullmatch(rows[last].text) or _OWN_ENTRY.fullmatch(rows[last].text)):
        last += 1
    if last - first < 2:  # a gap takes a line itself
        return stderr
    own = rows[first:last]
    gap = Row("", sum(row.lines for row in own), sum(row.chars for row in own), hidden=True)
    return ShapedText((*rows[:first], gap, *rows[last:]), stderr.total_bytes)
