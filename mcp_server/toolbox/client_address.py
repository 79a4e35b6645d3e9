"""Where a toolbox is, and how it is opened: over TCP or a Unix socket, with or without a token."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from mcp_server.errors import CodeInterpreterConnectionError, CodeInterpreterValidationError

OPEN_TIMEOUT_S = 30.0
"""For a connection to be made, and for the server to accept it."""

REQUEST_TIMEOUT_S = 120.0
"""For an answer over HTTP; making a context includes starting an interpreter, on a cold server a slow one."""

_LOCAL = frozenset(("localhost", "127.0.0.1", "::1"))


@dataclass(frozen=True, slots=True)
class Address:
    """`url` is ``http(s)://host[:port]/path``; over a `unix_socket` its host is only a name."""

    url: str
    token: str = ""
    unix_socket: str = ""

    @classmethod
    def of(cls, url: str, token: str | None = None, unix_socket: str | None = None) -> Address:
        """Raises CodeInterpreterValidationError for what is no http address."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise CodeInterpreterValidationError(f"{url[:200]!r} is no address: give http://host:port or https://host.")
        return cls(url.rstrip("/"), token or "", unix_socket or "")

    def at(self, path: str) -> Address:
        """The address of what is below it."""
        return Address(f"{self.url}/{path}", self.token, self.unix_socket)

    @property
    def parent(self) -> Address:
        """The address that it is directly below."""
        return Address(self.url.rpartition("/")[0], self.token, self.unix_socket)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.url.rpartition("/")[2]

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    @property
    def direct(self) -> bool:
        """Whether it is on this machine, where no proxy has any business."""
        return bool(self.unix_socket) or urlsplit(self.url).hostname in _LOCAL

    @property
    def socket_url(self) -> str:
        return "ws" + self.url.removeprefix("http")

    def http_options(self) -> dict[str, Any]:
        """For httpx clients, but for the transport of a Unix socket."""
        return {
            "headers": self.headers,
            "timeout": httpx.Timeout(REQUEST_TIMEOUT_S, connect=OPEN_TIMEOUT_S),
            "trust_env": not self.direct,
        }

    def socket_options(self) -> dict[str, Any]:
        """For the websockets library. A client that pings would give up a server whose reader is slow: itself."""
        return {
            "additional_headers": self.headers,
            "compression": None,
            "ping_interval": None,
            "open_timeout": OPEN_TIMEOUT_S,
            "close_timeout": 5.0,
            "proxy": None if self.direct else True,
        }


def keep_alive(connection: socket.socket | None) -> None:
    """Have TCP probe a connection that is silent while code runs, so that a lost server is noticed."""
    if connection is not None and connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def unreachable(address: Address, error: Exception) -> CodeInterpreterConnectionError:
    where = address.unix_socket or address.url
    return CodeInterpreterConnectionError(f"no connection to {where}: {error or type(error).__name__}")
