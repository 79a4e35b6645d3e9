"""When two runs are alike, and what is shown where they are not."""

from __future__ import annotations

import pytest

from mcp_server.transcripts.comparison import MAX_DIFF_LINES, Comparison, Played, compare

FIRST_LINE = "ok · run 1 · 0.02 s · ctx_2cG7vYbJm3nQ0tXwZk5LrA"


def played(*bodies: str, status: str = "ok", **more: object) -> Played:
    reports = tuple(f"{FIRST_LINE}\n{body}" for body in bodies)
    return Played(status=status, state="kept", reports=reports, **more)  # type: ignore[arg-type]


def parts(comparison: Comparison) -> list[bool | None]:
    return [comparison.parts[name] for name in ("status", "output", "result")]


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("1.5", "1.5"),
        ("⟦result⟧\n<object object at 0x7f0011aabbcc>", "⟦result⟧\n<object object at 0x7f9911aabbcc>"),
        ("in /work/ctx_2cG7vYbJ/f.txt", "in /work/ctx_AAAAAAAA/f.txt"),
        ("/srv/state/cell-0123456789abcdef/s1/work", "/tmp/x/cell-fedcba9876543210/s1/work"),
        ("⟦A new context was made for this call.⟧\nout", "out"),
        ("⟦printed nothing, no result⟧", "⟦printed nothing, no result⟧"),
    ],
    ids=["text", "addresses", "handles", "directories", "statements", "nothing"],
)
def test_what_must_differ_is_no_difference(before: str, now: str) -> None:
    assert parts(compare(played(before), played(now))) == [True, True, True]


def test_output_and_result_are_told_apart() -> None:
    before = played("printed\n⟦stderr⟧\nwarned\n⟦result⟧\n1")
    assert parts(compare(before, played("other\n⟦stderr⟧\nwarned\n⟦result⟧\n1"))) == [True, False, True]
    assert parts(compare(before, played("printed\n⟦stderr⟧\nother\n⟦result⟧\n1"))) == [True, False, True]
    comparison = compare(before, played("printed\n⟦stderr⟧\nwarned\n⟦result⟧\n2"))
    assert parts(comparison) == [True, True, False]
    assert [line for line in comparison.diff if line[0] in "-+"] == ["-1", "+2"]


def test_another_error_another_image_and_another_status_are_seen() -> None:
    before = played("⟦error⟧\nValueError: a", status="error", error="ValueError: a")
    now = played("⟦error⟧\nValueError: b", status="error", error="ValueError: b")
    assert parts(compare(before, now)) == [True, True, False]
    assert parts(compare(played("x", images=("a1",)), played("x", images=("b2",)))) == [True, True, False]
    assert parts(compare(before, played("x")))[0] is False
    assert parts(compare(played("x", exit_code=1), played("x", exit_code=2)))[0] is False


def test_a_run_that_was_yielded_may_be_cut_anywhere() -> None:
    before = played("0.1.", "2.3\n⟦stderr⟧\nend", "⟦nothing new was printed⟧")
    assert parts(compare(before, played("0.1.2.3\n⟦stderr⟧\nend"))) == [True, True, True]
    assert parts(compare(before, played("0.1.2.4\n⟦stderr⟧\nend"))) == [True, False, True]


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        ("interrupted", "interrupted", True),
        ("cancelled", "interrupted", True),
        ("timeout", "timeout", True),
        ("timeout", "ok", False),
        ("interrupted", "ok", False),
    ],
)
def test_how_far_a_stopped_run_came_is_not_compared(before: str, now: str, same: bool) -> None:
    comparison = compare(played("1\n2\n3", status=before), played("1\n2", status=now))
    assert parts(comparison) == [same, None, None]
    assert comparison.same is same
    assert "clock" in comparison.note


def test_a_long_difference_is_cut_and_says_so() -> None:
    comparison = compare(played("\n".join("abcdefghijklmnop")), played("x" * 1000))
    assert len(comparison.diff) == MAX_DIFF_LINES + 1
    assert comparison.diff[-1].startswith("… ")
    assert max(map(len, comparison.diff)) < 200
