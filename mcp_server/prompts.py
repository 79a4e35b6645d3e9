"""The texts that models read: Markdown files, filled at start with the limits that are in force."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from mcp_server import user_dirs
from mcp_server.errors import SetupFailed
from mcp_server.model import EngineCapabilities
from mcp_server.picked_prompts import PickedPrompt, parse
from mcp_server.settings import Settings

TOOL_NAMES = ("run_code", "create_context", "list_contexts", "delete_context")

PICKED_NAMES = ("analyse_data", "plot", "debug_traceback", "check_calculation")
"""In the order in which clients list them."""

MAX_TEXT_CHARS = 2_000
"""Clients cut tool descriptions and server instructions at 2 KB."""

MAX_PATH_CHARS = 120
"""A directory's path is told up to this length."""

OWN_VIEW = ("strong", "strong-cell")
"""Tiers in which a directory of the user's has another path inside."""

_PACKAGE = Path(__file__).parent
_PLACES = (_PACKAGE / "_prompts", _PACKAGE.parent / "prompts")
"""In a wheel the files are mapped into the package; in a source tree they stand beside it."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the texts say of this server. ``preloaded`` are the modules that contexts find imported."""

    settings: Settings
    capabilities: EngineCapabilities
    python_version: str = ""
    preloaded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Texts:
    """``tools`` maps each tool's name to its description; ``picked`` are the prompts that people pick."""

    instructions: str
    tools: Mapping[str, str] = field(default_factory=dict)
    picked: tuple[PickedPrompt, ...] = ()


def load(facts: Facts) -> Texts:
    """Read and fill all texts. Raises SetupFailed where a file is missing or names a fact that does not exist."""
    values = _values(facts)
    return Texts(
        instructions=_fill("instructions", values),
        tools={name: _fill(name, values) for name in TOOL_NAMES},
        picked=tuple(parse(name, _read(f"picked/{name}"), values) for name in PICKED_NAMES),
    )


def _fill(name: str, values: Mapping[str, str]) -> str:
    try:
        text = Template(_read(name)).substitute(values)
    except (KeyError, ValueError) as error:
        raise SetupFailed(f"prompts/{name}.md cannot be filled: {error}.") from error
    return text.strip()


def _read(name: str) -> str:
    for place in _PLACES:
        path = place / f"{name}.md"
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise SetupFailed(f"The text prompts/{name}.md is missing from this installation. Install the package again.")


def _values(facts: Facts) -> dict[str, str]:
    settings = facts.settings
    return {
        "python": f"Python {facts.python_version}".strip(),
        "preloaded": _preloaded(facts.preloaded),
        "sandbox": _sandbox(facts.capabilities),
        "sandbox_in_full": " ".join([_sandbox(facts.capabilities), *facts.capabilities.missing]),
        "outputs": _outputs(facts.capabilities),
        "files": _files(settings, facts.capabilities),
        "memory": size(settings.memory_bytes),
        "timeout": duration(settings.timeout_s) if settings.timeout_s else "no time limit",
        "wait": duration(settings.wait_s),
        "expiry": duration(settings.idle_expiry_s),
        "max_output_chars": f"{settings.max_output_chars:,}",
        "contexts": str(min(settings.contexts_per_conversation, settings.contexts)),
    }


def _preloaded(modules: tuple[str, ...]) -> str:
    if not modules:
        return "Only the standard library is sure to be there; try an import to find out."
    return f"Loaded ahead, so that importing takes no time once this server is warm: {', '.join(modules)}."


def _sandbox(capabilities: EngineCapabilities) -> str:
    if capabilities.tier == "none":
        return (
            "Code is NOT isolated: it runs with the rights of the user who started this server, network included. "
            "Take the care you would take in their shell."
        )
    if capabilities.tier in (*OWN_VIEW, "standard"):
        return f"Code runs in a sandbox (tier {capabilities.tier}), without network."
    return f"Code runs in: {capabilities.tier}."


def _outputs(capabilities: EngineCapabilities) -> str:
    if capabilities.outputs:
        return "the whole is in a file that your code can read: the line that marks a gap gives its path."
    return "the line that marks a gap says how much is missing: print less, or print that part."


def _files(settings: Settings, capabilities: EngineCapabilities) -> str:
    where = "a directory of the user's own"
    if settings.workspace and capabilities.tier in OWN_VIEW:
        path = str(user_dirs.expanded(settings.workspace_dir).resolve())
        if len(path) <= MAX_PATH_CHARS:
            where = f"the user's {path}, which is /work here"
    if settings.workspace_read_only:
        return f"Contexts work in {where}: they can read it and not change it."
    if settings.workspace:
        return f"Contexts work in {where}: what is changed there is changed for good."
    return "The contexts of a conversation share their files, which go with the last of its contexts."


def duration(seconds: float) -> str:
    """90 → "90 s", 600 → "10 min", 7200 → "2 h"."""
    if seconds >= 7_200 and seconds % 3_600 == 0:
        return f"{seconds / 3_600:.0f} h"
    if seconds >= 120 and seconds % 60 == 0:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:g} s"


def size(count: int) -> str:
    """In the largest binary unit that leaves no fraction: 4294967296 → "4 GiB"."""
    units = ("bytes", "KiB", "MiB", "GiB", "TiB")
    step = 0
    while step < len(units) - 1 and count >= 1024 and count % 1024 == 0:
        count //= 1024
        step += 1
    return f"{count:,} {units[step]}"
