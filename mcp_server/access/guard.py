"""Asks who is calling, before any door: bearers of a token; without tokens, this machine's programs.

Whom it finds stands in the request's scope: the principal, by which contexts are owned, and the SDK's user, to whom it
binds the sessions of the older protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken, TokenVerifier
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from mcp_server.access.addresses import is_loopback
from mcp_server.access.issuer import IssuerSilent
from mcp_server.access.oauth import Resource
from mcp_server.access.refusals import Refusal, refuse
from mcp_server.access.tokens import TokenFile
from mcp_server.conversations import PRINCIPAL_KEY

ISSUER_RETRY_S = 10


@dataclass(frozen=True, slots=True)
class Access:
    """What is shown to be let in: a token of the file, or one that the resource's issuer gave. Neither: this machine.

    ``resource`` and ``verifier`` go together.
    """

    tokens: TokenFile | None = None
    resource: Resource | None = None
    verifier: TokenVerifier | None = None

    @property
    def needs_token(self) -> bool:
        return self.tokens is not None or self.verifier is not None

    async def user(self, scope: Scope) -> AccessToken | Refusal | None:
        """Who asks; None where that is not asked for."""
        if not self.needs_token:
            return None if _is_local(scope.get("client")) else _ONLY_HERE
        authorizations = Headers(scope=scope).getlist("authorization")
        kind, _, token = authorizations[0].partition(" ") if len(authorizations) == 1 else ("", "", "")
        token = token.strip()
        if kind.lower() != "bearer" or not token:
            return self._refusal(
                HTTPStatus.UNAUTHORIZED, "", "A token of this server's is needed: Authorization: Bearer …"
            )
        principal = self.tokens.principal(token) if self.tokens is not None else None
        if principal is not None:
            return AccessToken(token="", client_id=principal, scopes=[])
        return await self._user_of_issuer(token)

    async def _user_of_issuer(self, token: str) -> AccessToken | Refusal:
        try:
            found = await self.verifier.verify_token(token) if self.verifier is not None else None
        except IssuerSilent as error:
            return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, str(error), {"Retry-After": str(ISSUER_RETRY_S)})
        if found is None:
            return self._refusal(
                HTTPStatus.UNAUTHORIZED,
                "invalid_token",
                "The token is not known here, not for this server, or expired.",
            )
        missing = [scope for scope in self._scopes if scope not in found.scopes]
        if missing:
            return self._refusal(
                HTTPStatus.FORBIDDEN, "insufficient_scope", f"The token lacks the scope {' '.join(missing)}."
            )
        return found

    @property
    def _scopes(self) -> Sequence[str]:
        return self.resource.scopes if self.resource is not None else ()

    def _refusal(self, status: HTTPStatus, error: str, message: str) -> Refusal:
        """With the header that tells a client how to get what it lacks (RFC 6750, RFC 9728)."""
        facts = {"error": error, "error_description": message if error else "", "scope": " ".join(self._scopes)}
        if self.resource is not None:
            facts["resource_metadata"] = self.resource.metadata_url
        told = ", ".join(f'{name}="{value}"' for name, value in facts.items() if value)
        return Refusal(status, message, {"WWW-Authenticate": f"Bearer {told}".rstrip()}, error)


class Guard:
    """ASGI middleware: refuses whom `access` does not know, but for the paths in `open_to_all`."""

    def __init__(self, app: ASGIApp, access: Access, open_to_all: frozenset[str] = frozenset()) -> None:
        self._app = app
        self._access = access
        self._open_to_all = open_to_all

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and scope["path"] not in self._open_to_all:
            user = await self._access.user(scope)
            if isinstance(user, Refusal):
                await refuse(user, scope, receive, send)
                return
            scope[PRINCIPAL_KEY] = user.client_id if user is not None else ""
            if user is not None:
                scope["user"] = AuthenticatedUser(user)
        await self._app(scope, receive, send)


def principal_of(connection: HTTPConnection) -> str:
    """What `Guard` noted; empty without authentication."""
    return str(connection.scope[PRINCIPAL_KEY])


_ONLY_HERE = Refusal(
    HTTPStatus.FORBIDDEN, "Without authentication this server is for programs on its own machine alone."
)


def _is_local(client: object) -> bool:
    """Whether the peer is this machine; a peer on a Unix socket has no address."""
    if not isinstance(client, (tuple, list)) or not client or not client[0]:
        return True
    return is_loopback(client[0])
