"""Laws of the whole report, whatever the run did."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_server.model import DisplayChunk, ErrorInfo, FileChange, Representation, State, Status, StoredOutput
from mcp_server.shaping.report import MIN_BUDGET_CHARS, RunRecord, compose
from mcp_server.shaping.stream import ShapedText, StreamShaper
from mcp_server.shaping.values import MAX_IMAGE_BYTES, MAX_IMAGES

BUDGET = 9_000
CONTEXT = "ctx_0123456789abcdefghijkl"


def shaped(data: bytes) -> ShapedText:
    shaper = StreamShaper(BUDGET)
    shaper.feed(data)
    return shaper.finish()


def run(status: Status = Status.OK) -> RunRecord:
    return RunRecord(status, CONTEXT, 7, 1.5)


ANY_TEXT = st.one_of(
    st.text(max_size=60),
    st.sampled_from(["\ud800", "⟦error⟧", "line\n" * 2000, "x" * 30_000, "\x1b[31mred", "a\r\nb", "  \n \n"]),
)
ANY_OUTPUT = st.builds(
    lambda piece, times: shaped((piece.encode("utf-8", "surrogatepass") * times)[:60_000]),
    ANY_TEXT,
    st.integers(0, 300),
)
ANY_STORED = st.one_of(
    st.none(), st.builds(StoredOutput, st.just("run://ctx/7/stdout"), st.sampled_from(["", "/outputs/run-7/stdout"]))
)
ANY_FORM = st.builds(
    Representation,
    st.sampled_from(["text/plain", "text/html", "text/markdown", "image/png", "image/jpeg", "application/x-odd\n⟦"]),
    ANY_TEXT.map(lambda text: text.encode("utf-8", "surrogatepass")),
    ANY_TEXT,
    st.sampled_from([0, 10**7]),
)
ANY_DISPLAY = st.builds(DisplayChunk, st.booleans(), st.lists(ANY_FORM, max_size=4).map(tuple))
ANY_ERROR = st.builds(ErrorInfo, ANY_TEXT, ANY_TEXT, ANY_TEXT)
ANY_RECORD = st.builds(
    RunRecord,
    status=st.sampled_from(Status),
    context_id=st.sampled_from([CONTEXT, "x" * 500]),
    run=st.integers(1, 10**6),
    elapsed_s=st.floats(0, 10**6),
    state=st.sampled_from(State),
    limit_s=st.sampled_from([0, 10, 0.25]),
    error=st.one_of(st.none(), ANY_ERROR),
    exit_code=st.one_of(st.none(), st.integers(0, 255)),
    signal=st.one_of(st.none(), st.integers(1, 100)),
    detail=ANY_TEXT,
    lost_before=ANY_TEXT,
    displays=st.lists(ANY_DISPLAY, max_size=4),
    stdout=ANY_OUTPUT,
    stderr=ANY_OUTPUT,
    late=st.one_of(st.none(), ANY_OUTPUT),
    stored_stdout=ANY_STORED,
    stored_stderr=ANY_STORED,
    notices=st.lists(ANY_TEXT, max_size=3),
    continued=st.booleans(),
    queued_behind=st.integers(0, 3),
    files=st.lists(st.builds(FileChange, ANY_TEXT, st.just("new"), st.integers(0, 10**9), ANY_TEXT), max_size=30),
)


@settings(max_examples=250, deadline=None)
@given(ANY_RECORD, st.integers(MIN_BUDGET_CHARS, BUDGET))
def test_any_report_keeps_within_its_budget_and_can_be_sent(record: RunRecord, budget: int) -> None:
    report = compose(record, budget)
    assert len(report.text) <= budget
    assert report.text.startswith(f"{record.status.value} · run {record.run}")
    report.text.encode()
    json.dumps(report.record, allow_nan=False).encode()
    json.dumps(report.record, ensure_ascii=False).encode()
    assert len(report.images) <= MAX_IMAGES


@settings(max_examples=150, deadline=None)
@given(ANY_RECORD, st.integers(MIN_BUDGET_CHARS, BUDGET), st.from_regex(r"[A-Za-z]{1,40}Error", fullmatch=True))
def test_an_errors_type_and_message_are_always_in_the_text(record: RunRecord, budget: int, name: str) -> None:
    message = "the order 8812 was refused"
    traceback = "Traceback (most recent call last):\n" + "  frame\n" * 3000 + f"{name}: {message}"
    report = compose(replace(record, error=ErrorInfo(name, message, traceback)), budget)
    assert f"\n{name}: {message}" in report.text
    assert report.record["error"] == {"name": name, "message": message}


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab \nc", min_size=2000, max_size=9000), st.integers(MIN_BUDGET_CHARS, BUDGET))
def test_a_long_message_is_capped_with_its_length_said(message: str, budget: int) -> None:
    text = compose(
        replace(run(Status.ERROR), error=ErrorInfo("ValueError", message, f"ValueError: {message}")), budget
    ).text
    shown = re.search(r"\nValueError: ([^⟦]*)⟦… ([\d,]+) characters? of this message left out …⟧([^⟦]*)", text)
    if shown is None:
        assert f"ValueError: {message.rstrip()}".rstrip() in text
        return
    assert len(shown[1]) + int(shown[2].replace(",", "")) + len(shown[3]) == len(message)


def test_nothing_is_cut_where_everything_fits() -> None:
    record = replace(
        run(Status.ERROR),
        stdout=shaped(b"out\n" + b"line\nother\n" * 300),
        stderr=shaped(b"err\n" + b"warn\nother\n" * 300),
        error=ErrorInfo("E", "m", "Traceback:\n" + "  frame\n" * 3 + "E: m"),
        displays=[DisplayChunk(True, (Representation("text/plain", b"value"),))],
    )
    text = compose(record, 8_000).text
    assert "left out" not in text
    assert [text.index(part) for part in ("out\n", "⟦stderr⟧", "⟦result⟧", "⟦error⟧")] == sorted(
        text.index(part) for part in ("out\n", "⟦stderr⟧", "⟦result⟧", "⟦error⟧")
    )


def test_what_one_section_does_not_use_another_may() -> None:
    flood = shaped(b"".join(b"line %d\n" % n for n in range(10_000)))
    alone = compose(replace(run(), stdout=flood), 3_000).text
    beside = compose(replace(run(), stdout=flood, stderr=shaped(b"one warning\n")), 3_000).text
    assert len(alone) > 2_980
    assert len(beside) > 2_980
    assert "⟦stderr⟧\none warning" in beside


def test_an_error_takes_at_most_half_where_others_need_room() -> None:
    flood = shaped(b"".join(b"line %d\n" % n for n in range(10_000)))
    error = ErrorInfo("E", "m", "".join(f"  frame {n}\n" for n in range(10_000)) + "E: m")
    text = compose(replace(run(Status.ERROR), stdout=flood, error=error), 3_000).text
    assert 1_200 < text.index("⟦error⟧") < 1_800


def test_images_are_capped_by_number_and_by_bytes() -> None:
    small = DisplayChunk(False, (Representation("image/png", b"x", "dot"),))
    report = compose(replace(run(), displays=[small] * (MAX_IMAGES + 2)), BUDGET)
    assert len(report.images) == MAX_IMAGES
    assert report.text.count("image left out, 10 are shown at most: dot") == 2
    huge = DisplayChunk(False, (Representation("image/jpeg", bytes(MAX_IMAGE_BYTES // 2 + 1), "photo"),))
    report = compose(replace(run(), displays=[huge, huge, small]), BUDGET)
    assert [image.alt for image in report.images] == ["photo", "dot"]
    assert "image 2: dot" in report.text
    assert "image left out, 700 KB are shown at most (show it in a run of its own): photo" in report.text


def test_a_figure_that_was_scaled_says_so() -> None:
    image = Representation("image/png", bytes(45_000), "figure 1568×980", original_bytes=3_200_000)
    text = compose(replace(run(), displays=[DisplayChunk(True, (image,))]), BUDGET).text
    assert "⟦image 1: figure 1568×980 · PNG, 45 KB, scaled down from 3.2 MB⟧" in text


def test_the_record_counts_what_is_shown_and_what_there_is() -> None:
    data = b"".join(b"line %d\n" % n for n in range(10_000))
    report = compose(
        replace(run(), stdout=shaped(data), stored_stdout=StoredOutput("run://c/7/stdout", "/outputs/run-7/stdout")),
        2_000,
    )
    stdout = report.record["stdout"]
    shown = [line for line in report.text.split("\n") if line.startswith("line ")]
    assert stdout["shown_lines"] == len(shown)
    assert stdout["shown_chars"] == sum(len(line) + 1 for line in shown)
    assert (stdout["total_lines"], stdout["total_chars"], stdout["total_bytes"]) == (10_000, len(data), len(data))
    assert stdout["resource"] == "run://c/7/stdout"
    assert report.record["truncated"] is True


OWN_FRAMES = b"""  File "/home/user/site-packages/mcp_server/worker/runner.py", line 190 in _evaluate_cell
  File "/home/user/site-packages/mcp_server/worker/zygote.py", line 55 in main
  File "<string>", line 13 in <module>
