"""What a call may ask for. Pure: each check raises a `CallerError` that says what is wrong and what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mcp_server.errors import InvalidArgument, LimitReached
from mcp_server.model import RunCall

MAX_CODE_BYTES = 4 * 1024 * 1024
MAX_ENVS_BYTES = 1024 * 1024
MAX_CWD_CHARS = 4096
"""PATH_MAX of Linux."""

MIN_OUTPUT_CHARS = 1_000
"""Below this the first line, an error's type and message and the gap lines no longer fit."""

MAX_OUTPUT_CHARS = 5_000_000
"""The window is kept in memory; a program that wants more than this reads the stored output."""

MAX_QUEUED_RUNS = 100
"""Per context. A client that queues more has lost track of its calls."""

MAX_DUE_REPORTS = 32
"""Per context: reports of yielded runs that wait to be fetched. The oldest is dropped first, and that is said."""


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """The settings that the service holds to. Times in seconds; 0 for ``default_timeout_s`` means none."""

    default_timeout_s: float = 600.0
    wait_s: float = 50.0
    max_output_chars: int = 9_000
    idle_expiry_s: float = 3600.0
    contexts_per_conversation: int = 64
    contexts_per_principal: int = 500
    contexts: int = 1_000


def check_call(call: RunCall) -> None:
    """Raise for arguments of `run_code` that can never work."""
    check_envs(call.envs)
    check_seconds("timeout", call.timeout_s)
    check_seconds("wait", call.wait_s)
    size = len(call.code.encode("utf-8", "surrogatepass"))
    if size > MAX_CODE_BYTES:
        raise InvalidArgument(
            f"code is {size:,} bytes, over the limit of {MAX_CODE_BYTES:,}. Write long data to a file in smaller calls."
        )
    chars = call.max_output_chars
    if chars is not None and not MIN_OUTPUT_CHARS <= chars <= MAX_OUTPUT_CHARS:
        raise InvalidArgument(
            f"max_output_chars is {chars}; it must be from {MIN_OUTPUT_CHARS} to {MAX_OUTPUT_CHARS:,}."
        )


def check_seconds(name: str, value: float | None) -> None:
    if value is not None and not (math.isfinite(value) and value >= 0):
        raise InvalidArgument(f"{name} is {value}; give seconds, 0 or more.")


def check_envs(envs: Mapping[str, str]) -> None:
    total = 0
    for name, value in envs.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidArgument('envs must map names to strings, for example {"MODE": "fast"}.')
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise InvalidArgument(f"envs has a name or value that no environment can hold: {name[:64]!r}.")
        try:
            total += len((name + value).encode("utf-8", "surrogateescape"))
        except UnicodeEncodeError:
            raise InvalidArgument(f"envs has text that cannot be encoded: {name[:64]!r}.") from None
    if total > MAX_ENVS_BYTES:
        raise InvalidArgument(f"envs hold {total:,} bytes, over the limit of {MAX_ENVS_BYTES:,}.")


def check_cwd(cwd: str) -> None:
    if "\0" in cwd or len(cwd) > MAX_CWD_CHARS:
        raise InvalidArgument(f"cwd must be a path of at most {MAX_CWD_CHARS} characters without NUL.")


def check_room_for_context(limits: ServiceLimits, in_conversation: int, of_principal: int, in_server: int) -> None:
    """Raise LimitReached where one more context would be too many. Without a principal, `of_principal` is 0."""
    if in_conversation >= limits.contexts_per_conversation:
        raise LimitReached(
            f"This conversation has {in_conversation} contexts, the most it may have. "
            "Delete one with delete_context, or go on in an existing one (list_contexts).",
            "contexts_per_conversation",
        )
    if of_principal >= limits.contexts_per_principal:
        raise LimitReached(
            f"You have {of_principal} contexts in all your conversations, the most that one user may have. "
            "Delete contexts that are no longer needed, or let them expire.",
            "contexts_per_principal",
        )
    if in_server >= limits.contexts:
        raise LimitReached(
            f"The server holds {in_server} contexts, the most it may hold. "
            "Delete contexts that are no longer needed, or try again later.",
            "contexts",
        )
