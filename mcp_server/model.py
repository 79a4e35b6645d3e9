"""The values that travel through the house: frozen, slotted, without behaviour that does I/O.

Times end in ``_s`` (seconds), sizes in ``_bytes`` or ``_chars``. Everything here is safe to share between tasks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

NO_ENVS: Mapping[str, str] = MappingProxyType({})


class Status(StrEnum):
    """What became of a run. The last two are of runs that have not ended."""

    OK = "ok"
    ERROR = "error"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"
    QUEUED = "queued"
    RUNNING = "running"

    @property
    def ended(self) -> bool:
        return self not in (Status.QUEUED, Status.RUNNING)


class State(StrEnum):
    """What became of a context's variables."""

    KEPT = "kept"
    RESET = "reset"


class Stream(StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True)
class OutputChunk:
    """Raw bytes of one of the two streams, cut anywhere (also inside a character)."""

    stream: Stream
    data: bytes


@dataclass(frozen=True, slots=True)
class Representation:
    """One form of a displayed value: ``text/plain`` in UTF-8, ``image/png`` in bytes, and so on.

    ``alt`` says in a few words what is shown ("figure 640×480"); ``original_bytes`` is the size of the data before the
    worker scaled or cut it, 0 where it is whole. ``path`` is the file that holds it, as the code itself names it.
    """

    mime: str
    data: bytes
    alt: str = ""
    original_bytes: int = 0
    path: str = ""


@dataclass(frozen=True, slots=True)
class DisplayChunk:
    """A value that the code showed: the last expression's (``is_result``) or one given to ``display``."""

    is_result: bool
    representations: tuple[Representation, ...]


Chunk = OutputChunk | DisplayChunk

Sink = Callable[[Chunk], Awaitable[None] | None]
"""Takes each chunk as it happens, on the event loop, and must not block.

Where it returns an awaitable, no further output is read from the worker until that is done: this is how a slow reader
slows a program down.
"""


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An exception of the user's code. ``traceback`` is the whole text, ending in ``name: message``."""

    name: str
    message: str
    traceback: str


@dataclass(frozen=True, slots=True)
class RunRequest:
    """One execution to carry out. ``envs`` hold for this run only; ``timeout_s`` 0 means none."""

    number: int
    code: str
    timeout_s: float = 0.0
    envs: Mapping[str, str] = field(default_factory=lambda: NO_ENVS)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended, as observed from outside the worker.

    ``exit_code`` is what the code gave to ``exit()`` (status ``ok``) or the worker's own exit code (``crashed``);
    ``signal`` is the number of the signal that killed the worker. ``lost_before`` says in a sentence why the context
    was empty when the run began, where it had lost its variables since the run before.
    """

    status: Status
    state: State = State.KEPT
    elapsed_s: float = 0.0
    error: ErrorInfo | None = None
    exit_code: int | None = None
    signal: int | None = None
    lost_before: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ContextSpec:
    """What a new context shall be. ``sandbox_id`` names the sandbox it lives in; contexts of one share its files.

    ``cwd`` empty means a directory of the context's own. ``envs`` are added to the clean environment for good.
    """

    sandbox_id: str
    cwd: str = ""
    envs: Mapping[str, str] = field(default_factory=lambda: NO_ENVS)


@dataclass(frozen=True, slots=True)
class ContextInfo:
    """A context as its engine made it. ``context_id`` is the opaque handle; ``cwd`` as the code inside sees it."""

    context_id: str
    cwd: str


@dataclass(frozen=True, slots=True)
class EngineCapabilities:
    """What an engine can do; the contract suite checks each claim.

    ``tier`` is the isolation in force (``strong``, ``strong-cell``, ``standard``, ``none``) or where the engine runs
    code elsewhere, that place's name. ``outputs``: complete outputs are readable by the code itself under /outputs.
    """

    name: str
    tier: str
    outputs: bool = False
    images: bool = False
    files: bool = False
    missing: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Conversation:
    """Whom a request belongs to. ``key`` empty: none is known, and every context stands alone, reached by its handle.

    ``principal`` is the authenticated user, empty where there is no authentication; a handle is checked against it.
    """

    key: str = ""
    principal: str = ""


@dataclass(frozen=True, slots=True)
class RunCall:
    """One call of ``run_code`` as the service takes it; None means the setting's default."""

    conversation: Conversation
    code: str
    context_id: str = ""
    timeout_s: float | None = None
    envs: Mapping[str, str] = field(default_factory=lambda: NO_ENVS)
    wait_s: float | None = None
    interrupt: bool = False
    max_output_chars: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How a run stands: for progress notifications. ``last_line`` is shaped, at most 200 characters."""

    status: Status
    elapsed_s: float
    last_line: str = ""


@dataclass(frozen=True, slots=True)
class ContextRecord:
    """A context as ``list_contexts`` shows it. ``activity`` is ``idle``, ``running`` or ``queued``."""

    context_id: str
    cwd: str
    created_at: datetime
    last_used_at: datetime
    activity: str
    runs: int
    expires_after_idle_s: float
    running_since: datetime | None = None
    last_line: str = ""


@dataclass(frozen=True, slots=True)
class StoredOutput:
    """Where the complete output of one stream is. ``path`` is empty where the code itself cannot read it.

    ``complete`` is False where a quota made even the stored copy keep only its head and tail.
    """

    uri: str
    path: str = ""
    complete: bool = True


@dataclass(frozen=True, slots=True)
class ResourceLink:
    """A resource that a report names. ``name`` is what a person would call it."""

    uri: str
    name: str
    mime: str
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What a run becomes for the model: one text, then images. ``record`` is the machine record, ready for JSON.

    ``links`` name resources: stored outputs, displayed values that are no text or image, files of the run's.
    """

    text: str
    images: tuple[Representation, ...]
    record: Mapping[str, Any]
    links: tuple[ResourceLink, ...] = ()


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file that the run made or changed. ``path`` as the code itself names it; ``kind``: ``new`` or ``changed``."""

    path: str
    kind: str
    size_bytes: int
    mime: str = ""


@dataclass(frozen=True, slots=True)
class OutputPage:
    """``lines`` lines of a stored output from ``first_line`` on, counted from 0; ``more``: others follow."""

    text: str
    first_line: int
    lines: int
    more: bool
