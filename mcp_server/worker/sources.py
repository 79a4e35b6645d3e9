"""The source text of cells, where tracebacks, `inspect`, `warnings` and debuggers look for it: in `linecache`."""

from __future__ import annotations

import linecache
from collections import deque

_MOST_CELLS = 1000
_MOST_CHARS = 32 * 1024 * 1024
"""A function of a cell that is forgotten still runs; only its source lines are not shown any more."""


class SourceStore:
    """Remembers the newest cells, bounded in number and in characters."""

    def __init__(self) -> None:
        self._kept: deque[tuple[str, int]] = deque()
        self._chars = 0

    def keep(self, filename: str, source: str) -> None:
        """Let `filename` stand for `source`. The newest cell is kept whatever its size."""
        lines = [line + "\n" for line in source.split("\n")]  # `splitlines` knows more line ends than Python's grammar
        if not isinstance(linecache.cache, dict):  # the user's code may do with it what it likes, but in its own runs
            linecache.cache = {}
        # A modification time of None keeps linecache.checkcache from looking for a file of that name.
        linecache.cache[filename] = (len(source), None, lines, filename)
        self._kept.append((filename, len(source)))
        self._chars += len(source)
        while len(self._kept) > 1 and (len(self._kept) > _MOST_CELLS or self._chars > _MOST_CHARS):
            oldest, chars = self._kept.popleft()
            self._chars -= chars
            linecache.cache.pop(oldest, None)
