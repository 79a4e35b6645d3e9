"""What a cell shall be: pure values, and the rules that make them. Nothing here touches the machine."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

MIB = 1024 * 1024
GIB = 1024 * MIB


class Tier(StrEnum):
    """Isolation, from the most to the least. What each holds is in SECURITY.md."""

    STRONG = "strong"
    STRONG_CELL = "strong-cell"
    STANDARD = "standard"
    NONE = "none"


ENVIRONMENT_ALLOWED = ("LANG", "LANGUAGE", "LC_ALL", "LC_COLLATE", "LC_CTYPE", "LC_NUMERIC", "LC_TIME", "TZ")
"""Variables of the server's that code may see: how text, numbers and times look here."""

NOTHING: Mapping[str, str] = MappingProxyType({})

WITHOUT_NETWORK: Mapping[str, str] = MappingProxyType({"PIP_RETRIES": "0"})
"""pip would try five times more, for eight seconds."""

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"

FIRST_CELL_UID = 0x7000_0000
"""Where the server is root, a cell is 65,536 uids from here: the first that systemd's table of uids leaves free."""

ROOM_UID = 1000
"""The user that code is, where the server is an ordinary user."""

SCRATCH_INODES = 16_384

OWN_VIEW = frozenset((Tier.STRONG, Tier.STRONG_CELL))
"""Tiers in which code sees files of the cell's own, its work at one path always."""

_SECCOMP = {Tier.STRONG: "room", Tier.STRONG_CELL: "room", Tier.STANDARD: "standard"}
"""The programs of `worker/seccomp`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Ceilings of one context, or where said, of one sandbox. 0 means none.

    ``data_bytes`` is RLIMIT_DATA of each process: it stops what RLIMIT_AS stops and, unlike that, breaks neither numpy
    nor large mappings. ``processes`` counts threads too, over the whole sandbox, and needs a tier with identities of
    its own. ``disk_bytes`` and ``disk_inodes`` hold for a sandbox's files, ``scratch_bytes`` for each of a room's
    /tmp and /dev/shm, ``outputs_bytes`` for the stored outputs of all sandboxes together; these need a view of files of
    the cell's own.
    """

    data_bytes: int = 4 * GIB
    file_bytes: int = GIB
    open_files: int = 1024
    processes: int = 256
    cpu_s: int = 0
    disk_bytes: int = GIB
    disk_inodes: int = 65_536
    scratch_bytes: int = 256 * MIB
    outputs_bytes: int = 4 * GIB


@dataclass(frozen=True, slots=True)
class Workspace:
    """A directory of the user's that stands at /work instead of a private one."""

    path: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class CellPlan:
    """Everything that decides how a cell is made.

    ``python`` is the interpreter of the contexts; a venv's is named by its own path, unresolved. ``state_dir`` is where
    tiers without a view of files of their own keep sandboxes' files; it is made when missing, for this user alone.
    ``environment`` is all that the interpreter finds in ``os.environ``, but HOME. ``preload`` are modules to import
    before the first context; missing ones are reported, unless ``optional``, and not fatal. A ``bare`` cell imports
    none and only looks which of them there are. ``spare_workers`` wait for new contexts, each in a room of its own
    where there are rooms, and ``spare_rooms`` beyond them wait for workers.
    ``random_seed`` is what the global random generators begin from in every context; None: each its own.
    """

    python: str
    state_dir: str
    tier: Tier = Tier.NONE
    preload: tuple[str, ...] = ()
    optional: frozenset[str] = frozenset()
    bare: bool = False
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({"PATH": SYSTEM_PATH}))
    limits: Limits = Limits()
    workspace: Workspace | None = None
    spare_workers: int = 2
    spare_rooms: int = 2
    start_timeout_s: float = 60.0
    random_seed: int | None = None


def environment_for(
    python: str, host: Mapping[str, str], fixed: Mapping[str, str] = NOTHING, tier: Tier = Tier.NONE
) -> Mapping[str, str]:
    """The clean environment of contexts: what is allowed of the host's, UTF-8, and the interpreter on PATH.

    `fixed` wins over the host's.
    """
    kept = {name: host[name] for name in ENVIRONMENT_ALLOWED if name in host}
    if tier is not Tier.NONE:
        kept.update(WITHOUT_NETWORK)
    kept.update(fixed)
    kept.setdefault("LANG", "C.UTF-8")
    kept["PATH"] = f"{posixpath.dirname(python)}:{SYSTEM_PATH}" if posixpath.isabs(python) else SYSTEM_PATH
    return MappingProxyType(kept)


def resource_limits(plan: CellPlan) -> dict[str, int]:
    """The limits that the kernel keeps per process, as names of RLIMIT_… and values."""
    limits = plan.limits
    wanted = {
        "DATA": limits.data_bytes,
        "FSIZE": limits.file_bytes,
        "NOFILE": limits.open_files,
        "CPU": limits.cpu_s,
    }
    if plan.tier in OWN_VIEW:
        # Counted per user namespace: elsewhere this would be every process of the user's own session.
        wanted["NPROC"] = limits.processes
    return {name: value for name, value in wanted.items() if value}


def workspace_plan(plan: CellPlan) -> dict[str, Any]:
    """The user's directory in place of private ones; all sandboxes are then one user, since they share its files."""
    workspace = plan.workspace
    shown = None if workspace is None else {"path": workspace.path, "read_only": workspace.read_only}
    return {"workspace": shown, "workspace_uid": ROOM_UID}


def worker_plan(plan: CellPlan) -> dict[str, Any]:
    """The part of the plan that the inside needs, ready for JSON: `worker.confine.seal` takes it as it is."""
    return {
        "rooms": plan.tier is Tier.STRONG,
        "one_room": plan.tier is Tier.STRONG_CELL,
        "room_uid": ROOM_UID,
        **workspace_plan(plan),
        "preload": list(plan.preload),
        "random_seed": plan.random_seed,
        "bare": plan.bare,
        "rlimits": resource_limits(plan),
        "landlock": None,
        "landlocked": plan.tier is Tier.STANDARD,
        "seccomp": _SECCOMP.get(plan.tier),
        "disk_bytes": plan.limits.disk_bytes,
        "disk_inodes": plan.limits.disk_inodes,
        "scratch_bytes": plan.limits.scratch_bytes,
        "scratch_inodes": SCRATCH_INODES,
        "spare_rooms": plan.spare_rooms,
    }
