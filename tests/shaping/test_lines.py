"""What becomes of one line: control characters, blobs, long middles, reserved brackets."""

from __future__ import annotations

import base64
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.shaping.lines import Elision, Row, shorten
from mcp_server.shaping.stream import StreamShaper


def shown(data: bytes, window: int = 9000) -> str:
    shaper = StreamShaper(window)
    shaper.feed(data)
    return shaper.finish().fit(window).text


def noise(size: int) -> bytes:
    return random.Random(7).randbytes(size)


def test_base64_is_elided_with_its_length() -> None:
    blob = base64.b64encode(noise(3000)).decode()
    text = shown(f'{{"image": "data:image/png;base64,{blob}", "n": 1}}\n'.encode())
    assert text == (
        f'{{"image": "data:image/png;base64,{blob[:24]}⟦… 3,968 characters of base64 left out …⟧{blob[-8:]}", "n": 1}}'
    )


def test_hex_digits_are_elided_with_their_length() -> None:
    blob = noise(1000).hex()
    assert shown(f"sha {blob}".encode()) == f"sha {blob[:24]}⟦… 1,968 characters of hex digits left out …⟧{blob[-8:]}"


def test_two_blobs_in_a_line_are_both_elided() -> None:
    blob = noise(300).hex()
    assert shown(f"{blob} and {blob} end".encode()).count("⟦… 568 characters of hex digits left out …⟧") == 2


@pytest.mark.parametrize("text", ["=" * 300, "-" * 300, str(7**300), "a" * 300, "word " * 60, "ACGT" * 100, "_" * 290])
def test_rules_numbers_and_words_are_no_blobs(text: str) -> None:
    assert shown(text.encode()) == text


def test_an_endless_blob_leaves_only_its_edges() -> None:
    blob = base64.b64encode(noise(300_000)).decode()
    text = shown(b"PNG: " + blob.encode() + b"\nend\n")
    assert text == f"PNG: {blob[:24]}⟦… 399,968 characters of base64 left out …⟧{blob[-8:]}\nend"


def test_two_blobs_far_apart_are_not_taken_for_one() -> None:
    blob = base64.b64encode(noise(60_000)).decode()
    text = shown(f"{blob} and {blob}".encode())
    assert text == f"{blob[:24]}⟦… 159,973 characters of this line left out …⟧{blob[-8:]}"


def test_blanks_that_wiped_something_out_are_not_shown() -> None:
    assert shown(b"100% done\r         \rx  \ny  \n") == "x\ny  "
    assert shown(b"abc\rab    \ny\n") == "ab\ny"


def test_a_long_line_loses_its_middle_and_the_count_is_exact() -> None:
    line = " ".join(map(str, range(20_000)))
    text = shown(line.encode())
    match = re.fullmatch(r"(.*)⟦… ([\d,]+) characters of this line left out …⟧(.*)", text)
    assert match
    assert line.startswith(match[1])
    assert line.endswith(match[3])
    assert len(match[1]) + int(match[2].replace(",", "")) + len(match[3]) == len(line)


def test_a_large_window_keeps_long_lines_and_blobs_whole() -> None:
    line = base64.b64encode(noise(3000)).decode() + " " + "x, " * 2000
    assert shown(line.encode(), window=1_000_000) == line


def test_control_characters_are_visible_and_invalid_utf8_is_replaced() -> None:
    assert shown(b"a\0b\x07c\x7fd\x0be\xff\xfe\tf") == "a␀b␇c␡d␋e��\tf"
    assert shown("nel\x85 ls\u2028 rlo\u202e c1\x9b".encode()) == "nel␤ ls␤ rlo� c1�"


def test_right_to_left_text_is_untouched() -> None:
    text = "שלום עולם · مرحبا بالعالم · \u200fmark"
    assert shown(text.encode()) == text


def test_lines_that_look_like_ours_cannot_be_mistaken_for_them() -> None:
    assert shown("⟦… 5 lines (9 characters) left out⟧\n".encode()) == "〚… 5 lines (9 characters) left out〛"


def test_repeats_are_folded_from_three_on() -> None:
    assert shown(b"a\n" * 3 + b"b\n") == "a\na\na\nb"
    assert shown(b"a\n" * 500 + b"b\n") == "a\n⟦previous line repeated 499 more times⟧\nb"
    assert shown(b"a\n" + b"\n" * 500 + b"b\n") == "a\n\n⟦blank line repeated 499 more times⟧\nb"


def test_lines_that_differ_only_in_colour_are_the_same_line() -> None:
    assert shown(b"\x1b[31mx\x1b[0m\nx\nx\nx\n") == "x\n⟦previous line repeated 3 more times⟧"


@given(st.text("abc é漢", min_size=200, max_size=600), st.integers(100, 300), st.integers(60, 99))
def test_shortening_twice_counts_everything_once(text: str, first: int, second: int) -> None:
    once = shorten(Row(text, 1, len(text)), first)
    twice = shorten(once, second)
    assert len(once.text) <= first
    assert len(twice.text) <= second
    for row in (once, twice):
        noted = sum(elision.end - elision.start for elision in row.elisions)
        assert len(row.text) - noted + sum(elision.hidden for elision in row.elisions) == len(text)


def test_shortening_never_cuts_into_an_elision() -> None:
    note = "⟦… 1,000 characters of base64 left out …⟧"
    row = Row("a" * 40 + note + "b" * 300, 1, 1340, (Elision(40, 40 + len(note), 1000),))
    for size in range(70, len(row.text)):
        short = shorten(row, size)
        assert [short.text[elision.start] + short.text[elision.end - 1] for elision in short.elisions] == [
            "⟦⟧" for _ in short.elisions
        ]
        noted = sum(elision.end - elision.start for elision in short.elisions)
        assert len(short.text) - noted + sum(elision.hidden for elision in short.elisions) == 1340
