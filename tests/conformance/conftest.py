"""The node tools of the conformance tests, and a table of the scenarios that they played."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.baseline import Verdict
from tests.conformance.suite import NodeTools

_VERDICTS = pytest.StashKey[dict[tuple[str, str], Verdict]]()


@pytest.fixture(scope="session")
def tools() -> NodeTools:
    return NodeTools.installed()


@pytest.fixture(scope="session")
def verdicts(pytestconfig: pytest.Config) -> dict[tuple[str, str], Verdict]:
    """What becomes the table: tests put their verdicts here, by target and version of the protocol."""
    return pytestconfig.stash[_VERDICTS]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_VERDICTS] = {}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in _table(config.stash[_VERDICTS]):
        terminalreporter.write_line(line)


def _table(verdicts: dict[tuple[str, str], Verdict]) -> Iterator[str]:
    if not verdicts:
        return
    played = sorted({scenario for verdict in verdicts.values() for scenario in verdict.played})
    first = max(map(len, played))
    yield ""
    yield "  ".join([" " * first, *(f"{target} {version}" for target, version in verdicts)])
    for scenario in played:
        cells = (
            f"{_outcome(verdict, scenario):{len(target) + 1 + len(version)}}"
            for (target, version), verdict in verdicts.items()
        )
        yield "  ".join([f"{scenario:{first}}", *cells]).rstrip()


def _outcome(verdict: Verdict, scenario: str) -> str:
    if scenario not in verdict.played:
        return "–"
    if scenario in verdict.passed:
        return "passed"
    return "excepted" if scenario in verdict.excepted else "FAILED"
