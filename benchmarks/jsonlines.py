"""MCP by hand over a process's pipes: nothing of a client's own is in the figures."""

from __future__ import annotations

import json
import subprocess
from typing import IO, Any, cast

RECORD_KEY = "code-interpreter/run"


class JsonLines:
    """Speaks the protocol with the handshake; one call at a time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._to = cast("IO[bytes]", process.stdin)
        self._from = cast("IO[bytes]", process.stdout)
        self._asked = 0

    def shake_hands(self) -> None:
        who = {"name": "bench", "version": "1"}
        self._ask("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": who})
        self._send(method="notifications/initialized")

    def call(self, tool: str, arguments: dict[str, object]) -> dict[str, Any]:
        """The result of a tool call. Raises where it is an error."""
        result = self._ask("tools/call", {"name": tool, "arguments": arguments})
        if result.get("isError"):
            raise RuntimeError(f"{tool}: {result}")
        return result

    def run_code(self, code: str, **arguments: object) -> dict[str, Any]:
        """The machine record of the run."""
        record: dict[str, Any] = self.call("run_code", {"code": code, **arguments})["_meta"][RECORD_KEY]
        return record

    def _ask(self, method: str, params: dict[str, object]) -> dict[str, Any]:
        self._asked += 1
        self._send(id=self._asked, method=method, params=params)
        while line := self._from.readline():
            answer = json.loads(line)
            if answer.get("id") == self._asked:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
        raise RuntimeError(f"{method}: the server ended")

    def _send(self, **message: object) -> None:
        self._to.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self._to.flush()
