"""Pixels as a PNG: what Pillow reads of it is what went in."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.worker import png

COUNTED = np.arange(40 * 30 * 4, dtype=np.uint8).reshape(40, 30, 4)


def pixels_of(width: int, height: int, seed: int, alpha: int | None) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    if alpha is not None:
        pixels[:, :, 3] = alpha
    return pixels


def read(data: bytes) -> PIL.Image.Image:
    image = PIL.Image.open(io.BytesIO(data))
    image.load()
    return image


@given(
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    alpha=st.sampled_from([None, 0, 254, 255]),
)
def test_what_is_read_is_what_went_in(width: int, height: int, seed: int, alpha: int | None) -> None:
    pixels = pixels_of(width, height, seed, alpha)
    assert np.array_equal(np.asarray(read(png.encode(pixels, 100.0)).convert("RGBA")), pixels)


@pytest.mark.parametrize(("alpha", "mode"), [(255, "RGB"), (254, "RGBA")])
def test_the_fourth_channel_is_left_out_where_it_says_nothing(alpha: int, mode: str) -> None:
    assert read(png.encode(pixels_of(9, 7, 1, alpha), 100.0)).mode == mode


def test_a_part_of_an_array_is_read_where_it_lies() -> None:
    part = COUNTED[5:25, 7:20]
    assert np.array_equal(np.asarray(read(png.encode(part, 100.0))), part)


@pytest.mark.parametrize("dpi", [1.0, 72.0, 100.0, 96.5])
def test_the_resolution_is_told(dpi: float) -> None:
    told = read(png.encode(COUNTED, dpi)).info["dpi"]
    assert told == pytest.approx((dpi, dpi), abs=0.02)
