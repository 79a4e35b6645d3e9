"""The terminal against a slow one that is written to be obviously right."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_server.shaping.terminal import SCREEN_ROWS, Terminal
from mcp_server.shaping.terminal_line import OTHER_COLUMNS, TerminalLine, is_wide


class Lines:
    """A sink that keeps everything."""

    full = False

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.chars = 0
        self.newlines = 0

    def line(self, line: TerminalLine) -> None:
        head, dropped, tail = line.parts()
        self.texts.append(f"{head}<{dropped}>{tail}" if dropped else head + tail)
        self.chars += line.chars
        self.newlines += line.lines

    def repeated(self, times: int, chars: int) -> None:
        self.texts += [self.texts[-1]] * times
        self.chars += times * chars
        self.newlines += times


def read(*pieces: str, long_line: int = 4096) -> Lines:
    lines = Lines()
    terminal = Terminal(lines, long_line=long_line)
    for piece in pieces:
        assert terminal.feed(piece) == len(piece)
    terminal.finish()
    return lines


class SlowTerminal:
    """One character at a time on a grid of single columns; knows only what the tests give it."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = [[]]
        self.row = self.column = 0
        self.top = 0

    def read(self, text: str) -> list[str]:
        for token in re.findall(r"\x1b\[(?:\d*)[A-Za-z]|[\s\S]", text):
            if token.startswith("\x1b["):
                self.control(token[-1], int(token[2:-1] or 0))
            elif token == "\n":
                self.row += 1
                self.column = 0
                if self.row == len(self.rows):
                    self.rows.append([])
                    self.top = max(0, len(self.rows) - SCREEN_ROWS - 1)
            elif token == "\r":
                self.column = 0
            elif token == "\b":
                self.column = max(0, self.column - 1)
            else:
                self.put(token)
        return ["".join(cell for cell in row) for row in self.rows]

    def put(self, char: str) -> None:
        row = self.rows[self.row]
        for offset in range(2 if unicodedata.east_asian_width(char) == "W" else 1):
            self.clear(self.column + offset)
            row[self.column + offset] = "" if offset else char
        self.column += offset + 1

    def clear(self, column: int) -> None:
        row = self.rows[self.row]
        while len(row) <= column:
            row.append(" ")
        if row[column] == "":
            row[column - 1] = " "
        if column + 1 < len(row) and row[column + 1] == "":
            row[column + 1] = " "
        row[column] = " "

    def control(self, kind: str, number: int) -> None:
        row = self.rows[self.row]
        count = number or 1
        if kind in "AB":
            down = count if kind == "B" else -count
            self.row = max(self.top, min(len(self.rows) - 1, self.row + down))
        elif kind in "CDG":
            self.column = max(0, {"C": self.column + count, "D": self.column - count, "G": count - 1}[kind])
        elif kind == "K" and number == 2:
            row.clear()
        elif kind == "K" and number == 1:
            for column in range(min(self.column + 1, len(row))):
                self.clear(column)
        elif kind in "JK":
            if self.column < len(row):
                self.clear(self.column)
            del row[self.column :]
            for below in self.rows[self.row + 1 :] if kind == "J" else ():
                below.clear()


_TEXTS = ["\n", "\n", "\r", "\b", "a", "bc", "def gh", "漢", "é", "█▌", "\x1b[31m", "\x1b[m"]
_MOVES = ["\x1b[A", "\x1b[3A", "\x1b[B", "\x1b[2C", "\x1b[D", "\x1b[4G", "\x1b[K", "\x1b[1K", "\x1b[2K", "\x1b[J"]
TOKENS = st.lists(st.sampled_from([*_TEXTS, *_MOVES]), max_size=40)


@settings(max_examples=600, deadline=None)
@given(st.lists(TOKENS, max_size=4), st.integers(0, 2 * SCREEN_ROWS))
def test_lines_are_those_of_a_slow_terminal(pieces: list[list[str]], rows_before: int) -> None:
    whole = "x\n" * rows_before + "".join(token for piece in pieces for token in piece)
    expected = SlowTerminal().read(whole)
    seen = read("x\n" * rows_before, *("".join(piece) for piece in pieces))
    assert [text.rstrip(" ") for text in seen.texts if text.strip()] == [
        text.rstrip(" ") for text in expected if text.strip()
    ]
    assert seen.chars == len(whole)
    assert seen.newlines - whole.count("\n") in (0, 1)


