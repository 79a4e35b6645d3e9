"""The toolbox of one sandbox, as calls: the thin layer that `AsyncCodeInterpreter` stands on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any, Self
from urllib.parse import quote

import httpx
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from mcp_server.toolbox.client_address import Address, keep_alive, unreachable
from mcp_server.toolbox.client_api import CONTEXT_PATH, EXECUTE_PATH, close_of, fields_of, handshake_error
from mcp_server.toolbox.client_transcript import status_error
from mcp_server.toolbox.client_types import InterpreterContext
from mcp_server.toolbox.wire import Close, ExecuteRequest, Frame, encode_request, parse_frame


class AsyncInterpreterApi:
    """`InterpreterApi` for asyncio. Belongs to one event loop."""

    def __init__(self, base_url: str, token: str | None = None, *, unix_socket: str | None = None) -> None:
        self.address = Address.of(base_url, token, unix_socket)
        transport = httpx.AsyncHTTPTransport(uds=unix_socket) if unix_socket else None
        self._http = httpx.AsyncClient(transport=transport, **self.address.http_options())

    @classmethod
    def at(cls, toolbox: Address) -> Self:
        return cls(toolbox.url, toolbox.token, unix_socket=toolbox.unix_socket or None)

    async def create_interpreter_context(self, cwd: str | None = None) -> InterpreterContext:
        body = {"cwd": cwd} if cwd else {}
        return InterpreterContext.model_validate(await self._request("POST", CONTEXT_PATH, body))

    async def list_interpreter_contexts(self) -> list[InterpreterContext]:
        contexts = (await self._request("GET", CONTEXT_PATH)).get("contexts") or []
        return [InterpreterContext.model_validate(context) for context in contexts]

    async def delete_interpreter_context(self, context_id: str) -> None:
        await self._request("DELETE", f"{CONTEXT_PATH}/{quote(context_id, safe='')}")

    async def execute_interpreter_code(self, request: ExecuteRequest) -> AsyncGenerator[Frame | Close, None]:
        """The frames of one run as they come, and its closing frame last. Closing the generator stops the code."""
        async with AsyncExitStack() as stack:
            connection = await self._open(EXECUTE_PATH, stack)
            try:
                await connection.send(encode_request(request))
                while True:
                    frame = parse_frame(await connection.recv())
                    if frame is not None:
                        yield frame
            except ConnectionClosed as closed:
                yield close_of(closed)

    async def close(self) -> None:
        await self._http.aclose()

    async def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        address = self.address.at(path)
        try:
            answer = await self._http.request(method, address.url, json=body)
        except httpx.HTTPError as error:
            raise unreachable(address, error) from error
        if not answer.is_success:
            raise status_error(answer.status_code, answer.content)
        return fields_of(answer)

    async def _open(self, path: str, stack: AsyncExitStack) -> ClientConnection:
        address = self.address.at(path)
        options = address.socket_options()
        try:
            if address.unix_socket:
                opening = unix_connect(address.unix_socket, address.socket_url, **options)
            else:
                opening = connect(address.socket_url, **options)
            connection = await stack.enter_async_context(opening)
        except (OSError, InvalidHandshake) as error:
            raise handshake_error(address, error) from error
        keep_alive(connection.transport.get_extra_info("socket"))
        return connection
