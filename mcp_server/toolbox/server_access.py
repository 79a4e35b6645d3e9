"""Who may use the toolbox: bearers of a token; without tokens, this machine alone and never a browser.

A page in a browser can open a WebSocket to any address and name any host for it (DNS rebinding), which is why without
tokens a request with an Origin, or for a host name other than this machine's, is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from mcp_server.conversations import PRINCIPAL_KEY
from mcp_server.errors import SetupFailed
from mcp_server.toolbox.server_errors import error_response

LOCAL_HOSTS = frozenset(("localhost", "127.0.0.1", "::1"))

MIN_TOKEN_CHARS = 16
"""A shorter one can be guessed by trying."""

REFUSED_TIMEOUT_S = 1.0

PRINCIPAL_CHARS = 16
"""64 bits of a token's digest name its bearer in logs and owners without giving the token away."""


class Access:
    """The tokens, kept as digests, so that comparing them takes no telling time. None at all: this machine alone."""

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        self._digests = frozenset(_digest(token) for token in tokens)

    @classmethod
    def from_file(cls, path: Path) -> Access:
        """One token a line; empty lines and lines that begin with # count for nothing. Raises SetupFailed."""
        try:
            with path.open(encoding="utf-8") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                lines = [line.strip() for line in file]
        except (OSError, UnicodeDecodeError) as error:
            raise SetupFailed(f"The token file {path} cannot be read: {error}.") from error
        if mode & 0o077:
            raise SetupFailed(f"The token file {path} can be read by others (mode {mode:04o}). Run: chmod 600 {path}")
        tokens = [line for line in lines if line and not line.startswith("#")]
        if not tokens:
            raise SetupFailed(f"The token file {path} holds no token. Write one into it, a line of its own.")
        if any(len(token) < MIN_TOKEN_CHARS for token in tokens):
            raise SetupFailed(f"The token file {path} holds a token of fewer than {MIN_TOKEN_CHARS} characters.")
        return cls(tokens)

    @property
    def needs_token(self) -> bool:
        return bool(self._digests)

    def principal(self, scope: Scope) -> str | None:
        """Who asks: a name that stands for the token, empty without authentication; None: nobody who may."""
        headers = Headers(scope=scope)
        if self.needs_token:
            kind, _, token = headers.get("authorization", "").partition(" ")
            digest = _digest(token.strip())
            known = kind.lower() == "bearer" and digest in self._digests
            return f"token-{digest[:PRINCIPAL_CHARS]}" if known else None
        local = _is_local(scope.get("client")) and _names_this_machine(headers.get("host", ""))
        return "" if local and "origin" not in headers else None


class Guard:
    """ASGI middleware: refuses whom `access` does not know, and notes the principal of others in the scope."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        principal = self._access.principal(scope)
        if principal is None:
            await refuse(scope, receive, send, *self._refusal())
            return
        scope[PRINCIPAL_KEY] = principal
        await self._app(scope, receive, send)

    def _refusal(self) -> tuple[HTTPStatus, str]:
        if self._access.needs_token:
            return HTTPStatus.UNAUTHORIZED, "A token of this server's is needed: Authorization: Bearer …"
        return HTTPStatus.FORBIDDEN, "Without a token file this server is for programs on its own machine alone."


def guarded(app: ASGIApp, access: Access) -> ASGIApp:
    """The whole application behind the tokens, where there are any, but for asking whether it lives."""
    guard = Guard(app, access)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        open_to_all = scope["type"] == "http" and scope["path"] == "/healthz"
        await (app if open_to_all or not access.needs_token else guard)(scope, receive, send)

    return answer


def principal_of(connection: HTTPConnection) -> str:
    """What `Guard` noted."""
    return str(connection.scope[PRINCIPAL_KEY])


async def refuse(scope: Scope, receive: Receive, send: Send, status: HTTPStatus, message: str) -> None:
    """Answer with an error, be it a request or the opening of a WebSocket."""
    if scope["type"] == "websocket":
        socket = WebSocket(scope, receive, send)
        await socket.receive()  # its opening
        await socket.send_denial_response(error_response(socket, status, message))
        await _until_lost(receive)
        return
    response: Response = error_response(Request(scope), status, message)
    if status is HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    await response(scope, receive, send)


async def _until_lost(receive: Receive) -> None:
    """Wait for a refused connection to go: uvicorn logs an error where an application returns before that.

    Its first word of the end comes with the refusal, its second with the end.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(REFUSED_TIMEOUT_S):
            await receive()
            await receive()


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _is_local(client: object) -> bool:
    """Whether the peer is this machine; a peer on a Unix socket has no address."""
    if not isinstance(client, tuple | list) or not client or not client[0]:
        return True
    try:
        return ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False


def _names_this_machine(host: str) -> bool:
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    return name.lower() in LOCAL_HOSTS
