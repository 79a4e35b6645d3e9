"""Fixtures that every test may use."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The engine stands on asyncio's readers, so tests marked `anyio` run there alone."""
    return "asyncio"
