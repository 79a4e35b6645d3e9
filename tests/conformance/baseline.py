"""What the suite saw, held against the exceptions that `baseline.toml` names."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

BASELINE = Path(__file__).with_name("baseline.toml")

BOTH = "both"
"""The section of a target's exceptions that hold for every version of the protocol."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a scenario looked at. ``status`` is the suite's own word."""

    id: str
    status: str
    message: str = ""

    @property
    def failed(self) -> bool:
        """A warning counts: it is what the suite gives for a SHOULD that is not followed."""
        return self.status in ("FAILURE", "WARNING")


Outcomes: TypeAlias = Mapping[str, Sequence[Check]]
"""The checks of each scenario that was run."""

Exceptions: TypeAlias = Mapping[str, str]
"""Why, by `scenario` where the whole of it is excepted, or by `scenario:check`."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``excepted`` has the exceptions that each scenario needed; ``problems`` is empty where all is as it should be."""

    played: frozenset[str]
    passed: frozenset[str]
    excepted: Mapping[str, Sequence[str]]
    problems: Sequence[str]


def load(target: str, version: str, path: Path = BASELINE) -> Exceptions:
    """The exceptions of one target in one version. Raises ValueError where one stands in both of its sections."""
    sections = tomllib.loads(path.read_text(encoding="utf-8"))[target]
    general, own = sections.get(BOTH, {}), sections.get(version, {})
    if twice := general.keys() & own.keys():
        raise ValueError(
            f"{path.name}: {', '.join(sorted(twice))} stands in [{target}.{BOTH}] and in [{target}.{version}]"
        )
    return {**general, **own}


def judge(outcomes: Outcomes, exceptions: Exceptions) -> Verdict:
    """Which scenarios passed and which are excepted; a problem is what failed unnamed, or is named and did not fail."""
    passed: set[str] = set()
    excepted: dict[str, list[str]] = {}
    problems: list[str] = []
    unused = set(exceptions)
    for scenario, checks in outcomes.items():
        failed = [check for check in checks if check.failed]
        if not failed and not any(check.status == "SUCCESS" for check in checks):
            failed = [Check("nothing", "FAILURE", "no check of it succeeded")]
        named = {key for check in failed for key in (scenario, f"{scenario}:{check.id}") if key in exceptions}
        unnamed = [check for check in failed if not named & {scenario, f"{scenario}:{check.id}"}]
        problems += [f"{scenario}:{check.id} {check.status}: {check.message}" for check in unnamed]
        unused -= named
        if not failed:
            passed.add(scenario)
        elif not unnamed:
            excepted[scenario] = sorted(named)
    problems += [f"{key} is excepted and does not fail: take it out of {BASELINE.name}" for key in sorted(unused)]
    return Verdict(frozenset(outcomes), frozenset(passed), excepted, problems)
