"""How much may be asked at once: requests in all and of each principal, the size of a body; nothing once it stops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_server.access.headers import header
from mcp_server.access.refusals import Refusal, refuse
from mcp_server.conversations import PRINCIPAL_KEY

BUSY_RETRY_S = 1
STOPPING_RETRY_S = 10


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """A WebSocket counts as one request for as long as it is open; so does a stream."""

    requests: int
    requests_per_principal: int
    body_bytes: int


class Admission:
    """ASGI middleware behind the guard. `on_limit` hears the name of each limit that turned a request away.

    The paths in `uncounted` are served however many requests there are.
    """

    def __init__(
        self, app: ASGIApp, limits: RequestLimits, on_limit: Callable[[str], None], uncounted: frozenset[str]
    ) -> None:
        self._app = app
        self._limits = limits
        self._on_limit = on_limit
        self._uncounted = uncounted
        self._of_principal: Counter[str] = Counter()
        self._stopping = False
        self.requests = 0

    def stop(self) -> None:
        """Take no request from now on; those that are on go on."""
        self._stopping = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refuse(refusal, scope, receive, send)
            return
        if scope["path"] in self._uncounted:
            await self._app(scope, receive, send)
            return
        principal = scope[PRINCIPAL_KEY]
        self.requests += 1
        self._of_principal[principal] += 1
        try:
            await self._app(scope, self._bounded(receive) if scope["type"] == "http" else receive, send)
        finally:
            self.requests -= 1
            self._of_principal[principal] -= 1
            if not self._of_principal[principal]:
                del self._of_principal[principal]

    def _refusal(self, scope: Scope) -> Refusal | None:
        limits = self._limits
        if self._stopping:
            return _busy(HTTPStatus.SERVICE_UNAVAILABLE, "The server is stopping.", STOPPING_RETRY_S, close=True)
        if scope["path"] in self._uncounted:
            return None
        if self.requests >= limits.requests:
            self._on_limit("requests")
            text = f"The server is serving {limits.requests:,} requests, the most it may. Try again in a moment."
            return _busy(HTTPStatus.SERVICE_UNAVAILABLE, text, BUSY_RETRY_S)
        principal = scope[PRINCIPAL_KEY]
        if principal and self._of_principal[principal] >= limits.requests_per_principal:
            self._on_limit("requests_per_principal")
            text = f"You have {limits.requests_per_principal:,} requests open, the most that one user may. "
            return _busy(HTTPStatus.TOO_MANY_REQUESTS, text + "Wait until some have ended.", BUSY_RETRY_S)
        length = header(scope, b"content-length") or ""
        if length.isdecimal() and int(length[:20]) > limits.body_bytes:
            self._on_limit("body_bytes")
            return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._too_large, {"Connection": "close"})
        return None

    def _bounded(self, receive: Receive) -> Receive:
        """For bodies that come in chunks and do not say their length: they are refused when they are over it."""
        received_bytes = 0

        async def receive_bounded() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > self._limits.body_bytes:
                self._on_limit("body_bytes")
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._too_large, {"Connection": "close"})
            return message

        return receive_bounded

    @property
    def _too_large(self) -> str:
        return (
            f"The body is over {self._limits.body_bytes:,} bytes, the most that one request may send. "
            "Send large data in several calls, or start the server with a larger --body-bytes."
        )


def _busy(status: HTTPStatus, message: str, retry_s: int, *, close: bool = False) -> Refusal:
    headers = {"Retry-After": str(retry_s), **({"Connection": "close"} if close else {})}
    return Refusal(status, message, headers)
