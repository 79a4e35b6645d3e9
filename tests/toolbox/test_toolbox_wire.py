"""The plain protocol's texts: what goes in comes out, whatever it is, and nothing is too big for a frame."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.model import DisplayChunk, ErrorInfo, Outcome, OutputChunk, Representation, State, Status, Stream
from mcp_server.toolbox.wire import (
    MAX_ERROR_CHARS,
    MAX_FRAME_BYTES,
    MAX_REASON_BYTES,
    MAX_TEXT_CHARS,
    Close,
    CloseCode,
    ExecuteRequest,
    Frame,
    FrameMaker,
    FrameType,
    TextDecoder,
    displayed_text,
    encode_frame,
    encode_request,
    ending,
    parse_frame,
    parse_request,
    pieces,
    valid_text,
)

ANY_TEXT = st.text(st.characters(exclude_categories=()))
"""Lone surrogates and NUL included."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(ANY_TEXT, children, max_size=3),
    max_leaves=8,
)

REQUEST_LIKE = st.fixed_dictionaries(
    {}, optional={"code": JSON, "contextId": JSON, "timeout": JSON, "envs": JSON, "other": JSON}
)


# -- the first message ------------------------------------------------------------------------------------------------


@given(
    st.builds(
        ExecuteRequest,
        code=ANY_TEXT.filter(str.strip),
        context_id=ANY_TEXT.filter(lambda text: text != "default"),
        timeout_s=st.none() | st.floats(0, 1e6),
        envs=st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=3),
    )
)
def test_a_request_arrives_as_it_was_sent(request: ExecuteRequest) -> None:
    assert parse_request(encode_request(request)) == request


@given(REQUEST_LIKE)
def test_every_json_object_is_a_request_or_gets_a_closing_frame(fields: dict[str, Any]) -> None:
    answer = parse_request(json.dumps(fields))
    if isinstance(answer, Close):
        assert answer.code in (CloseCode.BAD_MESSAGE, CloseCode.REFUSED)
        assert 0 < len(answer.reason.encode()) <= MAX_REASON_BYTES
    else:
        assert answer.code.strip()
        assert answer.timeout_s is None or answer.timeout_s >= 0


@given(st.binary() | st.text())
def test_anything_at_all_is_answered(message: bytes | str) -> None:
    answer = parse_request(message)
    assert isinstance(answer, Close | ExecuteRequest)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("", CloseCode.BAD_MESSAGE),
        ("[]", CloseCode.BAD_MESSAGE),
        ("{}", CloseCode.BAD_MESSAGE),
        ('{"code": 1}', CloseCode.BAD_MESSAGE),
        ('{"code": "1", "timeout": "soon"}', CloseCode.BAD_MESSAGE),
        ('{"code": "1", "timeout": true}', CloseCode.BAD_MESSAGE),
        ('{"code": "1", "timeout": NaN}', CloseCode.BAD_MESSAGE),
        ('{"code": "1", "timeout": 1e999}', CloseCode.BAD_MESSAGE),
        ('{"code": "1", "timeout": 1' + "0" * 400 + "}", CloseCode.BAD_MESSAGE),
        ('{"code": "1", "contextId": 7}', CloseCode.BAD_MESSAGE),
        ('{"code": "1", "envs": ["A"]}', CloseCode.BAD_MESSAGE),
        ('{"code": "1", "envs": {"A": 1}}', CloseCode.BAD_MESSAGE),
        ("[" * 100_000, CloseCode.BAD_MESSAGE),
        ('{"code": ""}', CloseCode.REFUSED),
        ('{"code": " \\n"}', CloseCode.REFUSED),
        ('{"code": "1", "timeout": -1}', CloseCode.REFUSED),
    ],
)
def test_what_is_wrong_with_a_request_decides_its_close_code(message: str, code: CloseCode) -> None:
    answer = parse_request(message)
    assert isinstance(answer, Close)
    assert answer.code is code


@pytest.mark.parametrize("context", ["", '"contextId": null, ', '"contextId": "default", ', '"contextId": "", '])
def test_the_default_context_has_several_spellings(context: str) -> None:
    assert parse_request(f'{{{context}"code": "1"}}') == ExecuteRequest("1")


# -- output -----------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=10))
def test_any_chunking_of_the_same_bytes_gives_the_same_text(data: bytes, cuts: list[int]) -> None:
    decoder = TextDecoder()
    edges = [0, *sorted(cuts), len(data)]
    text = "".join(decoder.feed(Stream.STDOUT, data[a:b]) for a, b in pairwise(edges))
    text += "".join(rest for _, rest in decoder.rest())
    assert text == data.decode(errors="replace")


def test_the_two_streams_do_not_mix_their_characters() -> None:
    decoder = TextDecoder()
    euro = "€".encode()
    assert decoder.feed(Stream.STDOUT, euro[:1]) == ""
    assert decoder.feed(Stream.STDERR, b"x") == "x"
    assert decoder.feed(Stream.STDOUT, euro[1:]) == "€"


@given(
    st.sampled_from(["a", "\0", "\x1b", "é", "€", "😀", '"', "\\"]),
    st.integers(MAX_TEXT_CHARS - 2, 2 * MAX_TEXT_CHARS + 2),
)
def test_every_piece_fits_into_a_frame_and_nothing_is_lost(character: str, count: int) -> None:
    text = character * count
    cut = list(pieces(text))
    assert "".join(cut) == text
    for piece in cut:
        frame = Frame(FrameType.STDOUT, piece)
        message = encode_frame(frame)
        assert len(message.encode()) < MAX_FRAME_BYTES
        assert parse_frame(message) == frame


