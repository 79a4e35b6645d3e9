"""Which implementations make a server: the one place that picks an engine, a cell's plan and a service's limits.

Heavy imports stand inside the functions, so that a command line that needs none of them is quick.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from mcp_server import user_dirs
from mcp_server.errors import SetupFailed
from mcp_server.settings import Settings

if TYPE_CHECKING:
    from mcp_server.engine.base import Engine
    from mcp_server.engine.local import LocalEngine
    from mcp_server.prompts import Texts
    from mcp_server.sandbox.cell import Cell, Warmth
    from mcp_server.sandbox.policy import CellPlan, Tier
    from mcp_server.sandbox.probe import ProbeResult
    from mcp_server.service import Service, ServiceLimits, ServiceObserver


class EngineKind(StrEnum):
    """Where code runs: here, at a toolbox server, or in Daytona's sandboxes, which speak the same protocol."""

    LOCAL = "local"
    TOOLBOX = "toolbox"
    DAYTONA = "daytona"


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """What the flags before a command's name say of the engine. ``token_file`` holds the token to show at ``url``."""

    kind: EngineKind = EngineKind.LOCAL
    url: str = ""
    token_file: Path | None = None


class Cells:
    """Makes the engine's cells, and remembers the newest: what there is for its contexts is told to the model."""

    def __init__(self, plan: CellPlan) -> None:
        self._plan = plan
        self._newest: dict[bool, Cell] = {}

    def __call__(self) -> Cell:
        return self._make(self._plan)

    def bare(self) -> Cell:
        """One that serves while one like the others loads: few will need it, and not for long."""
        return self._make(replace(self._plan, bare=True, spare_workers=min(1, self._plan.spare_workers)))

    @property
    def warmth(self) -> Warmth | None:
        """Of the newest cell that is ready, a bare one only where no other is."""
        ready = [self._newest[bare].warmth for bare in (False, True) if bare in self._newest]
        return next((warmth for warmth in ready if warmth is not None), None)

    def _make(self, plan: CellPlan) -> Cell:
        from mcp_server.sandbox.cell import Cell

        cell = self._newest[plan.bare] = Cell(plan)
        return cell


def chosen_engine(settings: Settings, choice: EngineChoice) -> tuple[Engine, Callable[[], Warmth | None]]:
    """The engine that was chosen, and what is known of its warmth once it has started."""
    if choice.kind is EngineKind.LOCAL:
        engine, cells = local_engine(settings)
        return engine, lambda: cells.warmth
    if not choice.url:
        raise SetupFailed(f"--engine {choice.kind} needs --url: the address of the server that runs the code.")
    from mcp_server.errors import CodeInterpreterValidationError
    from mcp_server.toolbox.client_engine import ToolboxEngine

    token = _read_token(choice.token_file) if choice.token_file is not None else None
    try:
        return ToolboxEngine(choice.url, token, name=choice.kind.value), lambda: None
    except CodeInterpreterValidationError as error:
        raise SetupFailed(f"--url: {error}") from None


