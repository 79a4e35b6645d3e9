"""Command-line flags of all settings, made from the table in `settings`, so that both always say the same."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from mcp_server.settings import Settings, flag_of, variable_of

CONFIG = "config"
"""The flag beside them that names the file they can stand in."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Calls and reports": ("timeout_s", "wait_s", "max_output_chars", "resource_links"),
    "Python": ("python", "preload"),
    "Files": ("workspace", "state_dir"),
    "Isolation": ("min_sandbox", "allow_unsandboxed"),
    "Limits of a context": ("memory_bytes", "cpu_s", "processes", "open_files", "file_size_bytes", "scratch_bytes"),
    "Limits of a conversation": (
        "contexts_per_conversation",
        "idle_expiry_s",
        "disk_bytes",
        "disk_inodes",
        "outputs_bytes",
    ),
    "Limits of the server": ("contexts", "contexts_per_principal", "outputs_total_bytes"),
    "HTTP": ("body_bytes", "requests", "requests_per_principal", "stop_grace_s"),
    "Contexts that are alike": ("random_seed", "hash_seed", "time_zone"),
    "Log and records": ("log_level", "log_format", "transcript", "transcript_envs", "traces"),
}
"""The panels of `--help`, in the order in which they are shown."""

OTHERS = "Other settings"

_PATHS = ("python", "workspace", "state_dir", "transcript")


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
    option = typer.Option("--config", help="File in TOML with any of the settings, by their names.", metavar="FILE")
    yield inspect.Parameter(
        CONFIG, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )
    for panel, name in _in_panels():
        info = Settings.model_fields[name]
        kind = bool | None if info.annotation is bool else str | None
        option = typer.Option(
            flag_of(name),
            help=_help(name, info),
            metavar=_metavar(name, info),
            rich_help_panel=panel,
            show_default=False,
            autocompletion=_completion(info),
        )
        yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option])


def _in_panels() -> Iterator[tuple[str, str]]:
    grouped = [(panel, name) for panel, names in GROUPS.items() for name in names]
    known = {name for _, name in grouped}
    yield from grouped
    yield from ((OTHERS, name) for name in Settings.model_fields if name not in known)


def _help(name: str, info: FieldInfo) -> str:
    default = shown_default(name, info)
    told = not default or name == "python" or info.annotation is bool  # the description says it, or it goes by itself
    return info.description or "" if told else f"{info.description} [{default}]"


def _choices(info: FieldInfo) -> list[str]:
    kind = info.annotation
    return [choice.value for choice in kind] if isinstance(kind, type) and issubclass(kind, Enum) else []


def _completion(info: FieldInfo) -> Callable[[str], list[str]] | None:
    """Of a flag with few values; the shell completes files for the others."""
    choices = _choices(info)
    if not choices:
        return None

    def complete(incomplete: str) -> list[str]:  # typer goes by the argument's name
        return [choice for choice in choices if choice.startswith(incomplete)]

    return complete


def _metavar(name: str, info: FieldInfo) -> str | None:
    if info.annotation is bool:
        return None
    if name in _PATHS:
        return "PATH"
    if _choices(info):
        return "CHOICE"
    if name.endswith("_s"):
        return "SECONDS"
    if name.endswith("_bytes"):
        return "SIZE"
    return "NUMBER" if info.annotation in (int, int | None) else "TEXT"


__all__ = ["shown_default", "variable_of", "with_settings"]
