"""The toolbox of one sandbox, as calls: the thin layer that `AsyncCodeInterpreter` stands on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Any, Self
from urllib.parse import quote

import httpx
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from mcp_server.errors import CallerError, InternalError
from mcp_server.model import Outcome
from mcp_server.toolbox.client_address import Address, keep_alive, unreachable
from mcp_server.toolbox.client_api import CONTEXT_PATH, EXECUTE_PATH, fields_of, speaks_mux
from mcp_server.toolbox.client_mux import MuxClient
from mcp_server.toolbox.client_sockets import close_of, handshake_error
from mcp_server.toolbox.client_transcript import status_error, toolbox_error
from mcp_server.toolbox.client_types import InterpreterContext
from mcp_server.toolbox.mux import INFO_PATH, RunOrder
from mcp_server.toolbox.wire import Close, ExecuteRequest, Frame, FrameMaker, encode_request, parse_frame, refusal


class AsyncInterpreterApi:
    """`InterpreterApi` for asyncio; all runs share one socket of the mux. Belongs to one event loop."""

    def __init__(
        self, base_url: str, token: str | None = None, *, unix_socket: str | None = None, mux: bool = True
    ) -> None:
        self.address = Address.of(base_url, token, unix_socket)
        transport = httpx.AsyncHTTPTransport(uds=unix_socket) if unix_socket else None
        self._http = httpx.AsyncClient(transport=transport, **self.address.http_options())
        self._mux_offered: bool | None = None if mux else False
        self._mux: MuxClient | None = None
        self._opening = asyncio.Lock()

    @classmethod
    def at(cls, toolbox: Address, *, mux: bool = True) -> Self:
        return cls(toolbox.url, toolbox.token, unix_socket=toolbox.unix_socket or None, mux=mux)

    async def move_to(self, toolbox: Address) -> None:
        """From now on, call another sandbox's toolbox, over the same Unix socket if it is one."""
        self.address = toolbox
        mux, self._mux = self._mux, None
        if mux is not None:
            await mux.close()

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
        if self._mux_offered is None:
            self._mux_offered = await self._offers_mux()
        execute = self._execute_on_mux if self._mux_offered else self._execute_plainly
        async with aclosing(execute(request)) as events:
            async for event in events:
                yield event

    async def _execute_on_mux(self, request: ExecuteRequest) -> AsyncGenerator[Frame | Close, None]:
        refused = refusal(request)
        if refused is not None:
            yield refused
            return
        frames = FrameMaker()
        mux = await self._usable_mux()
        try:
            run = await mux.begin_run(RunOrder.of(self.address.name, request))
            async with aclosing(mux.events(run)) as events:
                async for event in events:
                    made = frames.of_outcome(event) if isinstance(event, Outcome) else frames.of_chunk(event)
                    for frame in made:
                        yield frame
        except (CallerError, InternalError) as error:
            raise toolbox_error(error) from error

    async def _execute_plainly(self, request: ExecuteRequest) -> AsyncGenerator[Frame | Close, None]:
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
        if self._mux is not None:
            await self._mux.close()
        await self._http.aclose()

    async def _usable_mux(self) -> MuxClient:
        async with self._opening:
            if self._mux is None or not self._mux.usable:
                if self._mux is not None:
                    await self._mux.close()
                self._mux = MuxClient(self.address.parent)
                await self._mux.open()
            return self._mux

    async def _offers_mux(self) -> bool:
        address = self.address.parent.at(INFO_PATH)
        try:
            answer = await self._http.get(address.url)
        except httpx.HTTPError as error:
            raise unreachable(address, error) from error
        return speaks_mux(answer)

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
