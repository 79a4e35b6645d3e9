"""The harness of the benchmarks: what it makes of numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as harness
from benchmarks import results
from benchmarks.measure import Series, Subject, one, side_by_side
from benchmarks.results import Goal, Row, Section, Unit

MACHINE = {"when": "today", "machine": "one", "versions": "some"}


def row(ours: Series, goal: Goal, peer: Series | None = None) -> Row:
    return Row("it", Unit.SECONDS, ours, goal, {"peer": peer} if peer else None)


def test_the_p95_is_a_measured_value() -> None:
    assert Series(tuple(float(n) for n in range(1, 21))).p95 == 19
    assert one(7.0).p95 == 7


def test_a_ratio_is_taken_round_by_round() -> None:
    assert Series((1.0, 20.0, 300.0)).over(Series((1.0, 10.0, 100.0))) == 2


@pytest.mark.parametrize(
    ("goal", "reached"),
    [
        (Goal(), None),
        (Goal(most=2.0), True),
        (Goal(most=1.9), False),
        (Goal(least=2.0), True),
        (Goal(least=2.1), False),
        (Goal(most_times=4.0), True),
        (Goal(most_times=3.9), False),
        (Goal(least_times=4.1), False),
        (Goal(most=2.0, most_times=3.9), False),
    ],
)
def test_a_goal_is_reached_where_all_of_it_is(goal: Goal, reached: bool | None) -> None:
    assert row(Series((1.0, 2.0, 9.0)), goal, Series((0.5, 0.5, 0.5))).reached is reached


def test_a_ratio_that_is_asked_for_and_has_no_peer_is_not_reached() -> None:
    assert row(one(1.0), Goal(most_times=2.0)).reached is False


def test_the_table_says_the_goal_the_peer_and_the_verdict() -> None:
    measured = row(Series((0.002, 0.003, 0.004)), Goal(most=0.001, most_times=2), Series((0.001, 0.001, 0.001)))
    table = results.as_markdown([Section("Title", [measured])], MACHINE)
    assert (
        "| it | 3.00 ms | 2.00 ms | 4.00 ms | ≤ 1.00 ms, ≤ 2 × peer | peer 1.00 ms (**3.00 ×**) | **not reached** |"
        in table
    )


def test_saving_replaces_the_table_and_the_quoted_figures_and_keeps_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "HERE", tmp_path / "benchmarks")
    front, readme = tmp_path / "README.md", tmp_path / "benchmarks" / "README.md"
    readme.parent.mkdir()
    front.write_text(f"before\n{harness.QUOTATION_BEGIN}\nold\n{harness.QUOTATION_END}\nafter\n")
    readme.write_text(f"before\n{harness.TABLE_BEGIN}\nold\n{harness.TABLE_END}\nafter\n")
    context, run, call, flood = results.QUOTED
    rows = [
        Row(context, Unit.SECONDS, one(0.001), Goal(most=0.002)),
        Row(run, Unit.SECONDS, one(0.0002)),
        Row(call, Unit.SECONDS, one(0.0025)),
        Row(flood, Unit.BYTES, one(2.0**20)),
    ]
    harness.save("new", [Section("Title", rows)], MACHINE)
    assert readme.read_text() == f"before\n{harness.TABLE_BEGIN}\n\nnew\n{harness.TABLE_END}\nafter\n"
    assert json.loads((readme.parent / "results.json").read_text())["rows"][0]["reached"] is True
    before, begin, rest = front.read_text().partition(harness.QUOTATION_BEGIN)
    quoted, end, after = rest.partition(harness.QUOTATION_END)
    assert (before, begin, end, after) == ("before\n", harness.QUOTATION_BEGIN, harness.QUOTATION_END, "\nafter\n")
    assert all(figure in quoted for figure in ("**1.00 ms**", "**0.2 ms**", "**2.50 ms**", "**1.00 MiB**"))
    assert "old" not in quoted


def test_the_first_screen_quotes_the_last_saved_figures() -> None:
    rows = json.loads((harness.HERE / "results.json").read_text())["rows"]
    readme = (harness.HERE.parent / "README.md").read_text()
    assert f"{harness.QUOTATION_BEGIN}\n{results.quotation(rows)}\n{harness.QUOTATION_END}\n" in readme[:2_000]


@pytest.mark.anyio
async def test_what_is_compared_is_measured_in_the_same_rounds_and_takes_turns_at_beginning() -> None:
    order: list[str] = []

    def subject(name: str) -> Subject:
        async def measure() -> float:
            order.append(name)
            return float(len(order))

        return measure

    seen = await side_by_side({"a": subject("a"), "b": subject("b")}, rounds=2, warm_up=1)
    assert order == ["b", "a", "a", "b", "b", "a"]
    assert seen == {"a": Series((3.0, 6.0)), "b": Series((4.0, 5.0))}
