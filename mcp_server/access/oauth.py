"""Bearers of access tokens: this server as an OAuth 2.1 resource server.

Tokens are JWTs (RFC 9068), signed by the issuer and meant for this server: their audience is its own address (RFC
8707). Which authorization server clients shall go to, they learn from the metadata of the resource (RFC 9728), which
every refusal names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import jwt
from mcp.server.auth.provider import AccessToken, TokenVerifier
from mcp.server.auth.routes import build_resource_metadata_url, create_protected_resource_routes
from pydantic import AnyHttpUrl, ConfigDict, TypeAdapter, ValidationError
from starlette.routing import Route

from mcp_server.access.issuer import ALGORITHMS, Issuer
from mcp_server.errors import SetupFailed

LEEWAY_S = 30.0
"""How far the clocks of the two servers may be apart."""

MAX_SUBJECT_CHARS = 128
"""A longer subject is known by its digest."""

_URL = TypeAdapter(AnyHttpUrl, config=ConfigDict(url_preserve_empty_path=True))
"""Issuers are compared as text: a slash must not be added to one."""


@dataclass(frozen=True, slots=True)
class Resource:
    """This server as its authorization server knows it. ``url`` is its public address, and the audience of tokens.

    ``scopes`` are those that every token must have.
    """

    issuer: str
    url: str
    scopes: tuple[str, ...] = ()

    @property
    def metadata_url(self) -> str:
        return str(build_resource_metadata_url(_parsed(self.url)))

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    def routes(self) -> list[Route]:
        """The metadata, at the place that RFC 9728 gives it. Raises SetupFailed where an address is none."""
        return create_protected_resource_routes(
            resource_url=_parsed(self.url),
            authorization_servers=[_parsed(self.issuer)],
            scopes_supported=list(self.scopes) or None,
        )


class JwtVerifier(TokenVerifier):
    """Says whose an access token is."""

    def __init__(self, resource: Resource, issuer: Issuer) -> None:
        self._resource = resource
        self._issuer = issuer
        self._audiences = {resource.url, resource.url.rstrip("/")}

    async def verify_token(self, token: str) -> AccessToken | None:
        """None where it is not valid here and now. Raises IssuerSilent where that cannot be told."""
        try:
            header = jwt.get_unverified_header(token)
            algorithm, key_id = header.get("alg"), header.get("kid")
            if not isinstance(algorithm, str) or algorithm not in ALGORITHMS or not isinstance(key_id, str | None):
                return None
            key = await self._issuer.key(key_id, algorithm)
            if key is None:
                return None
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                issuer=self._issuer.url,
                audience=self._audiences,
                leeway=LEEWAY_S,
                options={"require": ["iss", "aud", "exp", "sub"]},
            )
        except (jwt.PyJWTError, ValueError, RecursionError):
            return None
        return AccessToken(
            token="",  # nobody after this has any use for it
            client_id=principal_of_subject(claims["sub"]),
            scopes=_scopes(claims),
            expires_at=int(claims["exp"]),
            resource=self._resource.url,
            subject=claims["sub"],
            claims={"iss": claims["iss"]},
        )


def principal_of_subject(subject: str) -> str:
    """The colon keeps it apart from every name of a token file."""
    if len(subject) > MAX_SUBJECT_CHARS:
        subject = "sha256-" + hashlib.sha256(subject.encode("utf-8", "surrogatepass")).hexdigest()
    return f"oauth:{subject}"


def _scopes(claims: Mapping[str, Any]) -> list[str]:
    """`scope` is RFC 9068's, in one text; `scp` is what some servers send, as a text or a list."""
    value = claims.get("scope", claims.get("scp", ""))
    scopes = value.split() if isinstance(value, str) else value
    return [scope for scope in scopes if isinstance(scope, str)] if isinstance(scopes, list) else []


def _parsed(url: str) -> AnyHttpUrl:
    try:
        parsed = _URL.validate_python(url)
    except ValidationError:
        raise SetupFailed(f"{url[:200]} is no http or https address.") from None
    if parsed.fragment or parsed.query:
        raise SetupFailed(f"{url[:200]}: the address of a resource or issuer has no query and no fragment.")
    return parsed
