"""The bounded repr: the same as Python's for what is small, within its bound for what is not."""

from __future__ import annotations

import collections
import dataclasses
import enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.worker.plaintext import MOST_CHARS, plain_text

ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=10)
KEYS = st.none() | st.integers() | st.text(max_size=5)
VALUES: st.SearchStrategy[Any] = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(KEYS, inner)
        | st.sets(KEYS)
        | st.frozensets(KEYS)
        | st.builds(collections.deque, st.lists(inner))
        | st.builds(collections.Counter, st.lists(KEYS))
        | st.dictionaries(KEYS, inner).map(lambda items: collections.defaultdict(list, items))
    ),
)


def without_blanks(text: str) -> str:
    return "".join(text.split())


@given(VALUES)
def test_what_is_small_reads_as_its_repr(value: Any) -> None:
    text = plain_text(value)
    if len(repr(value)) <= 120:
        assert text == repr(value)
    assert without_blanks(text) == without_blanks(repr(value))


@given(VALUES, st.integers(60, 500))
def test_what_is_large_is_within_its_bound_and_says_what_is_missing(value: Any, most: int) -> None:
    text = plain_text(value, most)
    assert len(text) <= 2 * most + 60
    if without_blanks(text) != without_blanks(repr(value)):
        assert len(repr(value)) > most - 2
        assert " more …" in text or "left out …" in text


@given(VALUES)
def test_lines_are_no_longer_than_their_longest_item(value: Any) -> None:
    for line in plain_text(value).split("\n"):
        assert len(line) <= 400


@dataclasses.dataclass
class Holder:
    name: str
    values: list[int]
    hidden: int = dataclasses.field(default=0, repr=False)


class Colour(enum.IntEnum):
    RED = 1


class Listed(list[int]):
    """Shows itself as a list."""


class Named(list[int]):
    def __repr__(self) -> str:
        return "Named!"


class Raising:
    def __repr__(self) -> str:
        raise ValueError("no")


class NoText:
    def __repr__(self) -> str:
        return 5  # type: ignore[return-value]


class Endless:
    def __repr__(self) -> str:
        return "x" * 10_000_000


SMALL = {
    "a dataclass": (Holder("n", [1]), "Holder(name='n', values=[1])"),
    "an enum member": (Colour.RED, "<Colour.RED: 1>"),
    "a subclass that shows itself as its base": (Listed([1, 2]), "[1, 2]"),
    "a subclass with its own text": (Named([1]), "Named!"),
    "an object whose repr raises": (Raising(), "<Raising object whose repr raised ValueError>"),
    "a list of such": ([Raising()], "[<Raising object whose repr raised ValueError>]"),
    "an object whose repr is no text": (NoText(), "<NoText object whose repr raised TypeError>"),
    "an int of many digits": (10**6000, "<int of 19,932 bits>"),
    "a list of such ints": ([10**6000], "[<int of 19,932 bits>]"),
    "an empty set": (set(), "set()"),
    "an empty frozenset": (frozenset(), "frozenset()"),
    "a tuple of one": ((1,), "(1,)"),
    "a counter": (collections.Counter("aab"), "Counter({'a': 2, 'b': 1})"),
    "a bounded deque": (collections.deque([1], maxlen=3), "deque([1], maxlen=3)"),
}


@pytest.mark.parametrize(("value", "text"), SMALL.values(), ids=SMALL)
def test_special_values(value: object, text: str) -> None:
    assert plain_text(value) == text


def test_a_container_in_itself_is_marked() -> None:
    ring: list[Any] = [1]
    ring.append(ring)
    assert plain_text(ring) == "[1, [...]]"
    loop: dict[str, Any] = {}
    loop["self"] = loop
    assert plain_text(loop) == "{'self': {...}}"


def test_a_container_that_holds_another_twice_in_ninety_layers_is_bounded() -> None:
    value: list[Any] = []
    for _ in range(90):
        value = [value, value]
    assert len(plain_text(value)) < 3 * MOST_CHARS


def test_a_nesting_of_a_million_is_survived() -> None:
    value: list[Any] = []
    for _ in range(1_000_000):
        value = [value]
    text = plain_text(value)
    assert text.strip("[] \n") == "…"
    while value:  # freed layer by layer
        value = value[0]


def test_head_and_tail_of_a_large_list_are_shown() -> None:
    text = plain_text(list(range(1_000_000)), 200)
    assert text.startswith("[0, 1, 2,")
    assert text.endswith("999998, 999999]")
    shown = len([item for item in text.strip("[]").replace("\n", " ").split(", ") if item.strip(" ,").isdigit()])
    assert "more …" in text
    assert shown < 70


def test_a_huge_text_is_cut_without_being_escaped_whole() -> None:
    text = plain_text("é\n" * 50_000_000)
    assert len(text) < 3 * MOST_CHARS
    assert "[… 99,968,000 of 100,000,000 characters left out …]" in text


def test_a_huge_repr_is_cut_with_its_length_said() -> None:
    assert "of 10,000,000 characters left out" in plain_text(Endless())


def test_indents_take_no_room_from_what_is_shown() -> None:
    inner: Any = collections.defaultdict(list, dict.fromkeys([None, 0, 1, -1, 2, -2]))
    value: Any = collections.defaultdict(list, {None: inner})
    assert plain_text(value, 127) == repr(value)


def test_a_large_dictionary_is_laid_out_an_entry_a_line() -> None:
    text = plain_text({f"key {number}": list(range(5)) for number in range(10)})
    assert text.splitlines()[1] == " 'key 1': [0, 1, 2, 3, 4],"
    assert eval(text) == {f"key {number}": list(range(5)) for number in range(10)}