def test_a_frame_has_five_string_keys() -> None:
    fields = json.loads(encode_frame(Frame(FrameType.CONTROL, "completed")))
    assert fields == {"type": "control", "text": "completed", "name": "", "value": "", "traceback": ""}


@given(JSON)
def test_a_client_passes_over_what_it_does_not_know(message: Any) -> None:
    frame = parse_frame(json.dumps(message))
    assert frame is None or frame.type in FrameType


@given(ANY_TEXT)
def test_text_for_the_wire_can_be_encoded_and_valid_text_is_unchanged(text: str) -> None:
    made = valid_text(text)
    made.encode()
    if made != text:
        with pytest.raises(UnicodeEncodeError):
            text.encode()


def test_surrogate_pairs_that_are_split_in_two_become_the_character() -> None:
    assert valid_text("\ud83d\ude00!") == "😀!"
    assert valid_text("\ud83d!") == "\ufffd!"


# -- endings ----------------------------------------------------------------------------------------------------------

ERROR = ErrorInfo("ValueError", "no", "Traceback …\nValueError: no")
INTERRUPT = ErrorInfo("KeyboardInterrupt", "", "KeyboardInterrupt")


@pytest.mark.parametrize(
    ("outcome", "kinds", "control", "code"),
    [
        (Outcome(Status.OK), [], "completed", CloseCode.DONE),
        (Outcome(Status.OK, exit_code=3), [], "completed", CloseCode.DONE),
        (Outcome(Status.ERROR, error=ERROR), ["error"], "completed", CloseCode.DONE),
        (Outcome(Status.ERROR, error=INTERRUPT), ["error"], "completed", CloseCode.DONE),
        (Outcome(Status.TIMEOUT, error=INTERRUPT), [], "interrupted", CloseCode.TIMEOUT),
        (Outcome(Status.TIMEOUT, State.RESET), [], "interrupted", CloseCode.TIMEOUT),
        (Outcome(Status.INTERRUPTED, error=INTERRUPT), ["error"], "interrupted", CloseCode.DONE),
        (Outcome(Status.INTERRUPTED, State.RESET, detail="killed"), [], "interrupted", CloseCode.GONE),
        (Outcome(Status.CANCELLED, State.RESET, detail="the context was deleted"), [], "interrupted", CloseCode.GONE),
        (Outcome(Status.OUT_OF_MEMORY, State.RESET), [], "interrupted", CloseCode.GONE),
        (Outcome(Status.CRASHED, State.RESET, signal=11, detail="x" * 500), [], "interrupted", CloseCode.GONE),
    ],
)
def test_how_a_socket_ends_follows_from_what_became_of_the_run(
    outcome: Outcome, kinds: list[str], control: str, code: CloseCode
) -> None:
    end = ending(outcome)
    assert [frame.type.value for frame in end.frames] == [*kinds, "control"]
    assert end.frames[-1].text == control
    assert end.close.code is code
    assert len(end.close.reason.encode()) <= MAX_REASON_BYTES


@given(ANY_TEXT, ANY_TEXT, st.integers(0, 3))
def test_an_error_fits_into_a_frame_whatever_it_says(name: str, message: str, times: int) -> None:
    long = message * (times * MAX_ERROR_CHARS // max(1, len(message)))
    end = ending(Outcome(Status.ERROR, error=ErrorInfo(name[:500], long, long)))
    assert len(encode_frame(end.frames[0]).encode()) < MAX_FRAME_BYTES


def test_a_long_traceback_keeps_its_head_and_its_tail_and_counts_the_rest() -> None:
    traceback = "head" + "x" * 2 * MAX_ERROR_CHARS + "tail"
    (frame, _) = ending(Outcome(Status.ERROR, error=ErrorInfo("E", "m", traceback))).frames
    assert frame.traceback.startswith("head")
    assert frame.traceback.endswith("tail")
    assert f"{len(traceback) - MAX_ERROR_CHARS:,} characters left out" in frame.traceback


@given(ANY_TEXT)
def test_a_reason_is_cut_at_a_character(text: str) -> None:
    reason = Close.because(CloseCode.GONE, text * 20).reason
    assert len(reason.encode()) <= MAX_REASON_BYTES


# -- shown values -----------------------------------------------------------------------------------------------------


def test_displayed_text_goes_to_stdout_and_results_do_not() -> None:
    plain = Representation("text/plain", b"a table")
    image = Representation("image/png", b"\x89PNG", alt="figure 640×480")
    assert displayed_text(DisplayChunk(False, (image, plain))) == "a table\n"
    assert displayed_text(DisplayChunk(False, (image,))) == "[figure 640×480]\n"
    assert displayed_text(DisplayChunk(False, ())) == ""
    assert displayed_text(DisplayChunk(True, (plain,))) == ""


def test_frames_made_from_chunks_are_those_of_the_plain_protocol() -> None:
    maker = FrameMaker()
    made = [*maker.of_chunk(OutputChunk(Stream.STDERR, "é".encode()[:1])), *maker.of_outcome(Outcome(Status.OK))]
    assert made == [
        Frame(FrameType.STDERR, "\ufffd"),
        Frame(FrameType.CONTROL, "completed"),
        Close(CloseCode.DONE),
    ]
