"""The port between the service and whatever runs code.

Law, held by `tests/contract/` for every implementation:

- Runs in one context never overlap: the caller awaits one `execute` before the next. Contexts are independent.
- `execute` delivers every chunk that the run produced before it returns, and none after.
- Code that fails, times out or kills its worker is an `Outcome`, not an exception.
- A context whose worker was lost is usable at once, empty, under the same handle; `Outcome.state` says so, and the next
  outcome's `lost_before` repeats it.
- Cancelling `execute` itself gives the run up: its worker is killed and the context reset. To stop a run and keep its
  variables, call `interrupt`.
"""

from __future__ import annotations

from typing import Protocol

from mcp_server.model import ContextInfo, ContextSpec, EngineCapabilities, Outcome, RunRequest, Sink, Status


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

    async def delete(self, context_id: str) -> None:
        """End a context with everything that it started. A running `execute` returns `cancelled`. Unknown ids pass."""

    async def delete_sandbox(self, sandbox_id: str) -> None:
        """Remove what a sandbox owns, its remaining contexts included. Unknown ids pass."""

    async def close(self) -> None:
        """End everything. Idempotent."""
