"""Which layers of isolation work on this machine, found by trying each, and which tier that makes.

result = probe(python)       tries everything in a process that is thrown away; some 0.2 s; blocks
result.tier                  the best tier that works
rows(result)                 the table that `doctor` prints
refusal(result, least)       why a wanted tier cannot be had, with the mend; empty where it can
GAPS[tier]                   what a tier does not hold, in sentences for reports and instructions
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from mcp_server.errors import SetupFailed
from mcp_server.sandbox import files, scopes
from mcp_server.sandbox.launch import BOOTSTRAP, WORKER_DIR, find_bubblewrap
from mcp_server.sandbox.mends import Surroundings, mend
from mcp_server.sandbox.policy import FIRST_CELL_UID, Tier

PROBE_TIMEOUT_S = 45.0
"""For all trials together, each of which has three seconds of its own; usual are 0.2 s."""

LAYERS: Mapping[str, str] = MappingProxyType(
    {
        "user_namespace": "user namespaces, with capabilities inside",
        "id_range": "ids of nobody else's inside (root only)",
        "mounts": "an own view of the files, read-only system",
        "pid_namespace": "processes unseen by others, with a fresh /proc",
        "network_namespace": "an own network, with nothing but loopback",
        "rooms": "a room for each context inside a cell",
        "bubblewrap": "bwrap, which builds a cell where this server may not",
        "bubblewrap_capabilities": "bwrap, with capabilities inside",
        "landlock": "Landlock, ABI 6 or newer",
        "seccomp": "the system call filter",
        "capabilities": "giving up all capabilities",
        "pidfd": "processes named without doubt (pidfd)",
        "openat2": "files of a sandbox read without leaving it (openat2)",
        "memory_group": "memory limited by the kernel (cgroup)",
    }
)
"""Every layer that is tried, and what it gives."""

NEEDED_BY_ALL = ("seccomp", "capabilities", "pidfd", "openat2")

NEEDED: Mapping[Tier, tuple[str, ...]] = MappingProxyType(
    {
        Tier.STRONG: (
            *("user_namespace", "mounts", "pid_namespace", "network_namespace", "rooms", "id_range"),
            *NEEDED_BY_ALL,
        ),
        Tier.STRONG_CELL: ("bubblewrap", *NEEDED_BY_ALL),
        Tier.STANDARD: ("landlock", *NEEDED_BY_ALL),
        Tier.NONE: (),
    }
)
"""Tier, from the best on → the layers it stands on. A layer that was not tried here is not needed here."""

GAPS: Mapping[Tier, tuple[str, ...]] = MappingProxyType(
    {
        Tier.STRONG: (),
        Tier.STRONG_CELL: (
            "Contexts of one conversation share a cell: they see and can end each other's processes, and share /tmp.",
            "Files of a conversation are not limited in number, only in total size.",
            "Watchers of files (inotify) are counted with those of the server's user.",
        ),
        Tier.STANDARD: (
            "There is no network at all, not even loopback: sockets other than pairs do not exist.",
            "Names, sizes and times of the server user's files can be seen; their contents cannot.",
            "Changing modes, owners and times of files has no effect.",
            "There is no /dev/shm and no private /tmp: locks and pools of multiprocessing do not work.",
            "Files of a context are not limited in number or in total size.",
            "Where no cgroup can be made, too many processes end the context instead of being refused.",
        ),
        Tier.NONE: ("Nothing is isolated: code can do what the server's user can do.",),
    }
)


@dataclass(frozen=True, slots=True)
class Layer:
    """What became of a trial. ``error`` is the kernel's text where it does not work, ``mend`` what would help."""

    name: str
    works: bool
    detail: str = ""
    error: str = ""
    mend: str = ""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Every layer that was tried, in the order of LAYERS, and the best tier that they allow."""

    layers: tuple[Layer, ...]
    tier: Tier

    def works(self, name: str) -> bool:
        """False too for a layer that was not tried here."""
        return any(layer.works for layer in self.layers if layer.name == name)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of `doctor`'s table. ``tiers`` are those that cannot be had without it."""

    layer: str
    works: bool
    detail: str
    mend: str
    tiers: tuple[Tier, ...]


