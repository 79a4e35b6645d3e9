"""Starting and ending `toolbox_process`, and short ways to its API."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.types import ASGIApp

from mcp_server.access.guard import Access
from mcp_server.service import Service
from mcp_server.toolbox.client import CodeInterpreter
from mcp_server.toolbox.client_api import InterpreterApi
from mcp_server.toolbox.server import UVICORN_OPTIONS, toolbox_app, tune

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class ToolboxServer:
    """A running server. ``url`` is its root."""

    url: str
    process: subprocess.Popen[str]
    token: str = ""
    unix_socket: str = ""

    @property
    def api_url(self) -> str:
        return f"{self.url}/api"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def request(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return httpx.request(method, f"{self.url}{path}", json=body, headers=self.headers, trust_env=False, timeout=60)

    def create_sandbox(self, **wanted: Any) -> str:
        answer = self.request("POST", "/api/sandbox", wanted)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def toolbox(self, sandbox_id: str) -> str:
        return f"{self.url}/toolbox/{sandbox_id}"

    def interpreter(self, sandbox_id: str = "", *, mux: bool = True) -> CodeInterpreter:
        """A client of a sandbox, of a new one where none is named."""
        address = self.toolbox(sandbox_id or self.create_sandbox())
        return CodeInterpreter(InterpreterApi(address, self.token, mux=mux), lambda: None)


class ReadyServer(uvicorn.Server):
    """Says when it is ready."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@asynccontextmanager
async def serving_here(service: Service, access: Access | None = None) -> AsyncIterator[str]:
    """A server in this process and loop; its root. Connections that are open at the end are cut."""
    async with serving_app(toolbox_app(service, access)) as url:
        yield url


@asynccontextmanager
async def serving_app(app: ASGIApp) -> AsyncIterator[str]:
    config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1, lifespan="on", **UVICORN_OPTIONS)
    server = ReadyServer(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tune(listener)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        await server.ready.wait()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running


@contextmanager
def serving(state_dir: Path, *arguments: str, token: str = "", unix_socket: str = "") -> Iterator[ToolboxServer]:
    command = [sys.executable, "-m", "tests.toolbox.toolbox_process", str(state_dir), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        yield ToolboxServer(f"http://127.0.0.1:{port}", process, token, unix_socket)
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
