"""MCP requests over HTTP made by hand, for what the SDK's client never sends."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
from mcp_types.version import LATEST_MODERN_VERSION

from tests.mcp.server_processes import BOUND_S, ServerProcess


class RawSession:
    """A client of the older protocol with a session of its own, or of the newest, which has none."""

    def __init__(self, server: ServerProcess, *, modern: bool = False, token: str = "") -> None:
        self._url = server.url
        self._modern = modern
        self._http = httpx.Client(timeout=BOUND_S)
        self._credentials = {"Authorization": f"Bearer {token}"} if token else {}
        self._session: dict[str, str] = {}

    def __enter__(self) -> RawSession:
        if not self._modern:
            params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
            message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
            response = self._http.post(self._url, json=message, headers=self._headers("initialize", ""))
            self._session = {"Mcp-Session-Id": response.headers["mcp-session-id"]}
            note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
            self._http.post(self._url, json=note, headers=self._headers("", ""))
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def post(self, tool: str, arguments: Mapping[str, object], more: dict[str, str] | None = None) -> httpx.Response:
        headers = httpx.Headers({**self._headers("tools/call", tool), **(more or {})}, encoding="latin-1")
        return self._http.post(self._url, json=self._call(tool, arguments), headers=headers)

    def call_streaming(self, tool: str, arguments: Mapping[str, object]) -> StreamedCall:
        headers = self._headers("tools/call", tool)
        if "context_id" in arguments:
            headers["Mcp-Param-Context-Id"] = str(arguments["context_id"])
        return StreamedCall(self._http, self._url, self._call(tool, arguments), headers)

    def wait_for(self, lines: Iterator[str], message: str) -> None:
        """Read the stream until a progress notification with this message."""
        for line in lines:
            if line.startswith("data:") and json.loads(line[5:]).get("params", {}).get("message") == message:
                return
        raise AssertionError(f"the stream ended before {message!r}")

    def delete(self) -> int:
        with httpx.Client(timeout=BOUND_S) as other:
            return other.delete(self._url, headers=self._headers("", "")).status_code

    def _headers(self, method: str, name: str) -> dict[str, str]:
        headers = {"Accept": "application/json, text/event-stream", **self._credentials, **self._session}
        if self._modern:
            headers |= {"MCP-Protocol-Version": LATEST_MODERN_VERSION, "Mcp-Method": method, "Mcp-Name": name}
        return headers

    def _call(self, tool: str, arguments: Mapping[str, object]) -> dict[str, object]:
        meta: dict[str, object] = {"progressToken": "p"}
        if self._modern:
            meta["io.modelcontextprotocol/protocolVersion"] = LATEST_MODERN_VERSION
            meta["io.modelcontextprotocol/clientCapabilities"] = {}
        params = {"name": tool, "arguments": arguments, "_meta": meta}
        return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


def answer_of(text: str) -> dict[str, Any]:
    """The JSON-RPC answer, be it the whole body or the last event of a stream."""
    answer: dict[str, Any] = json.loads(text[text.rindex('{"jsonrpc"') :].splitlines()[0])
    return answer


class StreamedCall:
    """A call whose response is read line by line, and whose connection is closed with the block."""

    def __init__(self, http: httpx.Client, url: str, message: dict[str, object], headers: dict[str, str]) -> None:
        self._stream = http.stream("POST", url, json=message, headers=headers)

    def __enter__(self) -> Iterator[str]:
        response = self._stream.__enter__()
        assert response.status_code == 200, response.read()
        return response.iter_lines()

    def __exit__(self, *exc: object) -> None:
        self._stream.__exit__(None, None, None)
