"""The port between the service and whatever runs code.

Law, held by `tests/contract/` for every implementation:

- Runs in one context never overlap: the caller awaits one `execute` before the next. Contexts are independent.
- `execute` delivers every chunk that the run produced before it returns, and none after.
- Code that fails, times out or kills its worker is an `Outcome`, not an exception.
- A context whose worker was lost is usable at once, empty, under the same handle; `Outcome.state` says so, and the next
  outcome's `lost_before` repeats it.
- Where a sink's awaitable raises, `execute` raises that and the run is given up. A sink's call itself must not raise.
- Cancelling `execute` itself gives the run up: its worker is killed and the context reset. To stop a run and keep its
  variables, call `interrupt`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mcp_server.model import (
    ContextInfo,
    ContextSpec,
    EngineCapabilities,
    FileChange,
    Outcome,
    OutputPage,
    ResourceLink,
    RunRequest,
    Sink,
    Status,
    StoredOutput,
    Stream,
)


class RunOutputs(Protocol):
    """Takes in the complete output of one run, for whoever wants more than a report shows."""

    def take(self, stream: Stream, data: bytes) -> None:
        """The next bytes. Raises OSError where they cannot be stored: give up then, with `remove`."""

    def keep(self, stream: Stream) -> StoredOutput | None:
        """Somebody is about to be told of it: where it is, or None where it had to make room. Raises OSError."""

    def put(self, name: str, data: bytes) -> StoredOutput | None:
        """Store something that the run showed, under a name of its own; None where there is no room. Raises OSError."""

    def finish(self) -> None:
        """The run has ended. Raises OSError."""

    def close(self) -> None:
        """Its last report has been given; what was kept stays. Idempotent."""

    def remove(self) -> None:
        """Take away what was kept. Idempotent."""


class ContextFiles(Protocol):
    """What an engine with ``outputs`` and ``files`` among its capabilities knows of a context's files."""

    async def begin(self, run: int) -> RunOutputs:
        """A run is about to begin."""

    async def changes(self, elapsed_s: float) -> tuple[Sequence[FileChange], str]:
        """The files made or changed since `begin`, and why not all were looked at, where that is so."""

    async def read_output(self, run: int, stream: Stream, offset: int, limit: int) -> OutputPage:
        """At most `limit` lines of a stored output, from line `offset` on. Raises CallerError where there is none."""

    async def read_shown(self, run: int, name: str, limit_bytes: int) -> bytes:
        """What a run stored with `RunOutputs.put`. Raises CallerError where there is no such thing."""

    def link(self, change: FileChange) -> ResourceLink:
        """The resource that `read_file` reads."""

    async def read_file(self, path: str, limit_bytes: int) -> bytes:
        """A regular file beneath the context's work directory. Raises CallerError."""


class Engine(Protocol):
    """Makes contexts and runs code in them. All methods belong to one event loop."""

    @property
    def capabilities(self) -> EngineCapabilities:
        """What this engine can do; true once `start` has returned."""

    async def start(self) -> None:
        """Make ready. Raises `SetupFailed` with the mend in its text."""

    async def create(self, spec: ContextSpec, late: Sink) -> ContextInfo:
        """Make a context. `late` takes output that arrives while no run is on (threads, daemons).

        Raises `InvalidArgument` for a cwd that is no directory there, `EngineUnavailable` where no worker can be had.
        """

    async def execute(self, context_id: str, request: RunRequest, sink: Sink) -> Outcome:
        """Run code to its end, its timeout or an `interrupt`. Raises `UnknownContext`."""

    async def interrupt(self, context_id: str, reason: Status) -> bool:
        """Stop what runs in a context; its `execute` then returns with `reason` as the status.

        False where nothing runs. Returns at once; code that ignores the interrupt is killed after the grace period
        and its variables are lost.
        """

    def files(self, context_id: str) -> ContextFiles | None:
        """The files of a context; None where this engine keeps none, or does not know it."""

    async def delete(self, context_id: str) -> None:
        """End a context with everything that it started. A running `execute` returns `cancelled`. Unknown ids pass."""

    async def delete_sandbox(self, sandbox_id: str) -> None:
        """Remove what a sandbox owns, its remaining contexts included. Unknown ids pass."""

    async def close(self) -> None:
        """End everything. Idempotent."""
