"""The soak in short; `make soak` is the long one."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from tests.soak.soak import Options, soak

pytestmark = pytest.mark.anyio

SHORT = Options(duration_s=12, warm_up_s=5, conversations=20, pause_s=0.5, kill_every_s=1)


@pytest.mark.timeout(360)  # rests, and the end of what is under way, on a machine with other things to do
async def test_under_many_rude_conversations_every_invariant_holds() -> None:
    seed = int.from_bytes(os.urandom(4))
    said = [f"seed {seed}"]
    result = await soak(replace(SHORT, seed=seed), said.append)
    assert result.faults == [], said
    assert result.calls > 20
    assert result.warmed is not None
    assert result.ended is not None