def _read_token(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupFailed(f"Cannot read --token-file {path}: {error}") from None
    if not token or any(character.isspace() for character in token):
        raise SetupFailed(f"--token-file {path} must hold one token and nothing else.")
    return token


def local_engine(settings: Settings) -> tuple[LocalEngine, Cells]:
    """The engine of this machine in the best tier that works. Raises SetupFailed where that is less than asked for."""
    from mcp_server.engine.local import LocalEngine
    from mcp_server.model import EngineCapabilities
    from mcp_server.sandbox import probe
    from mcp_server.sandbox.limits import Ceilings

    found = probe.probe()
    refuse_weak_sandbox(found, settings)
    cells = Cells(cell_plan(settings, found))
    missing = () if found.tier == "none" else probe.GAPS[found.tier]
    capabilities = EngineCapabilities("local", found.tier, outputs=True, images=True, files=True, missing=missing)
    ceilings = Ceilings(settings.memory_bytes, settings.processes)
    engine = LocalEngine(
        cells,
        capabilities,
        outputs_quota_bytes=settings.outputs_bytes,
        ceilings=ceilings,
        new_bare_cell=cells.bare if settings.preload else None,
    )
    return engine, cells


def refuse_weak_sandbox(found: ProbeResult, settings: Settings) -> None:
    from mcp_server.sandbox.policy import Tier
    from mcp_server.sandbox.probe import refusal

    if settings.allow_unsandboxed:
        return
    reason = refusal(found, Tier(settings.min_sandbox))
    if reason:
        raise SetupFailed(f"{reason}\nOr run without it, with the rights of this user: --allow-unsandboxed.")


def cell_plan(settings: Settings, found: ProbeResult) -> CellPlan:
    from mcp_server.sandbox.policy import CellPlan, Limits, Workspace, environment_for

    if not os.path.isfile(settings.python) or not os.access(settings.python, os.X_OK):
        elsewhere = shutil.which(settings.python)
        hint = f" Give its path: --python {elsewhere}" if elsewhere else ""
        raise SetupFailed(f"--python {settings.python}: there is no such program.{hint}")
    workspace = None
    if settings.workspace_dir:
        path = user_dirs.expanded(settings.workspace_dir)
        if not path.is_dir():
            raise SetupFailed(f"--workspace {settings.workspace_dir}: no such directory.")
        workspace = Workspace(str(path.resolve()), settings.workspace_read_only)
    return CellPlan(
        python=settings.python,
        state_dir=str(_state_dir(settings, found.tier)),
        tier=found.tier,
        preload=settings.preload,
        optional=frozenset(Settings.model_fields["preload"].default),  # nobody asked for these by name
        environment=environment_for(settings.python, os.environ, _fixed(settings), found.tier),
        random_seed=settings.random_seed,
        limits=Limits(
            data_bytes=settings.memory_bytes,
            file_bytes=settings.file_size_bytes,
            open_files=settings.open_files,
            processes=settings.processes,
            cpu_s=settings.cpu_s,
            disk_bytes=settings.disk_bytes,
            disk_inodes=settings.disk_inodes,
            scratch_bytes=settings.scratch_bytes,
            outputs_bytes=settings.outputs_total_bytes,
        ),
        workspace=workspace,
    )


def _fixed(settings: Settings) -> dict[str, str]:
    """Variables that contexts shall have whatever the server's environment says."""
    fixed = {"TZ": settings.time_zone} if settings.time_zone else {}
    return fixed if settings.hash_seed is None else {**fixed, "PYTHONHASHSEED": str(settings.hash_seed)}


def _state_dir(settings: Settings, tier: Tier) -> Path:
    """Raises SetupFailed where the tier needs one and the user has none."""
    from mcp_server.sandbox.policy import Tier

    if settings.state_dir:
        return user_dirs.expanded(settings.state_dir).absolute()
    place = user_dirs.state_dir()
    if place is not None:
        return place
    if tier is Tier.STRONG:  # its files are in memory: nothing is ever made there
        return Path(os.devnull)
    raise SetupFailed("This user has no home directory: give --state-dir, a directory for the files of contexts.")


def service_over(engine: Engine, settings: Settings, observers: Sequence[ServiceObserver] = ()) -> Service:
    """The service, watched by `observers`, and for traces where this process makes them. Raises SetupFailed."""
    from mcp_server.service import Service, ServiceLimits

    limits = ServiceLimits(
        default_timeout_s=settings.timeout_s,
        wait_s=settings.wait_s,
        max_output_chars=settings.max_output_chars,
        idle_expiry_s=settings.idle_expiry_s,
        contexts_per_conversation=settings.contexts_per_conversation,
        contexts_per_principal=settings.contexts_per_principal,
        contexts=settings.contexts,
    )
    return Service(engine, limits, [*observers, *_records(settings, limits), *_tracing(settings)])


def _records(settings: Settings, limits: ServiceLimits) -> list[ServiceObserver]:
    if not settings.transcript:
        return []
    from mcp_server import __version__
    from mcp_server.transcripts.recorder import TranscriptRecorder

    directory = user_dirs.expanded(settings.transcript)
    return [TranscriptRecorder(directory, limits, __version__, with_envs=settings.transcript_envs)]


def _tracing(settings: Settings) -> list[ServiceObserver]:
    """Where tracing was set up before this started (`opentelemetry-instrument`), it need not be asked for."""
    if not settings.traces and "opentelemetry.sdk.trace" not in sys.modules:
        return []
    from mcp_server import tracing

    if settings.traces:
        tracing.set_up()
    return [tracing.Tracing()]


def texts_for(service: Service, settings: Settings, warmth: Warmth | None) -> Texts:
    from mcp_server.prompts import Facts, load

    facts = Facts(settings, service.capabilities)
    if warmth is not None:
        facts = Facts(settings, service.capabilities, warmth.python, warmth.installed)
    return load(facts)
