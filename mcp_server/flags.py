"""Command-line flags of all settings, made from the table in `settings`, so that both always say the same."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from mcp_server.settings import Settings, flag_of, variable_of

CONFIG = "config"
"""The flag beside them that names the file they can stand in."""

PANEL = "Settings (each also as a variable CODE_INTERPRETER_…)"


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command every settings flag. It gets those that were given as one argument `flags`: name → text."""

    @functools.wraps(command)
    def wrapper(**given: Any) -> None:
        flags = {name: given.pop(name) for name in (CONFIG, *Settings.model_fields)}
        command(**given, flags=flags)

    own = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [parameter for parameter in own if parameter.name != "flags"]
    parameters.extend(_parameters())
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del wrapper.__wrapped__  # typer would read the flags' types from there
    return wrapper


def shown_default(name: str, info: FieldInfo) -> str:
    """A default as `--help` and the README show it."""
    default = info.default
    if name == "python":
        return "the server's own"
    if default is None:
        return ""
    if isinstance(default, tuple):
        return ",".join(default)
    if isinstance(default, bool):
        return str(default).lower()
    if name.endswith("_bytes"):
        return str(info.default.human_readable()).replace(".0", "")
    if isinstance(default, float):
        return f"{default:g}"
    return str(default)


def _parameters() -> Iterator[inspect.Parameter]:
    option = typer.Option(
        "--config", help="File in TOML with any of these, by their names.", metavar="FILE", rich_help_panel=PANEL
    )
    yield inspect.Parameter(
        CONFIG, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )
    for name, info in Settings.model_fields.items():
        kind = bool | None if info.annotation is bool else str | None
        declaration = flag_of(name)
        if info.annotation is bool:
            declaration += f"/--no-{declaration.removeprefix('--')}"
        option = typer.Option(
            declaration,
            help=f"{info.description} [{shown_default(name, info) or 'empty'}]",
            metavar=_metavar(name, info),
            rich_help_panel=PANEL,
            show_default=False,
        )
        yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option])


def _metavar(name: str, info: FieldInfo) -> str | None:
    if info.annotation is bool:
        return None
    if name.endswith("_s"):
        return "SECONDS"
    if name.endswith("_bytes"):
        return "SIZE"
    return "NUMBER" if info.annotation in (int, int | None) else "TEXT"


__all__ = ["shown_default", "variable_of", "with_settings"]
