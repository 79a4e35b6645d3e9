"""What was measured beside what it should be: rows, and how they are written down."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from benchmarks.measure import Series


class Unit(Enum):
    """What a row's numbers are. The value is the factor and the name of what is shown."""

    SECONDS = (1e3, "ms")
    RATE = (1.0, "/s")
    THROUGHPUT = (1e-6, "MB/s")
    BYTES = (1 / 2**20, "MiB")

    def show(self, value: float) -> str:
        factor, name = self.value
        return f"{_digits(value * factor)} {name}"


@dataclass(frozen=True, slots=True)
class Goal:
    """Limits in the row's unit, and as a multiple of the peer. What is None is not asked for."""

    most: float | None = None
    least: float | None = None
    most_times: float | None = None
    least_times: float | None = None

    def show(self, unit: Unit, peer: str) -> str:
        parts = []
        if self.most is not None:
            parts.append(f"≤ {unit.show(self.most)}")
        if self.least is not None:
            parts.append(f"≥ {unit.show(self.least)}")
        if self.most_times is not None:
            parts.append(f"≤ {self.most_times:g} × {peer}")
        if self.least_times is not None:
            parts.append(f"≥ {self.least_times:.0%} of {peer}")
        return ", ".join(parts) or "–"


NO_GOAL = Goal()


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. The first of `peers` is the one that the goal speaks of; the others are for comparison."""

    what: str
    unit: Unit
    ours: Series
    goal: Goal = NO_GOAL
    peers: Mapping[str, Series] | None = None
    note: str = ""

    @property
    def peer(self) -> str:
        return next(iter(self.peers), "") if self.peers else ""

    @property
    def times(self) -> float | None:
        """Ours as a multiple of the peer, taken round by round."""
        return self.ours.over(self.peers[self.peer]) if self.peers else None

    @property
    def reached(self) -> bool | None:
        """None where nothing is asked for."""
        tests = [
            (self.goal.most, lambda limit: self.ours.median <= limit),
            (self.goal.least, lambda limit: self.ours.median >= limit),
            (self.goal.most_times, lambda limit: self.times is not None and self.times <= limit),
            (self.goal.least_times, lambda limit: self.times is not None and self.times >= limit),
        ]
        asked: list[tuple[float, Callable[[float], bool]]] = [(lim, test) for lim, test in tests if lim is not None]
        return all(test(limit) for limit, test in asked) if asked else None


@dataclass(frozen=True, slots=True)
class Section:
    """The rows of one bench."""

    title: str
    rows: Sequence[Row]


def as_markdown(sections: Iterable[Section], machine: Mapping[str, str]) -> str:
    lines = [f"Measured {machine['when']} on: {machine['machine']}.", "", f"Versions: {machine['versions']}.", ""]
    for section in sections:
        lines += [
            f"**{section.title}**",
            "",
            "| what | median | min | p95 | goal | peers (× = ours / the first of them) | reached |",
            "| --- | ---: | ---: | ---: | --- | --- | --- |",
            *(_line(row) for row in section.rows),
            "",
        ]
    return "\n".join(lines)


def as_json(sections: Iterable[Section], machine: Mapping[str, str]) -> dict[str, Any]:
    return {
        "machine": dict(machine),
        "rows": [
            {
                "section": section.title,
                "what": row.what,
                "unit": "bytes/s" if row.unit is Unit.THROUGHPUT else row.unit.name.lower(),
                **_numbers(row.ours),
                "goal": {name: getattr(row.goal, name) for name in Goal.__slots__},
                "peers": {name: _numbers(series) for name, series in (row.peers or {}).items()},
                "times_peer": row.times,
                "reached": row.reached,
                "note": row.note,
            }
            for section in sections
            for row in section.rows
        ],
    }


QUOTED = (
    "create a context, numpy, pandas, matplotlib preloaded, while spares last",
    "`1+1`, engine",
    "`1+1` over stdio",
    "the server's memory grows by",
)
"""The rows that the project's README quotes."""


def quotation(rows: Iterable[Mapping[str, Any]]) -> str:
    """What the project's README says, from the rows of `as_json`. Raises KeyError where one is not there."""
    medians = {row["what"]: Unit[row["unit"].upper()].show(row["median"]) for row in rows if row["what"] in QUOTED}
    context, run, call, flood = (medians[what] for what in QUOTED)
    return (
        f"A sandboxed context with numpy, pandas and matplotlib loaded is there in **{context}**, `1+1` in one takes\n"
        f"**{run}** (a whole call over stdio **{call}**), and a gigabyte of output costs the server **{flood}** of\n"
        "memory ([how it was measured](benchmarks/README.md); `make bench` measures it here)."
    )


def _line(row: Row) -> str:
    peers = [f"{name} {row.unit.show(series.median)}" for name, series in (row.peers or {}).items()]
    if row.times is not None:
        peers[0] += f" (**{_digits(row.times)} ×**)"
    shown = [row.unit.show(value) for value in (row.ours.median, row.ours.least, row.ours.p95)]
    if len(row.ours.values) == 1:
        shown[1:] = ["", ""]
    verdict = {True: "reached", False: "**not reached**", None: ""}[row.reached]
    what = f"{row.what} ({row.note})" if row.note else row.what
    return f"| {' | '.join([what, *shown, row.goal.show(row.unit, row.peer), '; '.join(peers), verdict])} |"


def _numbers(series: Series) -> dict[str, float]:
    return {"median": series.median, "min": series.least, "p95": series.p95, "rounds": len(series.values)}


def _digits(value: float) -> str:
    """Three that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:#.3g}".rstrip(".")
