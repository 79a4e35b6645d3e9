"""The names that `import mcp_server` offers."""

from __future__ import annotations

import subprocess
import sys

import pytest

import mcp_server

HEAVY = ("asyncio", "httpx", "pydantic", "websockets", "starlette", "mcp")


@pytest.mark.parametrize("name", mcp_server.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(mcp_server, name) is getattr(mcp_server, name)
    assert name in dir(mcp_server)


def test_code_written_for_the_class_that_this_one_is_modelled_on_finds_its_errors() -> None:
    assert mcp_server.DaytonaError is mcp_server.CodeInterpreterError
    assert mcp_server.DaytonaTimeoutError is mcp_server.CodeInterpreterTimeoutError
    assert issubclass(mcp_server.DaytonaTimeoutError, mcp_server.DaytonaError)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Nothing"):
        _ = mcp_server.Nothing


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = f"import sys, mcp_server; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
