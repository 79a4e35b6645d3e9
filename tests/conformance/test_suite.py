"""The official suite, against our own server process and against the fixtures behind our HTTP door."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conformance import baseline, suite
from tests.conformance.baseline import Verdict
from tests.conformance.suite import NodeTools
from tests.mcp.server_processes import ServerProcess, http_server, listening

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(2 * suite.SUITE_BOUND_S)]

VERSIONS = ("2025-11-25", "2026-07-28")


@pytest.fixture(scope="module")
def targets() -> Iterator[dict[str, ServerProcess]]:
    fixtures = [sys.executable, "-m", "tests.conformance.fixture_app"]
    with ExitStack() as stack:
        yield {
            "server": stack.enter_context(http_server()),
            "fixtures": stack.enter_context(listening(fixtures)),
        }


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("target", ["server", "fixtures"])
def test_every_scenario_passes_but_for_the_exceptions_that_the_baseline_names(
    tools: NodeTools,
    targets: dict[str, ServerProcess],
    tmp_path: Path,
    verdicts: dict[tuple[str, str], Verdict],
    target: str,
    version: str,
) -> None:
    outcomes = suite.play(tools, targets[target].url, version, tmp_path)
    verdict = baseline.judge(outcomes, baseline.load(target, version))
    verdicts[target, version] = verdict
    assert verdict.played == suite.scenarios(tools, version)
    assert not verdict.problems, "\n".join(verdict.problems)
