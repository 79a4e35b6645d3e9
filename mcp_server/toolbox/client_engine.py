"""An engine whose contexts live at a toolbox server elsewhere: our own, or any that speaks Daytona's protocol.

Each sandbox of the service's is a sandbox made through the server's main API. A context that the server lost (it was
restarted, or let the context expire) is made anew under the same handle, and the next outcome says so.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import structlog

from mcp_server.errors import (
    CodeInterpreterNotFoundError,
    EngineUnavailable,
    InvalidArgument,
    SetupFailed,
    ToolboxError,
    UnknownContext,
    UnknownSandbox,
)
from mcp_server.model import (
    ContextInfo,
    ContextSpec,
    EngineCapabilities,
    Outcome,
    RunRequest,
    Sink,
    State,
    Status,
)
from mcp_server.toolbox.client_address import Address
from mcp_server.toolbox.client_lines import PLAIN_GAPS, Line, MuxLine, PlainLine
from mcp_server.toolbox.client_sandboxes import AsyncSandboxApi, RemoteSandbox, main_api
from mcp_server.toolbox.mux import INFO_PATH, SUBPROTOCOL

HANDLE_BYTES = 16
"""128 bits, as every engine's handles have."""

KEEP_ALIVE_S = 300.0
"""How often a server is told that its sandboxes are in use."""

IDLE_MINUTES = 15
"""After so long without that, as when this process was killed, the server is to delete them."""

LOST_CONTEXT = "the toolbox server lost it: it was restarted, or let it expire"

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Context:
    """A context and where it is. ``remote_id`` is empty from its loss until the next run makes another.

    ``stop`` is there while a run is on, and gets the reason for which it is to stop.
    """

    info: ContextInfo
    spec: ContextSpec
    late: Sink
    remote_id: str = ""
    lost: str = ""
    stop: asyncio.Future[Status] | None = None
    deleted: bool = False


@dataclass(slots=True)
class _Place:
    """A sandbox of the service's, and the server's that stands for it."""

    making: asyncio.Lock = field(default_factory=asyncio.Lock)
    remote: RemoteSandbox | None = None


