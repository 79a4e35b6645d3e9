"""Serves the ASGI application with uvicorn, on a socket that is bound before anything is started."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn
from starlette.applications import Starlette

from mcp_server.errors import SetupFailed

GRACE_S = 5.0
"""How long running calls may go on after the first signal; then they are cancelled, which interrupts their code."""

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


async def serve(app: Starlette, listener: socket.socket, url: str) -> int:
    """Serve until a signal comes. Gives the exit status."""
    config = uvicorn.Config(
        app,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=int(GRACE_S),
    )
    server = _Listener(config)
    _log.info("server.listening", url=url)
    await server.serve([listener])
    return 128 + server.stopped_by if server.stopped_by else 0


class _Listener(uvicorn.Server):
    """uvicorn would die of the signal once more when it has stopped; here the exit status says which it was."""

    stopped_by = 0

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _stop(self, number: int) -> None:
        """The first signal stops in order; the second leaves no time for running calls."""
        _log.info("server.stopping", reason=signal.Signals(number).name)
        self.force_exit = self.should_exit
        self.should_exit = True
        self.stopped_by = self.stopped_by or number
