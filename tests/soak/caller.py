"""One client of the soak: MCP over HTTP by hand, in either era, so that it can also hang up and be rude."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import httpx
from mcp_types.version import LATEST_MODERN_VERSION

OLDER_VERSION = "2025-06-18"

RECORD_KEY = "code-interpreter/run"


class Era(StrEnum):
    """Of the protocol: with a handshake and sessions, or without."""

    OLDER = "older"
    NEWEST = "newest"


class NotAnswered(AssertionError):
    """A call that should have been answered was not, or not with a result."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a call. ``text`` is all that the client was sent, so that no output of others can hide in it."""

    content: str
    record: Mapping[str, Any]
    is_error: bool
    text: str

    @property
    def status(self) -> str:
        return str(self.record.get("status", "refused"))


class Caller:
    """Calls tools for one conversation. `bound_s` is the longest that any call may take."""

    def __init__(self, url: str, conversation: str, era: Era, bound_s: float) -> None:
        self.conversation = conversation
        self.era = era
        self._url = url
        self._bound_s = bound_s
        self._ids = itertools.count(1)
        self._session: dict[str, str] = {}
        # Reading the system's certificates takes longer than most calls, and there is no TLS here.
        self._http = httpx.AsyncClient(timeout=bound_s, trust_env=False, verify=False)

    async def open(self) -> None:
        if self.era is Era.NEWEST:
            return
        client = {"name": "soak", "version": "1"}
        params = {"protocolVersion": OLDER_VERSION, "capabilities": {}, "clientInfo": client}
        response = await self._post("initialize", params)
        self._session = {"Mcp-Session-Id": response.headers["mcp-session-id"]}
        await self._notify("notifications/initialized", {})

    async def close(self) -> None:
        if self._session:
            await self._http.delete(self._url, headers=self._headers("", ""))
        await self._http.aclose()

    async def call(self, tool: str, **arguments: object) -> Answer:
        """Raises NotAnswered where no result comes in time."""
        async with asyncio.timeout(self._bound_s), self._calling(tool, arguments) as (_, lines):
            async for message in lines:
                if "method" not in message:
                    return _answer(message)
        raise NotAnswered(f"{tool} {arguments}: the stream ended without an answer")

    async def cancel(self, after_line: str, **arguments: object) -> None:
        """Cancel a run as its era does once its output shows `after_line`; return when the server let the call go."""
        async with asyncio.timeout(self._bound_s), self._calling("run_code", arguments) as (request_id, lines):
            async for message in lines:
                if message.get("params", {}).get("message") == after_line:
                    if self.era is Era.NEWEST:
                        return  # closing the stream says it
                    await self._notify("notifications/cancelled", {"requestId": request_id})
                elif "method" not in message:
                    return

    async def hang_up(self, after_s: float, **arguments: object) -> None:
        """Send a call, and drop the connection a moment later, whatever has come by then."""
        twin = self._twin()
        with suppress(TimeoutError, httpx.HTTPError):
            async with asyncio.timeout(after_s), twin._calling("run_code", arguments) as (_, lines):
                async for _ in lines:
                    pass
        await twin._http.aclose()

    def _twin(self) -> Caller:
        """The same client with connections of its own."""
        twin = Caller(self._url, self.conversation, self.era, self._bound_s)
        twin._session, twin._ids = self._session, self._ids
        return twin

    async def end_conversation(self) -> None:
        url = self._url.removesuffix("/mcp") + f"/conversations/{self.conversation}"
        response = await self._http.delete(url)
        if response.status_code != 204:
            raise NotAnswered(f"DELETE of the conversation: {response.status_code}")

    # -- the wire ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _calling(
        self, tool: str, arguments: Mapping[str, object]
    ) -> AsyncIterator[tuple[int, AsyncIterator[dict[str, Any]]]]:
        request_id = next(self._ids)
        meta: dict[str, object] = {"progressToken": request_id, **self._about()}
        params = {"name": tool, "arguments": arguments, "_meta": meta}
        message = {"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}
        headers = self._headers("tools/call", tool)
        if "context_id" in arguments:
            headers["Mcp-Param-Context-Id"] = str(arguments["context_id"])
        async with self._http.stream("POST", self._url, json=message, headers=headers) as response:
            if response.status_code != 200:
                await response.aread()
                raise NotAnswered(f"{tool}: HTTP {response.status_code} {response.text[:200]}")
            yield request_id, _messages(response)

    async def _post(self, method: str, params: Mapping[str, object]) -> httpx.Response:
        message = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        return await self._http.post(self._url, json=message, headers=self._headers(method, ""))

    async def _notify(self, method: str, params: Mapping[str, object]) -> None:
        message = {"jsonrpc": "2.0", "method": method, "params": params}
        response = await self._http.post(self._url, json=message, headers=self._headers(method, ""))
        if response.status_code >= 400:
            raise NotAnswered(f"{method}: HTTP {response.status_code} {response.text[:200]}")

    def _headers(self, method: str, name: str) -> dict[str, str]:
        headers = {
            "Accept": "application/json, text/event-stream",
            "X-Conversation-Id": self.conversation,
            **self._session,
        }
        if self.era is Era.NEWEST:
            headers |= {"MCP-Protocol-Version": LATEST_MODERN_VERSION, "Mcp-Method": method, "Mcp-Name": name}
        return headers

    def _about(self) -> dict[str, object]:
        if self.era is Era.OLDER:
            return {}
        return {
            "io.modelcontextprotocol/protocolVersion": LATEST_MODERN_VERSION,
            "io.modelcontextprotocol/clientCapabilities": {},
        }


async def _messages(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    if response.headers["content-type"].startswith("application/json"):
        yield json.loads(await response.aread())
        return
    async for line in response.aiter_lines():
        if line.startswith("data:") and line[5:].strip():
            yield json.loads(line[5:])


def _answer(message: Mapping[str, Any]) -> Answer:
    if "result" not in message:
        raise NotAnswered(f"an error of the protocol: {str(message.get('error'))[:300]}")
    result = message["result"]
    content = "\n".join(block["text"] for block in result["content"] if block["type"] == "text")
    record = result.get("_meta", {}).get(RECORD_KEY, {})
    return Answer(content, record, bool(result.get("isError")), json.dumps(message))
