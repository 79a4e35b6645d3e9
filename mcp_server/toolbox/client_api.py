"""The toolbox of one sandbox, as calls: the thin layer that `CodeInterpreter` stands on, blocking."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack
from typing import Any, Self
from urllib.parse import quote

import httpx
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect, unix_connect

from mcp_server.errors import CodeInterpreterConnectionError
from mcp_server.toolbox.client_address import Address, keep_alive, unreachable
from mcp_server.toolbox.client_transcript import status_error
from mcp_server.toolbox.client_types import InterpreterContext
from mcp_server.toolbox.wire import Close, ExecuteRequest, Frame, encode_request, parse_frame

CONTEXT_PATH = "process/interpreter/context"
EXECUTE_PATH = "process/interpreter/execute"


class InterpreterApi:
    """Calls one sandbox's toolbox. Connections are reused; `close` lets go of them. Safe to share between threads.

    ``base_url`` is the toolbox of a sandbox, ``http://host:port/toolbox/<sandbox id>``. Raises ToolboxError.
    """

    def __init__(self, base_url: str, token: str | None = None, *, unix_socket: str | None = None) -> None:
        self.address = Address.of(base_url, token, unix_socket)
        transport = httpx.HTTPTransport(uds=unix_socket) if unix_socket else None
        self._http = httpx.Client(transport=transport, **self.address.http_options())

    @classmethod
    def at(cls, toolbox: Address) -> Self:
        return cls(toolbox.url, toolbox.token, unix_socket=toolbox.unix_socket or None)

    def create_interpreter_context(self, cwd: str | None = None) -> InterpreterContext:
        body = {"cwd": cwd} if cwd else {}
        return InterpreterContext.model_validate(self._request("POST", CONTEXT_PATH, body))

    def list_interpreter_contexts(self) -> list[InterpreterContext]:
        contexts = self._request("GET", CONTEXT_PATH).get("contexts") or []
        return [InterpreterContext.model_validate(context) for context in contexts]

    def delete_interpreter_context(self, context_id: str) -> None:
        self._request("DELETE", f"{CONTEXT_PATH}/{quote(context_id, safe='')}")

    def execute_interpreter_code(self, request: ExecuteRequest) -> Generator[Frame | Close, None, None]:
        """The frames of one run as they come, and its closing frame last. Closing the generator stops the code."""
        with ExitStack() as stack:
            connection = self._open(EXECUTE_PATH, stack)
            try:
                connection.send(encode_request(request))
                while True:
                    frame = parse_frame(connection.recv())
                    if frame is not None:
                        yield frame
            except ConnectionClosed as closed:
                yield close_of(closed)

    def close(self) -> None:
        self._http.close()

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        address = self.address.at(path)
        try:
            answer = self._http.request(method, address.url, json=body)
        except httpx.HTTPError as error:
            raise unreachable(address, error) from error
        if not answer.is_success:
            raise status_error(answer.status_code, answer.content)
        return fields_of(answer)

    def _open(self, path: str, stack: ExitStack) -> ClientConnection:
        address = self.address.at(path)
        options = address.socket_options()
        try:
            if address.unix_socket:
                opening = unix_connect(address.unix_socket, address.socket_url, **options)
            else:
                opening = connect(address.socket_url, **options)
            connection: ClientConnection = stack.enter_context(opening)
        except (OSError, InvalidHandshake) as error:
            raise handshake_error(address, error) from error
        keep_alive(connection.socket)
        return connection


def fields_of(answer: httpx.Response) -> dict[str, Any]:
    try:
        fields = answer.json()
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise CodeInterpreterConnectionError(f"{answer.url} answered with something else than a JSON object")
    return fields


def handshake_error(address: Address, error: OSError | InvalidHandshake) -> Exception:
    """Why a socket could not be opened, by the server's answer where there was one."""
    if isinstance(error, InvalidStatus):
        return status_error(error.response.status_code, bytes(error.response.body or b""))
    return unreachable(address, error)


def close_of(closed: ConnectionClosed) -> Close:
    """The closing frame that the server sent; 1006 where the connection was lost without one."""
    if closed.rcvd is None:
        return Close(1006, "the connection to the server was lost")
    return Close(closed.rcvd.code, closed.rcvd.reason)
