"""Raw output in, the text that a model reads out. Pure: no I/O, no framework, constant memory.

    bytes → stream (decode, count, head and tail) → terminal (escapes, carriage returns) → lines (blobs, long lines)
          → folding (repeats) → window (re-cut to a budget) → report (the whole text)

Whatever this package says itself stands between ``⟦`` and ``⟧``, which no program's output can contain (see `marks`).
"""