@settings(max_examples=300, deadline=None)
@given(st.lists(TOKENS, max_size=4))
def test_pieces_do_not_matter_where_lines_are_too_long_to_be_redrawn(pieces: list[list[str]]) -> None:
    texts = ["".join(piece) for piece in pieces]
    assert read(*texts, long_line=12).texts == read("".join(texts), long_line=12).texts


def test_characters_that_are_said_to_fill_one_column_do_so() -> None:
    """Unicode's versions differ in which characters there are, and Python's in how wide the others are."""
    said = [char for char in map(chr, range(0x110000)) if not OTHER_COLUMNS.match(char)]
    assert len(said) > 1_900
    assert [char for char in said if is_wide(char) or unicodedata.combining(char)] == []


def test_a_progress_bar_is_shown_as_its_last_state() -> None:
    assert read("".join(f"\r{n:3}%|{'█' * (n // 10):10}|" for n in range(101)), "\n").texts == ["100%|██████████|"]


def test_a_shorter_redraw_leaves_the_rest_of_the_longer_one() -> None:
    assert read("working...\rdone\n").texts == ["doneing..."]
    assert read("working...\r\x1b[Kdone\n").texts == ["done"]


def test_bars_on_several_lines_are_redrawn_in_place() -> None:
    states = "".join(f"\r one {n}\n\r two {n}\n\x1b[2A" for n in range(5))
    assert read("start\n", states, "\n\nend\n").texts == ["start", " one 4", " two 4", "end"]


def test_backspaces_move_over_what_was_printed() -> None:
    assert read("spin |\b/\b-\b\\\n").texts == ["spin \\"]
    assert read("N\bNA\bAM\bME\bE\n").texts == ["NAME"]


def test_carriage_return_and_newline_end_a_line_of_any_length() -> None:
    assert read("short\r\n" + "long" * 5000 + "\r\nend\r\n").texts[::2] == ["short", "end"]


def test_an_endless_line_keeps_its_beginning_and_its_end() -> None:
    line = "".join(f"{n}," for n in range(100_000))
    text = read(*(line[at : at + 777] for at in range(0, len(line), 777))).texts[0]
    head, dropped, tail = re.fullmatch(r"(.*)<(\d+)>(.*)", text).groups()  # type: ignore[union-attr]
    assert line.startswith(head)
    assert line.endswith(tail)
    assert len(head) + int(dropped) + len(tail) == len(line)


def test_an_unfinished_sequence_swallows_nothing_beyond_its_line() -> None:
    for opening in ("\x1b]0;title", "\x1bPdata", "\x1b[12", "\x1b_x", "\x1b"):
        assert read(f"a{opening}\n", "and all the rest\n").texts == [f"a{opening}", "and all the rest"]


def test_an_unfinished_sequence_without_a_newline_is_shown_once_it_is_too_long() -> None:
    text = "\x1b]0;" + "x" * 5000
    assert read(*text).texts[0].startswith("\x1b]0;xxx")


def test_a_long_run_of_one_line_is_passed_on_as_a_count() -> None:
    class Repeats(Lines):
        given = 0

        def repeated(self, times: int, chars: int) -> None:
            self.given += times

    lines = Repeats()
    terminal = Terminal(lines)
    for _ in range(50):
        terminal.feed("y\n" * 20_000)
    terminal.finish()
    assert lines.texts == ["y"] * (1_000_000 - lines.given)
    assert lines.given > 990_000


def test_redrawing_wide_characters_is_given_up_in_time_and_printing_them_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_server.shaping.terminal.MAX_WORK", 100_000)
    for flood in ("\r" + "漢" * 100, "漢\b", "🚀\x1b[G"):
        terminal = Terminal(Lines(), bounded=True)
        assert terminal.feed(flood * 10_000) < len(flood) * 10_000
        assert terminal.full
    terminal = Terminal(Lines(), bounded=True)
    text = ("漢" * 100 + "\n") * 1_000
    assert terminal.feed(text) == len(text)
    assert not terminal.full
