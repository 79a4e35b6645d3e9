"""The blocking client's own socket to servers on this machine, against servers of every kind."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from mcp_server.toolbox.client_address import Address
from mcp_server.toolbox.client_direct import DirectConnection, open_direct

MAX_BYTES = 100_000
WAIT_S = 20

Handler = Callable[[ServerConnection], None]
Answer = Callable[[ServerConnection, Request], Response | None]


@contextmanager
def serving(handler: Handler, answer: Answer | None = None) -> Iterator[Address]:
    with serve(handler, "127.0.0.1", 0, process_request=answer, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Address.of(f"http://127.0.0.1:{server.socket.getsockname()[1]}", "secret")
        server.shutdown()
        thread.join(WAIT_S)


@contextmanager
def connected(address: Address) -> Iterator[DirectConnection]:
    with open_direct(address, subprotocols=[Subprotocol("spoken")], max_size=MAX_BYTES) as connection:
        yield connection


def no_words(connection: ServerConnection) -> None:
    connection.recv()


def test_messages_come_whole_however_they_were_sent() -> None:
    answered: list[bool] = []

    def handler(connection: ServerConnection) -> None:
        assert connection.recv() == b"go"
        connection.send([b"in ", b"three ", b"parts"])
        pong = connection.ping()
        connection.send(b"x" * MAX_BYTES)
        connection.send(b"")
        answered.append(pong.wait(WAIT_S))
        assert connection.recv() == b"done"

    with serving(handler) as address, connected(address) as connection:
        assert connection.usable
        connection.send(b"go")
        assert [connection.recv() for _ in range(3)] == [b"in three parts", b"x" * MAX_BYTES, b""]
        connection.send(b"done")
    assert answered == [True]


def test_the_token_is_shown_and_a_refusal_is_told() -> None:
    shown: list[str] = []

    def answer(connection: ServerConnection, request: Request) -> Response:
        shown.append(request.headers["Authorization"])
        return connection.respond(HTTPStatus.FORBIDDEN, "not you")

    with serving(no_words, answer) as address:
        with pytest.raises(InvalidStatus) as refused, connected(address):
            pass
        assert refused.value.response.status_code == HTTPStatus.FORBIDDEN
        assert refused.value.response.body == b"not you"
    assert shown == ["Bearer secret"]


@pytest.mark.parametrize("goodbye", ["said", "unsaid"])
def test_a_socket_whose_server_has_gone_is_not_used_again(goodbye: str) -> None:
    gone = threading.Event()

    def handler(connection: ServerConnection) -> None:
        connection.recv()
        if goodbye == "said":
            connection.protocol.send_close(1012)
            for data in connection.protocol.data_to_send():
                connection.socket.sendall(data)
        else:
            connection.socket.shutdown(socket.SHUT_RDWR)
        gone.set()

    with serving(handler) as address, connected(address) as connection:
        connection.send(b"go")
        assert gone.wait(WAIT_S)
        assert not connection.usable
        with pytest.raises(ConnectionClosed):
            connection.recv()
        with pytest.raises(ConnectionClosed):
            connection.send(b"more")
        assert not connection.usable


def test_a_message_over_the_cap_ends_the_connection() -> None:
    def handler(connection: ServerConnection) -> None:
        connection.send(b"x" * (MAX_BYTES + 1))
        with pytest.raises(ConnectionClosed):
            connection.recv()

    with serving(handler) as address, connected(address) as connection, pytest.raises(ConnectionClosed) as closed:
        connection.recv()
    assert closed.value.sent is not None
    assert closed.value.sent.code == 1009


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-server\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\n\r\n"])
def test_what_is_no_websocket_server_is_told(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(65_536)
                client.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        address = Address.of(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(InvalidHandshake) as refused, connected(address):
            pass
        thread.join(WAIT_S)
    assert isinstance(refused.value, InvalidMessage) == (not said.startswith(b"HTTP"))


def test_where_nobody_listens_the_reason_is_the_systems() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address.of(f"http://127.0.0.1:{listener.getsockname()[1]}")
    with pytest.raises(ConnectionRefusedError), connected(address):
        pass
