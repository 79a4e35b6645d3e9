"""Writes `server.json`, which the MCP registry lists the server by, from pyproject.toml and the table of settings.

    python tools/server_json.py

The owner in the name is for whoever publishes to fill in, here and in the README's `mcp-name` line alike: the registry
takes a package only where both say the same.
"""

from __future__ import annotations

import json
import sys
import tomllib
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from mcp_server.flags import shown_default  # noqa: E402
from mcp_server.settings import Settings, variable_of  # noqa: E402

SCHEMA = "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"
NAME = "io.github.OWNER/mcp-code-interpreter"
DESCRIPTION = "A stateful Python code interpreter for agents: sandboxed, on your own machine. Linux."
"""The registry takes at most 100 characters."""

FILE_PATHS = ("python", "workspace", "state_dir")


def described() -> dict[str, Any]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    package = {
        "registryType": "pypi",
        "identifier": project["name"],
        "version": project["version"],
        "runtimeHint": "uvx",
        "transport": {"type": "stdio"},
        "environmentVariables": [_variable(name, info) for name, info in Settings.model_fields.items()],
    }
    return {
        "$schema": SCHEMA,
        "name": NAME,
        "title": "Python code interpreter",
        "description": DESCRIPTION,
        "version": project["version"],
        "packages": [package],
    }


def _variable(name: str, info: FieldInfo) -> dict[str, Any]:
    variable: dict[str, Any] = {"name": variable_of(name), "description": info.description}
    if name in FILE_PATHS:
        variable["format"] = "filepath"
    elif info.annotation is bool:
        variable["format"] = "boolean"
    elif info.annotation in (int, float):
        variable["format"] = "number"
    if isinstance(info.annotation, type) and issubclass(info.annotation, Enum):
        variable["choices"] = [choice.value for choice in info.annotation]
    default = "" if name == "python" else shown_default(name, info)
    if default:
        variable["default"] = default
    return variable


def text() -> str:
    return json.dumps(described(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    (ROOT / "server.json").write_text(text(), encoding="utf-8")
