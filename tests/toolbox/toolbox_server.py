"""Starting and ending `toolbox_process`, and short ways to its API."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from mcp_server.toolbox.client import CodeInterpreter
from mcp_server.toolbox.client_api import InterpreterApi

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

    def interpreter(self, sandbox_id: str = "") -> CodeInterpreter:
        """A client of a sandbox, of a new one where none is named."""
        address = self.toolbox(sandbox_id or self.create_sandbox())
        return CodeInterpreter(InterpreterApi(address, self.token), lambda: None)


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
