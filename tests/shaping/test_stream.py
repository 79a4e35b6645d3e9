"""Windows, last lines and finds of the stream shaper, by example."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.shaping import notable
from mcp_server.shaping.stream import LAST_LINE_CHARS, ShapedText, StreamShaper

WINDOW = 3_000


def shaped(data: bytes, window: int = WINDOW) -> ShapedText:
    shaper = StreamShaper(window)
    shaper.feed(data)
    return shaper.finish()


def cut_after(*parts: bytes) -> list[str]:
    """The text of each window where one ends after each part."""
    shaper = StreamShaper(WINDOW)
    texts = []
    for part in parts[:-1]:
        shaper.feed(part)
        texts.append(shaper.cut().fit(WINDOW).text)
    shaper.feed(parts[-1])
    return [*texts, shaper.finish().fit(WINDOW).text]


@pytest.mark.parametrize(
    ("parts", "texts"),
    [
        ((b"one\ntw", b"o\nthree\n"), ["one\ntw", "o\nthree"]),
        ((b"one\n", b"two\n"), ["one", "two"]),
        ((b" 10%|#   |", b"\r 90%|### |", b"\rdone\n"), [" 10%|#   |", " 90%|### |", "done"]),
        ((b"a\x1b[3", b"1mred\x1b[0m\n"), ["a", "red"]),
        ((b"a\x1b]0;tit", b"le\x07b\n"), ["a", "b"]),
        (("caf\xe9".encode()[:-1], "\xe9".encode()[1:] + b" bar\n"), ["caf", "é bar"]),
        ((b"back", b"\b\b\bX\n"), ["back", "X"]),
        ((b"one\ntwo\n", b"\x1b[2Athree\n"), ["one\ntwo", "three"]),
        ((b"a\x1b[3", b""), ["a", "␛[3"]),
        ((b"\xe6\xbc", b""), ["", "�"]),
        ((b"", b"", b"x"), ["", "", "x"]),
    ],
)
def test_what_a_window_leaves_unfinished_goes_on_in_the_next(parts: tuple[bytes, ...], texts: list[str]) -> None:
    assert cut_after(*parts) == texts


@given(st.lists(st.text("abcdefé漢\n", max_size=40), min_size=1, max_size=6))
def test_windows_show_everything_once(parts: list[str]) -> None:
    raw = "".join(parts).encode()
    shaper = StreamShaper(WINDOW)
    shown = []
    done = 0
    for part in parts:
        end = done + len(part)  # in bytes: anywhere, also inside a character
        shaper.feed(raw[done:end])
        shown.append(shaper.cut())
        done = end
    shaper.feed(raw[done:])
    shown.append(shaper.finish())
    unfolded = [row.text for window in shown for row in window.rows if "⟦" not in row.text]
    folded = any("⟦" in row.text for window in shown for row in window.rows)
    assert folded or "".join(unfolded) == raw.decode().replace("\n", "")


def test_a_sequence_left_open_by_a_flood_belongs_to_the_next_window() -> None:
    shaper = StreamShaper(WINDOW)
    flood = b"".join(b"line %d\n" % n for n in range(50_000))
    shaper.feed(flood + b"a\x1b[3")
    assert shaper.cut().total_chars == len(flood) + 1
    shaper.feed(b"1mb\n")
    assert shaper.finish().total_chars == 7


def test_a_flood_in_one_window_is_no_matter_to_the_next() -> None:
    shaper = StreamShaper(WINDOW)
    shaper.feed(b"".join(b"line %d\n" % n for n in range(50_000)) + b"unfinished")
    first = shaper.cut()
    shaper.feed(b" line\nlast\n")
    assert first.fit(WINDOW).text.endswith("\nunfinished")
    assert first.missing_lines > 40_000
    assert shaper.finish() == ShapedText(shaped(b" line\nlast\n").rows, 11)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", ""),
        (b"one\ntwo\n\n  \n", "two"),
        (b"one\n  5%|#", "5%|#"),
        (b"\x1b[32mgreen\x1b[0m\n", "green"),
        (b" 1%\r 2%\r 3%", "3%"),
        (b"y\n" * 100_000, "y"),
        (b"caf\xc3", "caf"),
        (b"wait\x1b[3", "wait"),
    ],
)
def test_last_line_is_the_last_that_is_not_blank(data: bytes, line: str) -> None:
    shaper = StreamShaper(WINDOW)
    shaper.feed(data)
    assert shaper.last_line() == line


def test_last_line_is_short_and_ends_between_characters() -> None:
    shaper = StreamShaper(WINDOW)
    for _ in range(400):
        shaper.feed("👩\u200d🚀".encode())
        line = shaper.last_line()
        assert len(line) <= LAST_LINE_CHARS
        assert line.replace("👩\u200d🚀", "") in ("", "…")
    assert line == "👩\u200d🚀" * ((LAST_LINE_CHARS - 1) // 3) + "…"


def test_the_end_of_an_endless_line_begins_between_characters() -> None:
    for cluster in ("👩\u200d🚀", "e\u0301\u0323", "漢", "नि"):
        for extra in range(4):
            head = b"".join(b"line %d\n" % n for n in range(2_000))
            text = shaped(head + b"x" * extra + cluster.encode() * 20_000).fit(WINDOW).text
            end = text.rpartition("⟦…")[0].rpartition("\n")[2]
            assert end.replace(cluster, "") == ""


def test_last_line_stays_after_a_window_has_ended() -> None:
    shaper = StreamShaper(WINDOW)
    shaper.feed(b"epoch 7\n")
    shaper.cut()
    assert shaper.last_line() == "epoch 7"


def log(lines: int, trouble_at: int) -> bytes:
    trouble = b"Traceback (most recent call last):\n  frame\nKeyError: 'x'\n"
    return b"".join(b"line %d\n" % n + (trouble if n == trouble_at else b"") for n in range(lines))


@pytest.mark.parametrize("at", [1_000, 50_000, 98_000])
def test_a_failure_in_the_middle_is_shown_in_its_place(at: int) -> None:
    data = log(100_000, at)
    for window, budget in ((WINDOW, WINDOW), (9_000, 2_000)):
        lines = shaped(data, window).fit(budget).text.split("\n")
        place = lines.index("Traceback (most recent call last):")
        assert lines[place - 1].startswith("⟦… ")
        assert lines[place + 2 : place + 4] == ["KeyError: 'x'", f"line {at + 1}"]
        gaps = [int(line.split()[1].replace(",", "")) for line in lines if line.startswith("⟦… ")]
        assert len(gaps) == 2
        assert sum(gaps) + len(lines) - 2 == 100_003


def test_a_failure_where_the_kept_end_begins_is_shown_once() -> None:
    for back in range(250, 310):
        lines = [b"%06d %s\n" % (n, b"Error" if n == 2_000 - back else b"." * 92) for n in range(2_000)]
        shaper = StreamShaper(WINDOW)
        for at in range(0, 2_000, 7):
            shaper.feed(b"".join(lines[at : at + 7]))
        whole = shaper.finish()
        assert whole.total_lines == 2_000
        assert whole.total_chars == len(b"".join(lines))
        numbers = [int(row.text[:6]) for row in whole.rows if not row.hidden]
        assert numbers == sorted(set(numbers))
        assert 2_000 - back in numbers


def test_a_failure_is_found_where_chunks_meet() -> None:
    data = log(100_000, 50_000)
    at = data.index(b"Traceback")
    for split in range(at - 2, at + 40):
        shaper = StreamShaper(WINDOW)
        shaper.feed(data[:split])
        shaper.feed(data[split:])
        assert "KeyError: 'x'" in shaper.finish().fit(WINDOW).text


def test_only_so_much_is_searched_for_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notable, "SEARCHED_BYTES", 100_000)
    assert "KeyError" in shaped(log(100_000, 5_000)).fit(WINDOW).text
    assert "KeyError" not in shaped(log(100_000, 50_000)).fit(WINDOW).text


def test_a_sign_deep_inside_an_endless_line_is_passed_over() -> None:
    data = b"".join(b"line %d\n" % n for n in range(5_000))
    dump = b"x" * 5_000 + b"Error" + b"x" * 5_000 + b"\n"
    text = shaped(data + dump + log(50_000, 100)).fit(WINDOW).text
    assert "xError" not in text
    assert "KeyError: 'x'" in text


def test_cutting_again_to_a_smaller_budget_counts_everything() -> None:
    whole = shaped(log(100_000, 50_000), 9_000)
    for budget in (9_000, 4_000, 1_000, 300, 100):
        excerpt = whole.fit(budget)
        assert len(excerpt.text) <= budget
        assert excerpt.shown_lines + excerpt.missing_lines == 100_003
    assert whole.fit(10).text == ""


def test_a_large_window_shows_all_of_a_large_text_in_any_script() -> None:
    text = "".join(f"{n} 漢字かな交じり文 🚀\n" for n in range(60_000))
    assert shaped(text.encode(), window=2_000_000).fit(2_000_000).text == text.rstrip("\n")
