"""What can be set: by flags of the command line, else `CODE_INTERPRETER_…` variables, else a file in TOML.

One table of fields gives them all, the README's table and `--help`. Sizes take units (``512MiB``, ``4GB``).
"""

from __future__ import annotations

import difflib
import os
import sys
import zoneinfo
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import ByteSize, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from mcp_server import user_dirs
from mcp_server.errors import SetupFailed

ENV_PREFIX = "CODE_INTERPRETER_"

CONFIG_VARIABLE = ENV_PREFIX + "CONFIG"

MIB = 1024 * 1024
GIB = 1024 * MIB

DAY_S = 86_400.0

MAX_OUTPUT_CHARS = 5_000_000
"""Above this a window no longer fits into memory for every context; stored outputs are for that."""

MAX_SEED = 2**32 - 1
"""What `PYTHONHASHSEED` and `numpy.random.seed` take."""

_SHOWN_CHARS = 60
"""How much of a wrong value an error line repeats."""


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


class MinSandbox(StrEnum):
    """The tiers that can be asked for, from the most to the least; `none` is asked for by `allow_unsandboxed`."""

    STRONG = "strong"
    STRONG_CELL = "strong-cell"
    STANDARD = "standard"


def _size(default: int, least: int, description: str) -> Any:
    return Field(default=ByteSize(default), ge=least, le=1 << 50, description=description)


READ_ONLY_SUFFIX = ":ro"