class ToolboxEngine:
    """See `engine.base.Engine`. ``url`` is the server's, with or without the ``/api`` that `DaytonaConfig` needs."""

    def __init__(self, url: str, token: str | None = None, *, unix_socket: str | None = None, name: str = "toolbox"):
        self._api_address = main_api(url, token, unix_socket)
        self._api = AsyncSandboxApi(self._api_address)
        self._capabilities = EngineCapabilities(name, tier="unknown")
        self._line: Line = PlainLine()
        self._contexts: dict[str, _Context] = {}
        self._places: dict[str, _Place] = {}
        self._keeping_alive: asyncio.Task[None] | None = None
        self._errands: set[asyncio.Task[None]] = set()

    @property
    def capabilities(self) -> EngineCapabilities:
        return self._capabilities

    async def start(self) -> None:
        try:
            await self._api.request("GET", "sandbox?limit=1")
            info = await self._server_info()
        except ToolboxError as error:
            await self._api.close()
            raise SetupFailed(
                f"The toolbox server at {self._api_address.url} cannot be used: {error}. Check --url and --token-file."
            ) from error
        name = self._capabilities.name
        if info is None:
            self._capabilities = EngineCapabilities(name, tier=_named_place(self._api_address), missing=PLAIN_GAPS)
        else:
            self._line = MuxLine()
            self._capabilities = _capabilities(name, info)
        self._keeping_alive = asyncio.get_running_loop().create_task(self._keep_alive())

    async def create(self, spec: ContextSpec, late: Sink) -> ContextInfo:
        context = _Context(ContextInfo("ctx_" + secrets.token_urlsafe(HANDLE_BYTES), ""), spec, late)
        await self._make(context, spec.cwd)
        self._contexts[context.info.context_id] = context
        return context.info

    async def execute(self, context_id: str, request: RunRequest, sink: Sink) -> Outcome:
        context = self._contexts.get(context_id)
        if context is None:
            raise UnknownContext(context_id)
        if context.stop is not None:
            raise RuntimeError("runs of one context must not overlap")
        stop = context.stop = asyncio.get_running_loop().create_future()
        try:
            return await self._execute(context, request, sink, stop)
        except asyncio.CancelledError:
            context.lost = "the run before this one was given up, and its interpreter was ended"
            self._errand(self._discard(context.spec.sandbox_id, context.remote_id))
            context.remote_id = ""
            raise
        finally:
            context.stop = None

    async def interrupt(self, context_id: str, reason: Status) -> bool:
        context = self._contexts.get(context_id)
        if context is None or context.stop is None:
            return False
        _tell(context.stop, reason)
        return True

    def files(self, context_id: str) -> None:
        """They are at the server, which keeps what it stores of them to itself."""

    async def delete(self, context_id: str) -> None:
        context = self._contexts.pop(context_id, None)
        if context is None:
            return
        context.deleted = True
        if context.stop is not None:
            _tell(context.stop, Status.CANCELLED)
        await self._discard(context.spec.sandbox_id, context.remote_id)

    async def delete_sandbox(self, sandbox_id: str) -> None:
        for context_id in [key for key, context in self._contexts.items() if context.spec.sandbox_id == sandbox_id]:
            await self.delete(context_id)
        place = self._places.pop(sandbox_id, None)
        if place is not None and place.remote is not None:
            try:
                await self._api.delete(place.remote.sandbox_id)
            except CodeInterpreterNotFoundError:
                return
            except ToolboxError as error:
                _log.warning("sandbox.not_deleted", sandbox_id=sandbox_id, reason=str(error))

    async def close(self) -> None:
        if self._keeping_alive is not None:
            self._keeping_alive.cancel()
        for sandbox_id in list(self._places):
            await self.delete_sandbox(sandbox_id)
        if self._errands:
            await asyncio.wait(self._errands)
        await self._line.close()
        await self._api.close()

    # -- one run --------------------------------------------------------------------------------------------------

    async def _execute(
        self, context: _Context, request: RunRequest, sink: Sink, stop: asyncio.Future[Status]
    ) -> Outcome:
        outcome = None
        if context.remote_id:
            with suppress(UnknownContext, UnknownSandbox):
                outcome = await self._try(context, request, sink, stop)
        if outcome is None and context.deleted:
            return Outcome(Status.CANCELLED, State.RESET, detail="the context was deleted")
        if outcome is None:
            await self._remake(context)
            outcome = await self._try(context, request, sink, stop)
        lost_before, context.lost = context.lost, ""
        if context.deleted:
            return replace(outcome, status=Status.CANCELLED, state=State.RESET, detail="the context was deleted")
        if stop.done() and outcome.status in (Status.CANCELLED, Status.INTERRUPTED):
            outcome = replace(outcome, status=stop.result())
        return replace(outcome, lost_before=lost_before or outcome.lost_before)

    async def _try(self, context: _Context, request: RunRequest, sink: Sink, stop: asyncio.Future[Status]) -> Outcome:
        """Run the code where the context is. Raises UnknownContext or UnknownSandbox where it is no more."""
        remote = await self._remote(context.spec.sandbox_id)
        await self._line.attend(remote, context.remote_id, context.late)
        return await self._line.execute(remote, context.remote_id, request, sink, stop)

    # -- contexts and sandboxes at the server ---------------------------------------------------------------------

    async def _make(self, context: _Context, cwd: str) -> None:
        """Give a context its place at the server; a sandbox that is gone there is made anew."""
        place = await self._remote(context.spec.sandbox_id)
        try:
            made = await self._line.create(place, cwd, context.spec.envs, context.late)
        except UnknownSandbox:
            self._places.pop(context.spec.sandbox_id, None)
            place = await self._remote(context.spec.sandbox_id)
            made = await self._line.create(place, cwd, context.spec.envs, context.late)
        context.remote_id, where = made
        context.info = replace(context.info, cwd=where)

    async def _remake(self, context: _Context) -> None:
        """Make a context anew that was lost, in its old directory where that is still there."""
        context.lost = context.lost or LOST_CONTEXT
        context.remote_id = ""
        try:
            await self._make(context, context.info.cwd)
        except InvalidArgument:
            await self._make(context, context.spec.cwd)

    async def _discard(self, sandbox_id: str, remote_id: str) -> None:
        """End a context at the server, which ends what runs in it."""
        place = self._places.get(sandbox_id)
        if not remote_id or place is None or place.remote is None:
            return
        with suppress(UnknownContext, UnknownSandbox, EngineUnavailable):
            await self._line.delete(place.remote, remote_id)

    async def _remote(self, sandbox_id: str) -> RemoteSandbox:
        """The server's sandbox for one of the service's; made on first use. Raises EngineUnavailable."""
        place = self._places.setdefault(sandbox_id, _Place())
        async with place.making:
            if place.remote is None:
                wanted = {"autoStopInterval": IDLE_MINUTES, "autoDeleteInterval": 0}
                try:
                    place.remote = await self._api.create(wanted)
                except ToolboxError as error:
                    raise EngineUnavailable(f"No sandbox can be had at the toolbox server: {error}.") from error
            return place.remote

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(KEEP_ALIVE_S)
            for place in list(self._places.values()):
                if place.remote is not None:
                    try:
                        await self._api.note_activity(place.remote.sandbox_id)
                    except ToolboxError as error:
                        _log.warning("sandbox.not_kept_alive", sandbox_id=place.remote.sandbox_id, reason=str(error))

    async def _server_info(self) -> Mapping[str, Any] | None:
        """What ``x/info`` says; None where the server offers no mux that we speak."""
        root = replace(self._api_address, url=self._api_address.url.removesuffix("/api"))
        try:
            info = await self._api.request_at(root.at(f"toolbox/{INFO_PATH}"), "GET")
        except ToolboxError:
            return None
        return info if isinstance(info, dict) and info.get("mux") == SUBPROTOCOL else None

    def _errand(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)


def _tell(stop: asyncio.Future[Status], reason: Status) -> None:
    """The first reason stands."""
    if not stop.done():
        stop.set_result(reason)


def _named_place(api: Address) -> str:
    return f"sandboxes at {urlsplit(api.url).hostname}"


def _capabilities(name: str, info: Mapping[str, Any]) -> EngineCapabilities:
    engine = info.get("engine")
    engine = engine if isinstance(engine, dict) else {}
    missing = engine.get("missing")
    return EngineCapabilities(
        name,
        tier=str(engine.get("tier", "unknown")),
        images=engine.get("images") is True,
        missing=tuple(str(gap) for gap in missing) if isinstance(missing, list) else (),
    )
