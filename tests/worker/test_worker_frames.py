"""The wire: any chunking gives the same frames, and no bytes raise anything but FrameError."""

from __future__ import annotations

import contextlib
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.worker import frames

ANY_CHARACTER = st.characters(exclude_categories=())
KINDS = st.sampled_from(sorted(frames.KINDS))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(ANY_CHARACTER, max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
HEADERS = st.dictionaries(st.text(max_size=8), JSON, max_size=4)
FRAMES = st.builds(frames.Frame, KINDS, HEADERS, st.binary(max_size=200))


@given(st.lists(FRAMES, max_size=5), st.data())
def test_any_chunking_gives_the_same_frames(sent: list[frames.Frame], data: st.DataObject) -> None:
    stream = b"".join(frames.encode(frame) for frame in sent)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20).map(sorted))
    decoder = frames.Decoder()
    received = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += decoder.feed(stream[start:end])
    assert received == sent


@given(st.text(ANY_CHARACTER, max_size=50))
def test_any_text_passes_in_a_header_lone_surrogates_included(text: str) -> None:
    data = frames.encode(frames.Frame(frames.END, {"text": text}))
    assert frames.Decoder().feed(data)[0].header == {"text": text}


@given(st.binary(max_size=300), st.lists(FRAMES, max_size=2))
def test_random_bytes_raise_nothing_but_frame_error(noise: bytes, before: list[frames.Frame]) -> None:
    decoder = frames.Decoder()
    assert decoder.feed(b"".join(map(frames.encode, before))) == before
    with contextlib.suppress(frames.FrameError):
        decoder.feed(noise)


@given(KINDS, st.binary(max_size=100))
def test_a_header_of_random_bytes_raises_nothing_but_frame_error(kind: int, header: bytes) -> None:
    data = frames.PREFIX.pack(kind, len(header), 0) + header
    try:
        (frame,) = frames.Decoder().feed(data)
    except frames.FrameError:
        return
    assert frame.header == json.loads(header)


@pytest.mark.parametrize(
    "header", [b"", b"[]", b"1", b"null", b"{} {}", b'{"a":', b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b"{}x"]
)
def test_a_header_that_is_no_object_is_refused(header: bytes) -> None:
    with pytest.raises(frames.FrameError):
        frames.Decoder().feed(frames.PREFIX.pack(frames.RUN, len(header), 0) + header)


@pytest.mark.parametrize(
    ("kind", "header", "body"),
    [
        (0, 2, 0),
        (255, 2, 0),
        (frames.RUN, frames.MAX_HEADER_BYTES + 1, 0),
        (frames.RUN, 2, frames.MAX_BODY_BYTES + 1),
        (frames.RUN, 2**32 - 1, 2**32 - 1),
    ],
)
def test_a_prefix_over_a_cap_is_refused_before_anything_else_comes(kind: int, header: int, body: int) -> None:
    with pytest.raises(frames.FrameError):
        frames.Decoder().feed(struct.pack(">BII", kind, header, body))


def test_the_largest_frame_passes_and_one_byte_more_is_not_sent() -> None:
    largest = frames.Frame(frames.DISPLAY, {}, bytes(frames.MAX_BODY_BYTES))
    assert frames.Decoder().feed(frames.encode(largest)) == [largest]
    with pytest.raises(frames.FrameError):
        frames.encode(frames.Frame(frames.DISPLAY, {}, bytes(frames.MAX_BODY_BYTES + 1)))
    with pytest.raises(frames.FrameError):
        frames.encode(frames.Frame(frames.END, {"a": "x" * frames.MAX_HEADER_BYTES}))
