"""Cuts keep together what a reader sees as one character."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_server.shaping.graphemes import MAX_CLUSTER, cut_at_or_after, cut_at_or_before, is_boundary
from mcp_server.shaping.stream import StreamShaper

CLUSTERS = ["a", "漢", "é", "e\u0301", "n\u0303\u0323", "❤\ufe0f", "👍🏽", "👩\u200d👩\u200d👧\u200d👦", "🇩🇪", "🇫🇷"]
CLUSTERS += ["\u1112\u1161\u11ab", "ש\u05c1", "नि", "🏴\U000e0067\U000e0062\U000e007f", " "]
TEXTS = st.lists(st.sampled_from(CLUSTERS))


def edges(clusters: list[str]) -> set[int]:
    places = {0}
    length = 0
    for cluster in clusters:
        length += len(cluster)
        places.add(length)
    return places


@given(TEXTS)
def test_boundaries_are_exactly_between_clusters(clusters: list[str]) -> None:
    text = "".join(clusters)
    assert {at for at in range(len(text) + 1) if is_boundary(text, at)} == edges(clusters)


@given(TEXTS, st.integers(0, 200))
def test_cuts_go_to_the_nearest_boundary_on_their_side(clusters: list[str], at: int) -> None:
    text = "".join(clusters)
    at = min(at, len(text))
    assert cut_at_or_before(text, at) == max(edge for edge in edges(clusters) if edge <= at)
    assert cut_at_or_after(text, at) == min(edge for edge in edges(clusters) if edge >= at)


@pytest.mark.parametrize("at", [500, 900])
def test_a_cluster_that_never_ends_may_be_cut(at: int) -> None:
    text = "e" + "\u0301" * 1000
    assert cut_at_or_before(text, at) == cut_at_or_after(text, at) == at
    assert cut_at_or_before(text, MAX_CLUSTER - 1) == 0


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(CLUSTERS), min_size=1, max_size=40), st.integers(1, 400), st.integers(100, 900))
def test_a_line_that_loses_its_middle_is_cut_between_clusters(clusters: list[str], times: int, budget: int) -> None:
    line = clusters * times
    whole = "".join(line)
    shaper = StreamShaper(1000)
    shaper.feed(whole.encode())
    text = shaper.finish().fit(budget).text
    if text == whole or text.startswith("⟦… 1 line ("):
        return
    match = re.fullmatch(r"(.*)⟦… ([\d,]+) characters? (?:of this line )?left out(?: …)?⟧(.*)", text)
    assert match, text
    head, tail = match[1], match[3]
    assert len(head) + int(match[2].replace(",", "")) + len(tail) == len(whole)
    assert whole.startswith(head)
    assert whole.endswith(tail)
    assert {len(head), len(whole) - len(tail)} <= edges(line)


@pytest.mark.parametrize("before", ["", "x", "xy", "🇫", "🇫🇷x"])
@pytest.mark.parametrize("after", ["", "z"])
def test_an_endless_line_of_flags_is_cut_between_flags(before: str, after: str) -> None:
    shaper = StreamShaper(1000)
    for _ in range(20):
        shaper.feed((before + "🇩🇪" * 1_000 + after).encode())
    text = shaper.finish().fit(1000).text
    line = (before + "🇩🇪" * 1_000 + after) * 20
    head, tail = text.partition("⟦")[0], text.rpartition("⟧")[2]
    places = {0}
    for match in re.finditer("[🇦-🇿]{2}|.", line):
        places.add(match.end())
    assert len(head) in places
    assert len(line) - len(tail) in places
