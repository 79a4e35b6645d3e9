"""Serves the ASGI application with uvicorn, on a socket that is bound before anything is started."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_server.errors import SetupFailed

DELIVERY_S = 5
"""How long answers may take to be sent once the calls have been drained; then their connections are cut."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

KEEP_ALIVE_S = 75
"""How long an idle connection stays. Clients close theirs after 5 s to a minute: whoever closes first must be the
client, or its next request may meet a connection that has just gone."""

_log = structlog.get_logger(__name__)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one. Raises SetupFailed with the reason."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise SetupFailed(
            f"Cannot listen on {host} port {port}: {error.strerror or error}. Choose another with --port."
        ) from None


@dataclass(frozen=True, slots=True)
class SignalActions:
    """What signals do beside ending the listener.

    ``drain`` takes no new requests and returns when those that were on have ended or been interrupted; a second signal
    cancels it. ``reload`` is what SIGHUP does; None: the same as SIGTERM.
    """

    drain: Callable[[], Coroutine[Any, Any, None]]
    reload: Callable[[], None] | None = None


async def serve(app: ASGIApp, listener: socket.socket, url: str, actions: SignalActions, **uvicorn_options: Any) -> int:
    """Serve until a signal comes. Gives the exit status. The options are what the application's doors need."""
    streams = StandingStreams(app)
    config = uvicorn.Config(
        streams,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=DELIVERY_S,
        timeout_keep_alive=KEEP_ALIVE_S,
        **uvicorn_options,
    )
    server = _Listener(config, streams, actions)
    _log.info("server.listening", url=url)
    await server.serve([listener])
    return 128 + server.stopped_by if server.stopped_by else 0


class StandingStreams:
    """Ends the streams that clients of the older protocol hold open for notifications, when the server stops.

    They carry no call, and waiting for them would take the whole of `DELIVERY_S` at each stop.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._stopping = asyncio.Event()

    def end(self) -> None:
        self._stopping.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        open_ended = False

        async def note_end(message: Message) -> None:
            nonlocal open_ended
            open_ended = message["type"] == "http.response.start" or message.get("more_body", False)
            await send(message)

        await self._app(scope, self._until_stop(receive), note_end)
        if open_ended and self._stopping.is_set():
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _until_stop(self, receive: Receive) -> Receive:
        async def receive_or_stop() -> Message:
            received = asyncio.ensure_future(receive())
            stopping = asyncio.ensure_future(self._stopping.wait())
            try:
                await asyncio.wait({received, stopping}, return_when=asyncio.FIRST_COMPLETED)
                return received.result() if received.done() else {"type": "http.disconnect"}
            finally:
                received.cancel()
                stopping.cancel()

        return receive_or_stop


class _Listener(uvicorn.Server):
    """uvicorn would die of the signal once more when it has stopped; here the exit status says which it was."""

    def __init__(self, config: uvicorn.Config, streams: StandingStreams, actions: SignalActions) -> None:
        super().__init__(config)
        self.stopped_by = 0
        self._streams = streams
        self._actions = actions
        self._stopping: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in STOP_SIGNALS:
                loop.remove_signal_handler(number)

    def _on_signal(self, number: int) -> None:
        """The first signal stops in order; the second leaves no time for running calls."""
        if number == signal.SIGHUP and self._actions.reload is not None:
            self._actions.reload()
            return
        _log.info("server.stopping", reason=signal.Signals(number).name)
        self.stopped_by = self.stopped_by or number
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._stop())
        else:
            self._stopping.cancel()
            self.force_exit = self.should_exit = True

    async def _stop(self) -> None:
        """The listener goes on while calls are drained: who comes meanwhile is told that the server stops."""
        self._streams.end()
        try:
            await self._actions.drain()
        finally:
            self.should_exit = True
