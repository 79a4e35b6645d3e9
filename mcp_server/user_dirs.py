"""Where the user's own files are (XDG base directories). Users of services and containers may have no home at all."""

from __future__ import annotations

import os
from pathlib import Path

from mcp_server.errors import SetupFailed

_NAME = "mcp-code-interpreter"


def config_dir() -> Path | None:
    """Where the user's settings are to be found; None where there is no such place."""
    return _place("XDG_CONFIG_HOME", ".config")


def state_dir() -> Path | None:
    """Where the user's programs keep what is to outlive them; None where there is no such place."""
    return _place("XDG_STATE_HOME", ".local", "state")


def expanded(path: str) -> Path:
    """A path as its user wrote it, which may begin with ``~``. Raises SetupFailed where nobody's home is known."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise SetupFailed(f"{path!a}: there is no home directory that its ~ could stand for.") from None


def _place(variable: str, *below_home: str) -> Path | None:
    base = os.environ.get(variable, "")
    if os.path.isabs(base):
        return Path(base, _NAME)
    try:
        return Path.home().joinpath(*below_home, _NAME)
    except RuntimeError:
        return None
