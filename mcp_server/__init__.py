"""A stateful Python code interpreter for agents, served over MCP, and the Python API to it.

The public names are loaded on first use, so that importing this package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcp_server.errors import (
        CodeInterpreterConnectionError,
        CodeInterpreterError,
        CodeInterpreterNotFoundError,
        CodeInterpreterTimeoutError,
        CodeInterpreterValidationError,
        ToolboxError,
    )
    from mcp_server.errors import CodeInterpreterError as DaytonaError
    from mcp_server.errors import CodeInterpreterTimeoutError as DaytonaTimeoutError
    from mcp_server.toolbox.client import CodeInterpreter
    from mcp_server.toolbox.client_api import InterpreterApi
    from mcp_server.toolbox.client_api_async import AsyncInterpreterApi
    from mcp_server.toolbox.client_async import AsyncCodeInterpreter
    from mcp_server.toolbox.client_sandbox import AsyncSandbox, Sandbox
    from mcp_server.toolbox.client_types import ExecutionError, ExecutionResult, InterpreterContext, OutputMessage

__version__ = "0.1.0"

__all__ = [
    "AsyncCodeInterpreter",
    "AsyncInterpreterApi",
    "AsyncSandbox",
    "CodeInterpreter",
    "CodeInterpreterConnectionError",
    "CodeInterpreterError",
    "CodeInterpreterNotFoundError",
    "CodeInterpreterTimeoutError",
    "CodeInterpreterValidationError",
    "DaytonaError",
    "DaytonaTimeoutError",
    "ExecutionError",
    "ExecutionResult",
    "InterpreterApi",
    "InterpreterContext",
    "OutputMessage",
    "Sandbox",
    "ToolboxError",
]

_SAME_THING = {"DaytonaError": "CodeInterpreterError", "DaytonaTimeoutError": "CodeInterpreterTimeoutError"}
"""Names under which code that was written for the class this one is modelled on knows them."""

_HOMES = {
    "errors": (
        "CodeInterpreterConnectionError",
        "CodeInterpreterError",
        "CodeInterpreterNotFoundError",
        "CodeInterpreterTimeoutError",
        "CodeInterpreterValidationError",
        "ToolboxError",
    ),
    "toolbox.client": ("CodeInterpreter",),
    "toolbox.client_api": ("InterpreterApi",),
    "toolbox.client_api_async": ("AsyncInterpreterApi",),
    "toolbox.client_async": ("AsyncCodeInterpreter",),
    "toolbox.client_sandbox": ("AsyncSandbox", "Sandbox"),
    "toolbox.client_types": ("ExecutionError", "ExecutionResult", "InterpreterContext", "OutputMessage"),
}


def __getattr__(name: str) -> Any:
    real = _SAME_THING.get(name, name)
    for home, names in _HOMES.items():
        if real in names:
            value = getattr(import_module(f"{__name__}.{home}"), real)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
