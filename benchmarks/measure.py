"""Measuring side by side: what is compared is measured in turn, in the same rounds, so that a busy moment hits both."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

Subject = Callable[[], Awaitable[float]]
"""Does what is measured once, and gives what it took: seconds, or another quantity of the row's unit."""


IN_A_ROW = 20


@dataclass(frozen=True, slots=True)
class Series:
    """What one subject took in each round, in order."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def least(self) -> float:
        return min(self.values)

    @property
    def most(self) -> float:
        return max(self.values)

    @property
    def p95(self) -> float:
        """By the nearest rank: a value that was measured."""
        return sorted(self.values)[-(-len(self.values) * 95 // 100) - 1]

    def over(self, other: Series) -> float:
        """The median of the quotients of each round."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.values, other.values, strict=True))

    def repeated(self, rounds: int) -> Series:
        """For a peer that was measured once, beside something that was measured in so many rounds."""
        return Series((self.median,) * rounds)


def one(value: float) -> Series:
    """Something that was measured once."""
    return Series((value,))


async def side_by_side(subjects: Mapping[str, Subject], rounds: int, warm_up: int = 2) -> dict[str, Series]:
    """Measure every subject once in each round; who begins changes from round to round. Warm-up rounds are dropped."""
    names = list(subjects)
    seen: dict[str, list[float]] = {name: [] for name in names}
    with _no_collection():
        for round_number in range(-warm_up, rounds):
            turn = round_number % len(names)
            for name in names[turn:] + names[:turn]:
                value = await subjects[name]()
                if round_number >= 0:
                    seen[name].append(value)
    return {name: Series(tuple(values)) for name, values in seen.items()}


async def seconds(work: Awaitable[object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


def timed(work: Callable[[], Awaitable[object]]) -> Subject:
    """The subject that takes as long as `work` does."""

    async def subject() -> float:
        return await seconds(work())

    return subject


def in_a_row(work: Callable[[], Awaitable[object]], times: int = IN_A_ROW) -> Subject:
    """The subject that takes as long as one of so many on end, their mean: with warm caches, nothing else between."""

    async def subject() -> float:
        began = time.perf_counter()
        for _ in range(times):
            await work()
        return (time.perf_counter() - began) / times

    return subject


def timed_call(work: Callable[[], object]) -> Subject:
    """As `timed`, for work that blocks."""

    async def subject() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return subject


@contextmanager
def _no_collection() -> Iterator[None]:
    """The harness's own garbage is collected between measurements, not in one of them."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
