"""The exceptions from the official suite, and how what it saw is held against them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.conformance.baseline import BASELINE, Check, judge, load

DOCUMENT = Path(__file__).parents[2] / "docs" / "conformance.md"

LACKS_A_FIXTURE = re.compile(r"no (tool|prompt|resource|resource template) \S*(test|json_schema_2020_12_tool)")

PASSED = Check("a", "SUCCESS")
FAILED = Check("b", "FAILURE", "broken")


def test_a_scenario_without_a_failed_check_passes() -> None:
    verdict = judge({"one": [PASSED, Check("c", "INFO"), Check("d", "SKIPPED")]}, {})
    assert verdict.passed == {"one"}
    assert not verdict.problems


@pytest.mark.parametrize("status", ["FAILURE", "WARNING"])
def test_a_check_that_fails_unnamed_is_a_problem(status: str) -> None:
    verdict = judge({"one": [PASSED, Check("b", status, "broken")]}, {})
    assert not verdict.passed
    assert verdict.problems == [f"one:b {status}: broken"]


@pytest.mark.parametrize("key", ["one", "one:b"])
def test_a_named_failure_is_excepted(key: str) -> None:
    verdict = judge({"one": [PASSED, FAILED]}, {key: "why"})
    assert verdict.excepted == {"one": [key]}
    assert not verdict.passed
    assert not verdict.problems


def test_an_exception_for_one_check_leaves_the_others_to_pass() -> None:
    verdict = judge({"one": [FAILED, Check("c", "FAILURE", "broken too")]}, {"one:b": "why"})
    assert not verdict.excepted
    assert verdict.problems == ["one:c FAILURE: broken too"]


@pytest.mark.parametrize("key", ["one", "one:a", "one:unknown", "two", "two:b"])
def test_an_exception_that_is_not_needed_is_a_problem(key: str) -> None:
    [problem] = judge({"one": [PASSED]}, {key: "why"}).problems
    assert problem.startswith(f"{key} is excepted and does not fail")


def test_a_scenario_in_which_nothing_was_checked_has_not_passed() -> None:
    verdict = judge({"one": [Check("c", "SKIPPED")], "two": []}, {})
    assert not verdict.passed
    assert len(verdict.problems) == 2


def test_exceptions_of_a_target_are_those_of_the_version_and_of_both(tmp_path: Path) -> None:
    path = tmp_path / "baseline.toml"
    path.write_text('[server.both]\none = "a"\n[server.2025-11-25]\ntwo = "b"\n[server.2026-07-28]\nthree = "c"\n')
    assert load("server", "2025-11-25", path) == {"one": "a", "two": "b"}


def test_an_exception_stands_in_one_section_alone(tmp_path: Path) -> None:
    path = tmp_path / "baseline.toml"
    path.write_text('[server.both]\none = "a"\n[server.2025-11-25]\none = "b"\n')
    with pytest.raises(ValueError, match="one stands in"):
        load("server", "2025-11-25", path)


def test_the_document_gives_every_reason_but_the_lack_of_a_fixture() -> None:
    sections = tomllib.loads(BASELINE.read_text(encoding="utf-8")).values()
    reasons = {reason for target in sections for section in target.values() for reason in section.values()}
    _, listed = DOCUMENT.read_text(encoding="utf-8").split("The other reasons are these:")
    told = re.findall(r"^- (.+)$", listed, re.MULTILINE)
    assert told == sorted(reason for reason in reasons if not LACKS_A_FIXTURE.match(reason))