def probe(python: str = sys.executable) -> ProbeResult:
    """Try every layer with this interpreter. Raises SetupFailed where not even the trials can be started."""
    outcomes = _run_trials(python)
    outcomes["openat2"] = _try_openat2()
    outcomes["memory_group"] = _try_memory_group()
    return judge(outcomes, _surroundings(python))


def judge(outcomes: Mapping[str, Mapping[str, object]], around: Surroundings) -> ProbeResult:
    """The result of trials, as `worker.trials` reports them. Pure."""
    layers = []
    for name in LAYERS:
        if name in outcomes:
            outcome = outcomes[name]
            works, error = bool(outcome["works"]), str(outcome["error"])
            layers.append(Layer(name, works, str(outcome["detail"]), error, "" if works else mend(name, error, around)))
    return ProbeResult(tuple(layers), best_tier({layer.name: layer.works for layer in layers}))


def best_tier(works: Mapping[str, bool]) -> Tier:
    """The best tier whose layers all work, of those that were tried. Pure."""
    return next(tier for tier, needed in NEEDED.items() if _all_work(works, needed))


def _all_work(works: Mapping[str, bool], needed: Iterable[str]) -> bool:
    """Only root maps ids: an ordinary user does not try it and does not need it."""
    return all(works.get(name, name == "id_range") for name in needed)


def rows(result: ProbeResult) -> list[Row]:
    """The table of `doctor`: every layer, the error or a detail, and the mend."""
    return [
        Row(
            LAYERS[layer.name],
            layer.works,
            layer.detail if layer.works else layer.error,
            layer.mend,
            tuple(tier for tier, needed in NEEDED.items() if layer.name in needed),
        )
        for layer in result.layers
    ]


def refusal(result: ProbeResult, least: Tier) -> str:
    """Why a tier at least as good as `least` cannot be had here, and what would mend it; empty where it can."""
    order = list(NEEDED)
    if order.index(result.tier) <= order.index(least):
        return ""
    wanted = NEEDED[least]
    failed = [layer for layer in result.layers if layer.name in wanted and not layer.works]
    reasons = [f"- {LAYERS[layer.name]}: {layer.error}. {layer.mend}" for layer in failed]
    return "\n".join((f"The sandbox tier {least!s} cannot be had here; {result.tier!s} can.", *reasons))


def _run_trials(python: str) -> dict[str, dict[str, object]]:
    argument = json.dumps({"bubblewrap": find_bubblewrap(), "first_id": FIRST_CELL_UID})
    command = [python, "-I", "-S", "-c", BOOTSTRAP, os.fspath(WORKER_DIR), "trials:main", argument]
    try:
        done = subprocess.run(command, capture_output=True, env={}, cwd="/", timeout=PROBE_TIMEOUT_S, check=True)
        outcomes: dict[str, dict[str, object]] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        said = getattr(error, "stderr", b"") or b""
        last = said.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise SetupFailed(
            f"The trials of the sandbox cannot be run with {python}: {error}. {' '.join(last)}".rstrip()
        ) from error
    return outcomes


def _outcome(detail: str = "", error: str = "") -> dict[str, object]:
    return {"works": not error, "error": error, "detail": detail}


def _try_openat2() -> dict[str, object]:
    directory = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(files.open_beneath(directory, ".", os.O_RDONLY))
    except OSError as error:
        return _outcome(error=str(error))
    finally:
        os.close(directory)
    return _outcome()


def _try_memory_group() -> dict[str, object]:
    try:
        parent = scopes.divisible_group()
    except OSError as error:
        return _outcome(error=error.strerror or str(error))
    return _outcome(f"version {parent.version}")


def _surroundings(python: str) -> Surroundings:
    return Surroundings(
        root=os.geteuid() == 0,
        container=_in_container(),
        kernel=os.uname().release,
        python=os.path.realpath(python),
        userns_clone=_sysctl("kernel/unprivileged_userns_clone"),
        userns_apparmor=_sysctl("kernel/apparmor_restrict_unprivileged_userns"),
        userns_most=_sysctl("user/max_user_namespaces"),
    )


def _in_container() -> bool:
    """A runtime's mark, or a system call filter that something put on this process."""
    if any(Path(mark).exists() for mark in ("/.dockerenv", "/run/.containerenv")) or "container" in os.environ:
        return True
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return "\nSeccomp:\t2" in status


def _sysctl(name: str) -> int | None:
    try:
        return int(Path("/proc/sys", name).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
