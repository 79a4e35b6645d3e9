"""Laws of the stream shaper that hold for any bytes in any pieces."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcp_server.shaping import terminal
from mcp_server.shaping.failure import PLAIN_CHARS, shape_text
from mcp_server.shaping.marks import OPEN
from mcp_server.shaping.stream import LAST_LINE_CHARS, ShapedText, StreamShaper

MAX_STRETCH = 40_000
"""Bytes: more than the kept end, and little enough for many examples."""

WINDOW = 300
"""Small, so that a few kilobytes fill the head; the kept end is then some 17 KiB."""

_CONTROLS = (
    "\n|\r|\r\n|\b|\t|\0|\x07|\x7f|\x1b|\x1b[|\x1b[31m|\x1b[K|\x1b[1K|\x1b[2K|\x1b[A|\x1b[2A|\x1b[B|\x1b[3C|\x1b[D"
)
_SEQUENCES = "\x1b[5G|\x1b[J|\x1b[2J\x1b[H|\x1b]0;t\x07|\x1b]8;;http://x\x1b\\|\x1b]0;|\x1bP|\x1b(B|\x1bM|\x1b\\|m|[|;"
_TEXTS = " |a|word|é|漢|e\u0301|👩\u200d🚀|🇩🇪|█|same line\n|Error: no|Traceback (most recent call last):\n"
_TRAPS = "⟦… 1 line (2 characters) left out⟧\n|⟦previous line repeated 3 more times⟧\n|⟧"
PIECES = [
    *(piece.encode() for group in (_CONTROLS, _SEQUENCES, _TEXTS, _TRAPS) for piece in group.split("|")),
    *(b"\xff", b"\xe6", b"0123456789" * 7, b"iVBORw0KGgoAAAANSUhEUgAA" * 20, b"00ff" * 90),
]


class Output:
    """Bytes, told by what they were made of."""

    def __init__(self, stretches: Sequence[tuple[bytes, int]]) -> None:
        self.stretches = stretches
        self.data = b"".join((piece * times)[:MAX_STRETCH] for piece, times in stretches)

    def __repr__(self) -> str:
        return " + ".join(f"{piece!r} * {times}" for piece, times in self.stretches)


ANY_BYTES = st.one_of(st.binary(max_size=20), st.sampled_from(PIECES))
STRETCHES = st.tuples(st.lists(ANY_BYTES, max_size=6).map(b"".join), st.sampled_from([1, 1, 1, 2, 7, 60, 900]))
OUTPUT = st.lists(STRETCHES, max_size=8).map(lambda stretches: Output(stretches))
CHUNKS = st.lists(st.integers(1, 5000), min_size=1, max_size=8)


def in_chunks(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    chunks = []
    turn = 0
    while data:
        chunks.append(data[: sizes[turn % len(sizes)]])
        data = data[len(chunks[-1]) :]
        turn += 1
    return chunks


def shape(chunks: Sequence[bytes], window: int = WINDOW) -> ShapedText:
    shaper = StreamShaper(window)
    for chunk in chunks:
        shaper.feed(chunk)
    return shaper.finish()


@settings(max_examples=150, deadline=None)
@given(OUTPUT, CHUNKS)
def test_any_chunking_of_any_bytes_gives_the_same_text(output: Output, sizes: list[int]) -> None:
    assert shape(in_chunks(output.data, sizes)) == shape([output.data])


@settings(max_examples=120, deadline=None)
@given(OUTPUT, CHUNKS, st.integers(1, 30_000))
@example(Output([("\r\u05c0".encode(), 2)]), [1], 1)
@example(Output([("\0\r\0\x1b\u0300".encode(), 2)]), [1], 1)
@example(Output([("\u05c0\r\x1b\\\x1b]0;\x1b]0".encode(), 1)]), [1], 41)
@example(Output([("\u05c0\x1b[C\0\x1b[2\x1b[[2A\x1bP\x1b[\x1b".encode(), 1)]), [1], 89)
@example(Output([(b"\x1b[5G\x88\xe2\x9f\xa7\n\x1b;", 1)]), [1], 81)
@example(Output([(b"\0" * 3, 900), (b"\nError", 1), (b"\n" + b"iVBORw0KGgoAAAANSUhEUgAA" * 20 + b"\x1bM", 60)]), [1], 1)
def test_chunking_does_not_matter_where_following_the_cursor_is_given_up(
    output: Output, sizes: list[int], work: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(terminal, "MAX_WORK", work)
        shaped = shape([output.data])
        assert shape(in_chunks(output.data, sizes)) == shaped
    assert shaped.total_chars == len(output.data.decode("utf-8", "replace"))
    unfinished = shaped.total_lines - output.data.count(b"\n")
    assert unfinished in (0, 1)


@settings(max_examples=30, deadline=None)
@given(OUTPUT.filter(lambda output: len(output.data) < 30_000))
def test_single_bytes_give_the_same_text_as_one_chunk(output: Output) -> None:
    data = output.data
    assert shape([data[index : index + 1] for index in range(len(data))]) == shape([data])


@settings(max_examples=120, deadline=None)
@given(OUTPUT, OUTPUT, CHUNKS)
@example(Output([]), Output([("\u058b\x1b[A\0\u0591".encode(), 1)]), [1])
@example(Output([]), Output([(b"\0", 900), (b"A1b2", 120), (b"\r", 1), (b"\x80\xcc", 900)]), [1])
def test_windows_and_last_lines_do_not_depend_on_the_chunking(first: Output, second: Output, sizes: list[int]) -> None:
    def windows(chunks_of_first: list[bytes], chunks_of_second: list[bytes]) -> list[object]:
        shaper = StreamShaper(WINDOW)
        seen: list[object] = []
        for chunk in chunks_of_first:
            shaper.feed(chunk)
        seen += [shaper.last_line(), shaper.cut()]
        for chunk in chunks_of_second:
            shaper.feed(chunk)
        return [*seen, shaper.last_line(), shaper.finish()]

    assert windows(in_chunks(first.data, sizes), in_chunks(second.data, sizes)) == windows([first.data], [second.data])


@settings(max_examples=100, deadline=None)
@given(OUTPUT, st.lists(st.integers(0, 40_000), max_size=3))
def test_windows_together_account_for_every_byte_and_character(output: Output, places: list[int]) -> None:
    data = output.data
    shaper = StreamShaper(WINDOW)
    windows = []
    done = 0
    for place in sorted(places):
        shaper.feed(data[done:place])
        done = max(done, place)
        windows.append(shaper.cut())
    shaper.feed(data[done:])
    windows.append(shaper.finish())
    assert sum(window.total_bytes for window in windows) == len(data)
    assert sum(window.total_chars for window in windows) == len(data.decode("utf-8", "replace"))
    newlines = data.count(b"\n")
    assert newlines <= sum(window.total_lines for window in windows) <= newlines + len(windows)


@settings(max_examples=100, deadline=None)
@given(OUTPUT, st.integers(0, 2 * WINDOW), st.sampled_from(["", "all of it: /outputs/run-1/stdout"]))
def test_an_excerpt_keeps_within_its_budget_and_its_counts_add_up(output: Output, budget: int, where: str) -> None:
    shaped = shape([output.data])
    excerpt = shaped.fit(budget, where)
    assert len(excerpt.text) <= budget
    assert excerpt.shown_lines + excerpt.missing_lines == shaped.total_lines
    assert excerpt.shown_chars + excerpt.missing_chars == shaped.total_chars
    assert 0 <= excerpt.elided_chars <= excerpt.shown_chars
    stated = [
        (int((lines or "0").replace(",", "")), int(chars.replace(",", "")))
        for lines, chars in re.findall(
            r"^⟦… (?:([\d,]+) lines? \()?([\d,]+) characters?\)? left out", excerpt.text, re.MULTILINE
        )
    ]
    if excerpt.text:
        assert sum(lines for lines, _ in stated) == excerpt.missing_lines
        assert sum(chars for _, chars in stated) == excerpt.missing_chars


@settings(max_examples=100, deadline=None)
@given(OUTPUT)
def test_text_has_no_control_characters_and_every_reserved_bracket_is_ours(output: Output) -> None:
    shaper = StreamShaper(WINDOW)
    shaper.feed(output.data)
    last = shaper.last_line()
    assert len(last) <= LAST_LINE_CHARS
    text = shaper.finish().fit(WINDOW).text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", text + last)
    ours = r"⟦(… [\d,]+ (line|character)s?\b|(previous|blank) line repeated [\d,]+ more times)"
    assert text.count(OPEN) == len(re.findall(ours, text))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 4000), st.integers(0, 60), st.integers(60, 2 * WINDOW), CHUNKS)
def test_the_gap_is_exactly_the_lines_that_are_not_shown(lines: int, width: int, budget: int, sizes: list[int]) -> None:
    every = [f"{index} {'é' * (index % (width + 1))}" for index in range(lines)]
    data = "".join(line + "\n" for line in every).encode()
    excerpt = shape(in_chunks(data, sizes)).fit(budget)
    shown = excerpt.text.split("\n") if excerpt.text else []
    gaps = [index for index, line in enumerate(shown) if line.startswith(OPEN)]
    assert len(gaps) <= 1
    if not gaps:
        assert shown == every
        return
    head, tail = shown[: gaps[0]], shown[gaps[0] + 1 :]
    assert every[: len(head)] == head
    assert every[len(every) - len(tail) :] == tail
    missing = every[len(head) : len(every) - len(tail)]
    count = f"{len(missing):,} line{'' if len(missing) == 1 else 's'}"
    assert shown[gaps[0]] == f"⟦… {count} ({sum(map(len, missing)) + len(missing):,} characters) left out⟧"


@given(st.text(st.characters(codec="ascii"), max_size=PLAIN_CHARS + 10), st.sampled_from([1000, 9000, 1_000_000]))
@example(" a ", 1000)
@example("x" * PLAIN_CHARS, 1000)
@example("A1b2" * 51, 1000)
def test_a_short_plain_text_is_shaped_as_any_other(text: str, window_chars: int) -> None:
    shaper = StreamShaper(window_chars)
    shaper.feed(text.encode())
    assert shape_text(text, window_chars) == shaper.finish()
