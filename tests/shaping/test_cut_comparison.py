"""The page on cutting is what its script writes, and its claims hold."""

from __future__ import annotations

from benchmarks import cut_comparison


def test_the_page_is_what_the_script_writes() -> None:
    assert cut_comparison.PAGE.read_text(encoding="utf-8") == cut_comparison.page()


def test_every_fact_survives_our_report_and_only_ours() -> None:
    rows = [line.strip("|").split("|") for line in cut_comparison.page().split("\n") if line.startswith("|")]
    facts = [[cell.strip() for cell in row[1:]] for row in rows[2:-1]]
    assert len(facts) == 7
    assert all(row[:2] == ["yes", "yes"] for row in facts)
    assert all("–" in column for column in list(zip(*facts, strict=True))[2:])
