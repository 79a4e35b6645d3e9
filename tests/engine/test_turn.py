"""What a worker may say, and when."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.engine.turn import LEGAL, Ended, Phase, Ready, Refused, Turn
from mcp_server.errors import ProtocolViolation
from mcp_server.model import DisplayChunk, ErrorInfo, Representation
from mcp_server.worker import frames
from mcp_server.worker.frames import Frame

READY = Frame(frames.READY, {"cwd": "/work", "pid": 1, "python": "3.11"})
REFUSED = Frame(frames.REFUSED, {"message": "no such directory"})
DISPLAY = Frame(
    frames.DISPLAY,
    {
        "is_result": True,
        "parts": [
            {"mime": "text/plain", "bytes": 1, "alt": "", "original": 0},
            {"mime": "image/png", "bytes": 3, "alt": "figure", "original": 9},
        ],
    },
    b"2PNG",
)
END = Frame(frames.END, {"run": 7, "status": "ok", "error": None, "exit_code": None})
GOOD = {frames.READY: READY, frames.REFUSED: REFUSED, frames.DISPLAY: DISPLAY, frames.END: END}


def turn_in(phase: Phase) -> Turn:
    turn = Turn()
    if phase is Phase.REFUSED:
        turn.receive(REFUSED)
    elif phase is not Phase.STARTING:
        turn.receive(READY)
    if phase is Phase.RUNNING:
        turn.begin(7)
    return turn


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("kind", sorted(frames.KINDS))
def test_only_the_tables_frames_are_taken(phase: Phase, kind: int) -> None:
    turn = turn_in(phase)
    assert turn.phase is phase
    frame = GOOD.get(kind, Frame(kind, {}))
    if (phase, kind) in LEGAL:
        turn.receive(frame)
        assert turn.phase is LEGAL[phase, kind]
    else:
        with pytest.raises(ProtocolViolation):
            turn.receive(frame)
        assert turn.phase is phase


def test_frames_become_events() -> None:
    assert Turn().receive(READY) == Ready("/work")
    assert Turn().receive(REFUSED) == Refused("no such directory")
    turn = turn_in(Phase.RUNNING)
    assert turn.receive(DISPLAY) == DisplayChunk(
        True, (Representation("text/plain", b"2"), Representation("image/png", b"PNG", "figure", 9))
    )
    error = {"name": "E", "message": "m", "traceback": "t"}
    assert turn.receive(Frame(frames.END, {"run": 7, "error": error, "exit_code": 3})) == Ended(
        ErrorInfo("E", "m", "t"), 3
    )


def test_a_run_cannot_begin_out_of_turn() -> None:
    for phase in (Phase.STARTING, Phase.RUNNING, Phase.REFUSED):
        with pytest.raises(RuntimeError):
            turn_in(phase).begin(1)


@pytest.mark.parametrize(
    "header",
    [
        {"run": 6, "error": None, "exit_code": None},
        {"run": True, "error": None, "exit_code": None},
        {"run": "7", "error": None, "exit_code": None},
        {"run": 7, "error": "no", "exit_code": None},
        {"run": 7, "error": {"name": 1, "message": "", "traceback": ""}, "exit_code": None},
        {"run": 7, "error": None, "exit_code": "3"},
        {},
    ],
)
def test_an_end_that_no_worker_of_ours_sends_is_a_violation(header: dict[str, Any]) -> None:
    turn = turn_in(Phase.RUNNING)
    with pytest.raises(ProtocolViolation):
        turn.receive(Frame(frames.END, header))
    assert turn.phase is Phase.RUNNING


def part(size: object, mime: object = "text/plain") -> dict[str, object]:
    return {"mime": mime, "bytes": size, "alt": "", "original": 0}


@pytest.mark.parametrize(
    "parts",
    [[part(3)], [part(1)], [part(-1)], [part(2, mime=1)], [part("2")], ["text"], "text", None, [part(0)] * 1000],
)
def test_a_display_whose_parts_do_not_fit_its_body_is_a_violation(parts: object) -> None:
    with pytest.raises(ProtocolViolation):
        turn_in(Phase.RUNNING).receive(Frame(frames.DISPLAY, {"is_result": False, "parts": parts}, b"ab"))


scalars = st.none() | st.booleans() | st.integers(-2, 9) | st.sampled_from(["", "text/plain"])
objects = st.fixed_dictionaries({}, optional=dict.fromkeys(("mime", "bytes", "alt", "original", "name"), scalars))
json_values = scalars | objects | st.lists(objects, max_size=2)
headers = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("run", "error", "exit_code", "cwd", "message", "is_result", "parts"), json_values)
)


@given(st.lists(st.tuples(st.sampled_from(sorted(frames.KINDS)), headers, st.binary(max_size=3)), max_size=4))
def test_no_frame_raises_anything_but_a_violation(sent: list[tuple[int, dict[str, Any], bytes]]) -> None:
    turn = turn_in(Phase.RUNNING)
    for kind, header, body in sent:
        try:
            turn.receive(Frame(kind, header, body))
        except ProtocolViolation:
            return
