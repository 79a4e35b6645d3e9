"""A WebSocket to a server on this machine, blocking, and read in the thread that waits for it.

The library's blocking connection reads in a thread of its own, so that each message wakes two. It stays for servers
elsewhere: it knows proxies and TLS.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.frames import DATA_OPCODES, Frame
from websockets.protocol import Event, State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from mcp_server.toolbox.client_address import OPEN_TIMEOUT_S, Address

CLOSE_TIMEOUT_S = 5.0

_READ_BYTES = 256 * 1024


class Messages:
    """Frames in, whole messages out: a sender, or a proxy on the way, may cut a message into several."""

    def __init__(self) -> None:
        self._begun: list[bytes | bytearray | memoryview] = []

    def add(self, event: Event) -> bytes | None:
        """The message that an event completes; None for one that completes none, or is about none."""
        if not isinstance(event, Frame) or event.opcode not in DATA_OPCODES:
            return None
        self._begun.append(event.data)
        if not event.fin:
            return None
        message = b"".join(self._begun)
        self._begun.clear()
        return message


class DirectConnection:
    """An open socket. To be used by one thread at a time."""

    def __init__(self, sock: socket.socket, protocol: ClientProtocol) -> None:
        self._socket = sock
        self._silence = select.poll()
        self._silence.register(sock, select.POLLIN)
        self._protocol = protocol
        self._parts = Messages()
        self._messages: deque[bytes] = deque()

    @property
    def usable(self) -> bool:
        """Whether it is open and silent: while the server owes no answer, all that it can say is its end."""
        if self._protocol.state is not State.OPEN or self._messages:
            return False
        return not self._silence.poll(0)

    def shake_hands(self, headers: dict[str, str]) -> None:
        """Open it. Raises InvalidHandshake, with what the server answered, and OSError."""
        request = self._protocol.connect()
        request.headers.update(headers)
        self._protocol.send_request(request)
        self._flush()
        while self._protocol.state is State.CONNECTING and self._protocol.handshake_exc is None:
            self._read()
        if self._protocol.handshake_exc is not None:
            raise self._protocol.handshake_exc
        self._socket.settimeout(None)

    def send(self, data: bytes) -> None:
        """Raises ConnectionClosed."""
        if self._protocol.state is State.OPEN:
            try:
                self._protocol.send_binary(data)
                self._flush()
            except OSError:
                self._end()
            else:
                return
        self.close()
        raise self._protocol.close_exc

    def recv(self) -> bytes:
        """Wait for the next message. Raises ConnectionClosed."""
        while not self._messages:
            if self._protocol.state is State.CLOSED:
                raise self._protocol.close_exc
            self._read()
        return self._messages.popleft()

    def close(self) -> None:
        """Say good-bye, and wait a little for the answer. Idempotent."""
        with self._socket, suppress(OSError):
            self._socket.settimeout(CLOSE_TIMEOUT_S)
            if self._protocol.state is State.OPEN:
                self._protocol.send_close(1000)
                self._flush()
            while self._protocol.state is State.CLOSING:
                self._read()
        self._end()

    def _read(self) -> None:
        """Take in what comes next, the end too."""
        try:
            data = self._socket.recv(_READ_BYTES)
        except ConnectionResetError:
            data = b""
        if not data:
            self._end()
            return
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            message = self._parts.add(event)
            if message is not None:
                self._messages.append(message)
        self._flush()

    def _end(self) -> None:
        """Nothing comes any more."""
        if self._protocol.state is not State.CLOSED:
            self._protocol.receive_eof()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._socket.sendall(data)
            else:
                with suppress(OSError):  # the other side has gone already
                    self._socket.shutdown(socket.SHUT_WR)


@contextmanager
def open_direct(address: Address, *, subprotocols: list[Subprotocol], max_size: int) -> Iterator[DirectConnection]:
    """A connection, closed at the end. Raises OSError and InvalidHandshake."""
    protocol = ClientProtocol(parse_uri(address.socket_url), subprotocols=subprotocols, max_size=max_size)
    connection = DirectConnection(_connected(address), protocol)
    try:
        connection.shake_hands(address.headers)
        yield connection
    finally:
        connection.close()


def _connected(address: Address) -> socket.socket:
    if address.unix_socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(OPEN_TIMEOUT_S)
        try:
            sock.connect(address.unix_socket)
        except OSError:
            sock.close()
            raise
        return sock
    parts = urlsplit(address.url)
    sock = socket.create_connection((parts.hostname or "", parts.port or 80), OPEN_TIMEOUT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
