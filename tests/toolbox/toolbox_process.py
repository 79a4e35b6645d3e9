"""A toolbox server in a process of its own, over the local engine: what the tests here speak to.

    python -m tests.toolbox.toolbox_process STATE_DIR [--tokens FILE] [--unix-socket PATH] [--port PORT]

prints its port once it is ready, and ends when its stdin does.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import sys
from pathlib import Path

import structlog
import uvicorn

from mcp_server.access.guard import Access
from mcp_server.access.tokens import TokenFile
from mcp_server.engine.local import LocalEngine
from mcp_server.model import EngineCapabilities
from mcp_server.sandbox.cell import Cell
from mcp_server.sandbox.policy import CellPlan
from mcp_server.service import Service
from mcp_server.toolbox.server import UVICORN_OPTIONS, toolbox_app, tune


class AnnouncingServer(uvicorn.Server):
    """Says its port when it is ready, and ends with stdin."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        os.set_blocking(sys.stdin.fileno(), False)
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._on_stdin)
        for bound in sockets or []:
            print(bound.getsockname()[1] if bound.family == socket.AF_INET else 0, flush=True)

    def _on_stdin(self) -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self.should_exit = True


def listener(unix_socket: str, port: int) -> socket.socket:
    if unix_socket:
        made = socket.socket(socket.AF_UNIX)
        made.bind(unix_socket)
    else:
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("127.0.0.1", port))
    tune(made)
    return made


async def serve(arguments: argparse.Namespace) -> None:
    plan = CellPlan(python=sys.executable, state_dir=arguments.state_dir)
    engine = LocalEngine(lambda: Cell(plan), EngineCapabilities("local", plan.tier))
    access = Access(TokenFile(Path(arguments.tokens))) if arguments.tokens else Access()
    app = toolbox_app(Service(engine), access)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2, **UVICORN_OPTIONS)
    await AnnouncingServer(config).serve(sockets=[listener(arguments.unix_socket, arguments.port)])


if __name__ == "__main__":
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    parser = argparse.ArgumentParser()
    parser.add_argument("state_dir")
    parser.add_argument("--tokens", default="")
    parser.add_argument("--unix-socket", default="")
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(serve(parser.parse_args()))
