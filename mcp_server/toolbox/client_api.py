"""The toolbox of one sandbox, as calls: the thin layer that `CodeInterpreter` stands on, blocking."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, closing
from typing import Any, Self
from urllib.parse import quote

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from mcp_server.errors import CallerError, CodeInterpreterConnectionError, InternalError
from mcp_server.model import Outcome
from mcp_server.toolbox.client_address import Address, unreachable
from mcp_server.toolbox.client_sockets import MuxSockets, close_of, open_socket
from mcp_server.toolbox.client_transcript import status_error, toolbox_error
from mcp_server.toolbox.client_types import InterpreterContext
from mcp_server.toolbox.mux import INFO_PATH, SUBPROTOCOL, RunOrder
from mcp_server.toolbox.wire import (
    Close,
    ExecuteRequest,
    Frame,
    FrameMaker,
    encode_request,
    parse_frame,
    refusal,
)

CONTEXT_PATH = "process/interpreter/context"
EXECUTE_PATH = "process/interpreter/execute"


class InterpreterApi:
    """Calls one sandbox's toolbox. Connections are reused; `close` lets go of them. Safe to share between threads.

    ``base_url`` is the toolbox of a sandbox, ``http://host:port/toolbox/<sandbox id>``. Raises ToolboxError.
    Where the server offers our mux, runs go over its sockets, which are kept open between runs; ``mux=False`` makes
    each run open a socket of its own, as any toolbox server knows it.
    """

    def __init__(
        self, base_url: str, token: str | None = None, *, unix_socket: str | None = None, mux: bool = True
    ) -> None:
        self.address = Address.of(base_url, token, unix_socket)
        transport = httpx.HTTPTransport(uds=unix_socket) if unix_socket else None
        self._http = httpx.Client(transport=transport, **self.address.http_options())
        self._mux_offered: bool | None = None if mux else False
        self._sockets = MuxSockets(self.address.parent)

    @classmethod
    def at(cls, toolbox: Address, *, mux: bool = True) -> Self:
        return cls(toolbox.url, toolbox.token, unix_socket=toolbox.unix_socket or None, mux=mux)

    def move_to(self, toolbox: Address) -> None:
        """From now on, call another sandbox's toolbox, over the same Unix socket if it is one."""
        self.address = toolbox
        self._sockets.close()
        self._sockets = MuxSockets(toolbox.parent)

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
        if self._mux_offered is None:
            self._mux_offered = self._offers_mux()
        yield from self._execute_on_mux(request) if self._mux_offered else self._execute_plainly(request)

    def _execute_on_mux(self, request: ExecuteRequest) -> Generator[Frame | Close, None, None]:
        refused = refusal(request)
        if refused is not None:
            yield refused
            return
        frames = FrameMaker()
        order = RunOrder.of(self.address.name, request)
        try:
            with closing(self._sockets.run(order)) as events:
                for event in events:
                    yield from frames.of_outcome(event) if isinstance(event, Outcome) else frames.of_chunk(event)
        except (CallerError, InternalError) as error:
            raise toolbox_error(error) from error

    def _execute_plainly(self, request: ExecuteRequest) -> Generator[Frame | Close, None, None]:
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
        self._sockets.close()
        self._http.close()

    def _offers_mux(self) -> bool:
        address = self.address.parent.at(INFO_PATH)
        try:
            answer = self._http.get(address.url)
        except httpx.HTTPError as error:
            raise unreachable(address, error) from error
        return speaks_mux(answer)

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
        return stack.enter_context(open_socket(self.address.at(path)))


def speaks_mux(answer: httpx.Response) -> bool:
    """Whether the answer of ``x/info`` offers the mux. Other servers answer with an error, or with anything."""
    if not answer.is_success:
        return False
    try:
        info = answer.json()
    except ValueError:
        return False
    return isinstance(info, dict) and info.get("mux") == SUBPROTOCOL


def fields_of(answer: httpx.Response) -> dict[str, Any]:
    try:
        fields = answer.json()
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise CodeInterpreterConnectionError(f"{answer.url} answered with something else than a JSON object")
    return fields