"""

FATAL = b'Fatal Python error: Aborted\n\n  File "<cell 1>", line 1 in <module>\n' + OWN_FRAMES


@pytest.mark.parametrize(
    ("status", "stderr", "hidden"),
    [
        (Status.CRASHED, FATAL, True),
        (Status.CRASHED, FATAL + b"\nExtension modules: numpy\n", True),
        (Status.CRASHED, OWN_FRAMES + b"Fatal Python error: Aborted\n", False),
        (Status.CRASHED, OWN_FRAMES, False),
        (Status.ERROR, FATAL, False),
    ],
)
def test_frames_of_ours_are_a_gap_in_what_a_dying_interpreter_prints(
    status: Status, stderr: bytes, hidden: bool
) -> None:
    report = compose(replace(run(status), stderr=shaped(stderr)), BUDGET)
    assert ("mcp_server/worker" not in report.text) is hidden
    assert (f"3 lines ({len(OWN_FRAMES)} characters) left out" in report.text) is hidden
    assert ("Extension modules" in report.text) is (b"Extension" in stderr)
    assert report.record["stderr"]["total_chars"] == len(stderr)


def test_the_record_does_not_count_as_shown_what_lines_lost() -> None:
    report = compose(replace(run(), stdout=shaped(b"@" * 10_000 + b"\n")), BUDGET)
    stdout = report.record["stdout"]
    assert stdout["shown_chars"] == report.text.count("@") + 1
    assert stdout["total_chars"] == 10_001
    assert report.record["truncated"] is True


def test_the_first_line_tells_every_status_apart() -> None:
    lines = {compose(run(status), BUDGET).text.split("\n")[0] for status in Status}
    assert len(lines) == len(Status)


@pytest.mark.parametrize("name", ["KeyboardInterrupt", "ValueError"])
def test_only_the_interrupt_itself_is_no_error_of_a_stopped_run(name: str) -> None:
    error = ErrorInfo(name, "", f'Traceback:\n  File "<cell 7>", line 3, in f\n    wait()\n{name}')
    report = compose(replace(run(Status.TIMEOUT), error=error), BUDGET)
    assert "stopped at line 3 of <cell 7>, in f: wait()" in report.text
    assert ("⟦error⟧" in report.text) == (name == "ValueError")
    assert (report.record["error"] is None) == (name == "KeyboardInterrupt")


def test_sections_without_room_for_even_a_gap_line_go_and_that_is_said() -> None:
    flood = shaped(b"".join(b"line %d\n" % n for n in range(10_000)))
    stored = StoredOutput("run://" + "x" * 180)
    record = replace(
        run(Status.ERROR),
        stdout=flood,
        stderr=flood,
        late=flood,
        stored_stdout=stored,
        stored_stderr=stored,
        lost_before="a reason " * 20,
        error=ErrorInfo("ValueError", "x" * 5_000, ""),
    )
    text = compose(record, MIN_BUDGET_CHARS).text
    assert len(text) <= MIN_BUDGET_CHARS
    assert "⟦error⟧\nValueError: xxx" in text
    assert text.endswith("⟦some sections left out: no room⟧")


def test_a_budget_below_the_minimum_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1000"):
        compose(run(), MIN_BUDGET_CHARS - 1)