class Settings(BaseSettings):
    """Frozen. Read them by `Settings.load`."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid", validate_default=True)

    max_output_chars: int = Field(
        default=9_000,
        ge=1_000,
        le=MAX_OUTPUT_CHARS,
        description="Characters of a report, unless a call says otherwise. Some clients cut at 10,000 bytes.",
    )
    resource_links: bool = Field(
        default=False,
        description="Also link stored outputs and files in results, for clients that show links to people.",
    )
    timeout_s: float = Field(
        default=600.0,
        ge=0,
        le=7 * DAY_S,
        description="Seconds that a run may take, unless a call says otherwise; 0 = no limit.",
    )
    wait_s: float = Field(
        default=50.0,
        ge=0,
        le=DAY_S,
        description="Seconds after which a call returns what there is while its run goes on.",
    )
    idle_expiry_s: float = Field(
        default=3600.0, ge=1, le=365 * DAY_S, description="Seconds without use after which a context is deleted."
    )
    contexts_per_conversation: int = Field(default=64, ge=1, le=10_000, description="Contexts of one conversation.")
    contexts_per_principal: int = Field(
        default=500, ge=1, le=100_000, description="Contexts of one principal, where the server asks who it is."
    )
    contexts: int = Field(default=1_000, ge=1, le=100_000, description="Contexts of the server.")
    python: str = Field(
        default=sys.executable,
        min_length=1,
        description="Interpreter of the contexts (CPython 3.9 or newer); default: the server's own.",
    )
    preload: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("numpy", "pandas", "matplotlib"),
        description="Modules that contexts find imported, where installed; separated by commas, empty for none.",
    )
    workspace: str = Field(
        default="",
        description="Directory of yours that contexts work in, DIR or DIR:ro to only read it; empty = private ones.",
    )
    state_dir: str = Field(
        default="",
        description="Where contexts keep files; empty = ~/.local/state/mcp-code-interpreter (XDG_STATE_HOME).",
    )
    memory_bytes: ByteSize = _size(4 * GIB, 128 * MIB, "Memory of a context: of each process, and of all together.")
    processes: int = Field(default=256, ge=8, le=100_000, description="Processes and threads of a context.")
    open_files: int = Field(default=1_024, ge=64, le=1_000_000, description="Open files of each process.")
    file_size_bytes: ByteSize = _size(GIB, MIB, "Largest file that a context can write.")
    disk_bytes: ByteSize = _size(GIB, MIB, "Files of a conversation, all together.")
    disk_inodes: int = Field(default=65_536, ge=256, le=100_000_000, description="Number of a conversation's files.")
    scratch_bytes: ByteSize = _size(256 * MIB, MIB, "Size of /tmp and of /dev/shm, each.")
    outputs_bytes: ByteSize = _size(256 * MIB, MIB, "Complete outputs that are kept of a conversation.")
    outputs_total_bytes: ByteSize = _size(4 * GIB, MIB, "Complete outputs that are kept of all conversations.")
    cpu_s: int = Field(default=0, ge=0, le=365 * 86_400, description="CPU seconds of each process; 0 = no limit.")
    random_seed: int | None = Field(
        default=None,
        ge=0,
        le=MAX_SEED,
        description="What `random` and `numpy.random` begin from in every context; empty = each its own.",
    )
    hash_seed: int | None = Field(
        default=None,
        ge=0,
        le=MAX_SEED,
        description="PYTHONHASHSEED of contexts, for one order of sets everywhere; empty = drawn by each server.",
    )
    time_zone: str = Field(
        default="", description="Time zone of contexts, such as UTC or Europe/Paris; empty = the server's."
    )
    body_bytes: ByteSize = _size(32 * MIB, 64 * 1024, "Largest body of an HTTP request.")
    requests: int = Field(default=2_000, ge=1, le=100_000, description="HTTP requests and streams at once.")
    requests_per_principal: int = Field(
        default=1_000, ge=1, le=100_000, description="The same of one principal, where the server asks who it is."
    )
    stop_grace_s: float = Field(
        default=10.0,
        ge=0,
        le=3_600,
        description="Seconds that running calls may go on after SIGTERM, before their code is interrupted (HTTP).",
    )
    min_sandbox: MinSandbox = Field(
        default=MinSandbox.STANDARD, description="Least isolation to start with: strong, strong-cell or standard."
    )
    allow_unsandboxed: bool = Field(
        default=False, description="Start even where code cannot be isolated, with the rights of the server's user."
    )
    transcript: str = Field(
        default="", description="Directory for a record of each conversation, which `replay` can play; empty = none."
    )
    transcript_envs: bool = Field(
        default=False, description="Write down the values of `envs` in transcripts, too, and not their names alone."
    )
    traces: bool = Field(
        default=False, description="Send spans to where the environment of OpenTelemetry says (extra `traces`)."
    )
    log_level: LogLevel = Field(default=LogLevel.INFO, description="debug, info, warning or error.")
    log_format: LogFormat = Field(
        default=LogFormat.AUTO, description="json, console, or auto: json unless a terminal reads it."
    )

    @property
    def workspace_dir(self) -> str:
        return self.workspace.removesuffix(READ_ONLY_SUFFIX)

    @property
    def workspace_read_only(self) -> bool:
        return self.workspace.endswith(READ_ONLY_SUFFIX)

    @field_validator("preload", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(name for part in value.split(",") if (name := part.strip()))
        return value

    @field_validator("preload")
    @classmethod
    def _check_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not all(part.isidentifier() for part in name.split(".")):
                raise ValueError(f"{_shown(name)} is no module name")
        return names

    @field_validator("random_seed", "hash_seed", mode="before")
    @classmethod
    def _take_empty(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("time_zone")
    @classmethod
    def _check_zone(cls, name: str) -> str:
        """The C library takes any name and falls back to UTC without a word."""
        if name not in ("", "UTC"):
            try:
                zoneinfo.ZoneInfo(name)
            except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
                raise ValueError("there is no such time zone on this machine") from None
        return name

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  (pydantic's signature)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @classmethod
    def load(cls, config: str | None = None, **flags: Any) -> Self:
        """From `flags` (None: not given), the environment, and the file `config`, else `config_file()`.

        Raises SetupFailed: one line that names what is wrong, and where.
        """
        _refuse_unknown_variables(cls.model_fields)
        given = {name: value for name, value in flags.items() if value is not None}
        path = config_file(config)
        reading: type[Self] = cls if path is None else type(cls.__name__, (cls,), {"model_config": {"toml_file": path}})
        try:
            return reading(**given)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            raise SetupFailed(_told(fault, _source(str(fault["loc"][0]), given, path))) from None
        except (OSError, ValueError) as error:  # tomllib's and the decoder's are ValueErrors
            raise SetupFailed(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None


def config_file(named: str | None = None) -> Path | None:
    """The settings' file: `named`, else CODE_INTERPRETER_CONFIG, else the user's own where there is one.

    Raises SetupFailed where one that is named is not there.
    """
    asked = named or os.environ.get(CONFIG_VARIABLE, "")
    if asked:
        path = user_dirs.expanded(asked)
        if not path.is_file():
            raise SetupFailed(f"{'--config' if named else CONFIG_VARIABLE} {_shown(asked)}: there is no such file.")
        return path
    directory = user_dirs.config_dir()
    if directory is None or not (directory / "config.toml").is_file():
        return None
    return directory / "config.toml"


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def variable_of(name: str) -> str:
    return ENV_PREFIX + name.upper()


def _refuse_unknown_variables(known: Iterable[str]) -> None:
    """A misspelt variable would otherwise be a limit that silently does not hold."""
    names = [variable_of(name) for name in known]
    for variable in os.environ:
        if variable.startswith(ENV_PREFIX) and variable not in (*names, CONFIG_VARIABLE):
            near = difflib.get_close_matches(variable, names, n=1)
            hint = f"did you mean {near[0]}?" if near else "the README lists all settings."
            raise SetupFailed(f"{_shown(variable)} is no setting; {hint}")


def _source(name: str, given: Mapping[str, Any], path: Path | None) -> str:
    """Where the value of a setting came from, as its user wrote it."""
    if name in given:
        return flag_of(name)
    if variable_of(name) in os.environ or path is None:
        return variable_of(name)
    return f"{name} in {path}"


def _told(fault: ErrorDetails, source: str) -> str:
    if fault["type"] == "extra_forbidden":  # only a file can hold what is no setting
        name = source.partition(" ")[0]
        near = difflib.get_close_matches(name, Settings.model_fields, n=1)
        hint = f"did you mean {near[0]}?" if near else "the README lists all settings."
        return f"{source} is no setting; {hint}"
    reason = fault["msg"].removeprefix("Value error, ")
    return f"{source} is {_shown(fault['input'])}: {reason[0].lower()}{reason[1:]}."


def _shown(value: object) -> str:
    text = ascii(value) if isinstance(value, str) else ascii(str(value))
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"
