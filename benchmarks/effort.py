"""How much is measured: all of it, or enough to see whether something broke."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Effort:
    quick: bool = False

    def of(self, full: T, quick: T) -> T:
        return quick if self.quick else full
