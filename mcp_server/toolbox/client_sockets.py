"""Opening a toolbox's sockets, blocking; and those of the mux, kept open between runs."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.protocol import State
from websockets.sync.client import ClientConnection, connect, unix_connect

from mcp_server.errors import EngineUnavailable, ToolboxError
from mcp_server.model import Chunk, Outcome
from mcp_server.toolbox.client_address import Address, keep_alive, unreachable
from mcp_server.toolbox.client_direct import open_direct
from mcp_server.toolbox.client_transcript import status_error
from mcp_server.toolbox.mux import (
    GRANT_BYTES,
    LOST,
    MUX_OPTIONS,
    MUX_PATH,
    Kind,
    Message,
    RunOrder,
    chunk_of,
    cost,
    decode,
    encode,
    failure_of,
    outcome_of,
)
from mcp_server.toolbox.wire import Close


@contextmanager
def open_socket(address: Address, **options: Any) -> Iterator[ClientConnection]:
    """A connection, closed at the end. Raises ToolboxError with what the server answered."""
    options = address.socket_options() | options
    with ExitStack() as stack:
        try:
            if address.unix_socket:
                opening = unix_connect(address.unix_socket, address.socket_url, **options)
            else:
                opening = connect(address.socket_url, **options)
            connection: ClientConnection = stack.enter_context(opening)
        except (OSError, InvalidHandshake) as error:
            raise handshake_error(address, error) from error
        keep_alive(connection.socket)
        yield connection


class MuxSockets:
    """Sockets of the mux that a blocking client keeps: each serves one run at a time, then waits for the next.

    Safe to share between threads.
    """

    def __init__(self, toolboxes: Address) -> None:
        self._address = toolboxes.at(MUX_PATH)
        self._idle: list[_MuxSocket] = []

    def run(self, order: RunOrder) -> Generator[Chunk | Outcome, None, None]:
        """The chunks of a run as they come, and its outcome last; closing the generator early stops the run.

        Raises what a FAILED tells, EngineUnavailable where the connection is lost, ToolboxError where none is made.
        """
        socket = self._take()
        try:
            yield from socket.run(order)
        finally:
            if socket.answered:
                self._idle.append(socket)
            else:
                socket.close()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> _MuxSocket:
        while self._idle:
            socket = self._idle.pop()
            if socket.usable:
                return socket
            socket.close()
        return _MuxSocket(self._address)


class _Connection(Protocol):
    """What a mux needs of its socket."""

    @property
    def usable(self) -> bool:
        """Whether it is open, as far as can be known."""

    def send(self, data: bytes) -> None:
        """Raises ConnectionClosed."""

    def recv(self) -> bytes | str:
        """Wait for the next message. Raises ConnectionClosed."""


class _DistantConnection:
    """The library's own."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.send = connection.send
        self.recv = connection.recv

    @property
    def usable(self) -> bool:
        return self._connection.protocol.state is State.OPEN


@contextmanager
def _open_mux(address: Address) -> Iterator[_Connection]:
    if not address.direct or address.url.startswith("https:"):
        with open_socket(address, **MUX_OPTIONS) as distant:
            yield _DistantConnection(distant)
        return
    with ExitStack() as stack:
        try:
            direct = stack.enter_context(open_direct(address, **MUX_OPTIONS))
        except (OSError, InvalidHandshake) as error:
            raise handshake_error(address, error) from error
        yield direct


class _MuxSocket:
    """One socket, with at most one call open at a time."""

    def __init__(self, address: Address) -> None:
        self._opened: AbstractContextManager[_Connection] = _open_mux(address)
        self._connection = self._opened.__enter__()
        self._call = 0
        self.answered = True

    @property
    def usable(self) -> bool:
        """Whether another run can begin here, of one that waits for it."""
        return self._connection.usable

    def run(self, order: RunOrder) -> Generator[Chunk | Outcome, None, None]:
        self._call += 1
        self.answered = False
        taken_bytes = 0
        try:
            self._connection.send(encode(order.message(self._call)))
            while not self.answered:
                message = decode(self._connection.recv())
                self.answered = message.kind in (Kind.END, Kind.FAILED)
                if message.kind is Kind.FAILED:
                    raise failure_of(message.header, order.context_id)
                if message.kind is Kind.END:
                    yield outcome_of(message.header)
                    return
                yield chunk_of(message)
                taken_bytes += cost(message)
                if taken_bytes >= GRANT_BYTES:
                    self._connection.send(encode(Message(Kind.CREDIT, self._call, {"bytes": taken_bytes})))
                    taken_bytes = 0
        except ConnectionClosed as closed:
            raise EngineUnavailable(LOST) from closed

    def close(self) -> None:
        """Hang up, which stops a run that is on."""
        self._opened.__exit__(None, None, None)


def handshake_error(address: Address, error: OSError | InvalidHandshake) -> ToolboxError:
    """Why a socket could not be opened, by the server's answer where there was one."""
    if isinstance(error, InvalidStatus):
        return status_error(error.response.status_code, bytes(error.response.body or b""))
    return unreachable(address, error)


def close_of(closed: ConnectionClosed) -> Close:
    """The closing frame that the server sent; 1006 where the connection was lost without one."""
    if closed.rcvd is None:
        return Close(1006, "the connection to the server was lost")
    return Close(closed.rcvd.code, closed.rcvd.reason)
