"""The mux's messages: what goes in comes out; anything else is a violation, never another exception."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.errors import (
    CallerError,
    EngineUnavailable,
    InternalError,
    InvalidArgument,
    LimitReached,
    NothingToReport,
    ProtocolViolation,
    UnknownContext,
    UnknownSandbox,
)
from mcp_server.model import (
    Chunk,
    DisplayChunk,
    ErrorInfo,
    Outcome,
    OutputChunk,
    Representation,
    State,
    Status,
    Stream,
)
from mcp_server.toolbox.mux import (
    Kind,
    Message,
    RunOrder,
    chunk_message,
    chunk_of,
    cost,
    decode,
    encode,
    entry,
    failure_fields,
    failure_of,
    outcome_fields,
    outcome_of,
)

TEXT = st.text(st.characters(exclude_categories=()))
CALLS = st.integers(0, 2**53)

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)

CHUNKS: st.SearchStrategy[Chunk] = st.builds(OutputChunk, st.sampled_from(Stream), st.binary()) | st.builds(
    DisplayChunk,
    st.booleans(),
    st.lists(st.builds(Representation, TEXT, st.binary(), TEXT, st.integers(0, 2**40)), max_size=3).map(tuple),
)

OUTCOMES = st.builds(
    Outcome,
    status=st.sampled_from([status for status in Status if status.ended]),
    state=st.sampled_from(State),
    elapsed_s=st.floats(0, 1e9),
    error=st.none() | st.builds(ErrorInfo, TEXT, TEXT, TEXT),
    exit_code=st.none() | st.integers(-(2**31), 2**31),
    signal=st.none() | st.integers(0, 64),
    lost_before=TEXT,
    detail=TEXT,
)


@given(CALLS, CHUNKS)
def test_a_chunk_arrives_as_it_was_sent(call: int, chunk: Chunk) -> None:
    message = decode(encode(chunk_message(call, chunk)))
    assert message.call == call
    assert chunk_of(message) == chunk
    assert cost(message) > 0


@given(CALLS, OUTCOMES)
def test_an_outcome_arrives_as_it_was_sent(call: int, outcome: Outcome) -> None:
    message = decode(encode(Message(Kind.END, call, outcome_fields(outcome))))
    assert outcome_of(message.header) == outcome


@given(CALLS, TEXT, st.none() | st.floats(0, 1e6), st.dictionaries(TEXT, TEXT, max_size=2))
def test_code_arrives_as_it_was_sent(call: int, code: str, timeout_s: float | None, envs: dict[str, str]) -> None:
    message = decode(encode(RunOrder("s", "c", code, timeout_s, envs).message(call)))
    assert message.body.decode("utf-8", "surrogatepass") == code
    assert message.header == {"call": call, "sandbox": "s", "context": "c", "timeout": timeout_s, "envs": envs}


@given(st.binary(max_size=100) | TEXT)
def test_bytes_are_a_message_or_a_violation(data: bytes | str) -> None:
    try:
        decode(data)
    except ProtocolViolation:
        return
    assert len(data) > 5


@given(
    st.sampled_from(Kind),
    st.dictionaries(st.sampled_from(["stream", "parts", "is_result", "status"]), JSON),
    st.binary(),
)
def test_a_header_of_another_shape_is_a_violation(kind: Kind, header: dict[str, Any], body: bytes) -> None:
    message = Message(kind, 1, header, body)
    for read in (lambda: chunk_of(message), lambda: outcome_of(message.header)):
        try:
            read()
        except ProtocolViolation:
            continue


def test_a_run_cannot_end_as_running() -> None:
    fields = outcome_fields(Outcome(Status.OK)) | {"status": "running"}
    with pytest.raises(ProtocolViolation, match="running"):
        outcome_of(fields)


def test_a_truth_value_is_no_number() -> None:
    with pytest.raises(ProtocolViolation):
        entry({"call": True}, "call", int)


@pytest.mark.parametrize(
    ("error", "arrives"),
    [
        (UnknownContext("ctx_1"), UnknownContext),
        (UnknownSandbox("gone"), UnknownSandbox),
        (InvalidArgument("bad"), InvalidArgument),
        (LimitReached("full"), LimitReached),
        (NothingToReport("none"), CallerError),
        (EngineUnavailable("down"), EngineUnavailable),
        (ProtocolViolation("odd"), InternalError),
    ],
)
def test_an_error_arrives_as_the_nearest_class_that_both_sides_know(
    error: CallerError | InternalError, arrives: type[Exception]
) -> None:
    told = failure_of(failure_fields(error), "ctx_1")
    assert type(told) is arrives
    assert str(told) == str(error)


def test_an_error_of_a_later_version_is_an_internal_one() -> None:
    assert type(failure_of({"error": "Novelty", "message": "x"}, "")) is InternalError
