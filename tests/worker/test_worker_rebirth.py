"""Random states that each context has of its own."""

from __future__ import annotations

import random

import pytest

from mcp_server.worker import rebirth

numpy = pytest.importorskip("numpy")


@pytest.fixture(params=["lies as it should", "lies in another way"])
def prepared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebirth, "_renewals", [])
    if request.param == "lies in another way":
        words = numpy.zeros(624, numpy.uint32)
        monkeypatch.setattr(numpy.random, "get_state", lambda: ("MT19937", words, 624, 0, 0.0))
    numpy.random.standard_normal()  # draws two, and keeps one
    random.gauss(0, 1)
    rebirth.prepare_generators()


@pytest.mark.usefixtures("prepared")
def test_without_a_seed_all_numbers_are_new_each_time() -> None:
    drawn = []
    for _ in range(3):
        rebirth.reseed(None)
        drawn += [numpy.random.standard_normal(), numpy.random.rand(), random.gauss(0, 1), random.random()]
        rebirth.prepare_generators()  # the next context is a fork of what was before these were drawn
    assert len(set(drawn)) == len(drawn)
    assert 0.45 < numpy.random.rand(10_000).mean() < 0.55


@pytest.mark.usefixtures("prepared")
def test_with_a_seed_they_are_the_same_each_time() -> None:
    drawn = set()
    for _ in range(2):
        rebirth.reseed(7)
        drawn.add((numpy.random.standard_normal(), numpy.random.rand(), random.gauss(0, 1), random.random()))
    assert len(drawn) == 1
