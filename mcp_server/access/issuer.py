"""An authorization server: what it says of itself, and the keys with which it signs.

Metadata is looked for where RFC 8414 and OpenID Connect Discovery put it, and must name the very issuer that was asked.
Keys are kept for `KEYS_FRESH_S`. A token that names a key which is not among them has them fetched anew, so that
rotating keys needs nothing done here, but not more often than every `REFETCH_S`: anybody can name keys that do not
exist.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import jwt
import structlog

from mcp_server.access.addresses import is_loopback
from mcp_server.errors import InternalError, SetupFailed

ALGORITHMS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        **{f"{family}{bits}": ("RSA", "") for family in ("RS", "PS") for bits in (256, 384, 512)},
        "ES256": ("EC", "P-256"),
        "ES384": ("EC", "P-384"),
        "ES512": ("EC", "P-521"),
        "EdDSA": ("OKP", "Ed25519"),
    }
)
"""Signatures that are taken, with the type and the curve of their keys: public keys alone, so no HS…, and no `none`."""

KEYS_FRESH_S = 3600.0
KEYS_STALE_S = 86_400.0
"""How long known keys hold where the issuer cannot be reached: an outage there need not be one here."""

REFETCH_S = 5.0
FETCH_TIMEOUT_S = 10.0
MAX_DOCUMENT_BYTES = 1024 * 1024

_log = structlog.get_logger(__name__)


class IssuerSilent(InternalError):
    """The authorization server does not answer, or not with what it should; no token can be checked."""


class Issuer:
    """One authorization server, named by its issuer URL. `clock` counts seconds."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        _refuse_open_line(url)
        self.url = url
        self._clock = clock
        self._keys: list[Mapping[str, Any]] = []
        self._jwks_uri = ""
        self._fetched_s = self._asked_s = float("-inf")
        self._fetching = asyncio.Lock()

    async def start(self) -> None:
        """Find the metadata and the keys. Raises SetupFailed with the reason."""
        try:
            await self._fetch()
        except IssuerSilent as error:
            raise SetupFailed(f"--oauth-issuer {self.url}: {error}") from None

    async def key(self, key_id: str | None, algorithm: str) -> jwt.PyJWK | None:
        """The key of that id, or without an id the only one that fits; None where there is none.

        Raises IssuerSilent where no keys are known, or only ones that are too old.
        """
        if self._clock() - self._fetched_s > KEYS_FRESH_S:
            await self._refetch()
        if self._clock() - self._fetched_s > KEYS_STALE_S:
            raise IssuerSilent("The authorization server cannot be reached. Try again later.")
        found = self._find(key_id, algorithm)
        if found is None and await self._refetch():
            found = self._find(key_id, algorithm)
        return jwt.PyJWK(dict(found), algorithm) if found is not None else None

    def _find(self, key_id: str | None, algorithm: str) -> Mapping[str, Any] | None:
        fitting = [key for key in self._keys if _fits(key, algorithm)]
        if key_id is None:
            return fitting[0] if len(fitting) == 1 else None
        return next((key for key in fitting if key.get("kid") == key_id), None)

    async def _refetch(self) -> bool:
        """Fetch the keys unless that was tried just now; whether there may be new ones."""
        before = self._fetched_s
        async with self._fetching:
            if self._fetched_s == before and self._clock() - self._asked_s >= REFETCH_S:
                try:
                    await self._fetch()
                except IssuerSilent as error:
                    _log.warning("issuer.silent", issuer=self.url, reason=str(error))
        return self._fetched_s != before

    async def _fetch(self) -> None:
        self._asked_s = self._clock()
        async with httpx.AsyncClient(timeout=FETCH_TIMEOUT_S) as http:
            if not self._jwks_uri:
                self._jwks_uri = await self._discover(http)
            document = await _document(http, self._jwks_uri)
        keys = document.get("keys")
        if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
            raise IssuerSilent(f"{self._jwks_uri} is no set of keys.")
        self._keys = [key for key in keys if any(_readable(key, algorithm) for algorithm in ALGORITHMS)]
        self._fetched_s = self._clock()
        _log.info("issuer.keys", issuer=self.url, keys=len(self._keys))

    async def _discover(self, http: httpx.AsyncClient) -> str:
        trouble = ""
        for address in well_known(self.url):
            try:
                metadata = await _document(http, address)
            except IssuerSilent as error:
                trouble = trouble or str(error)
                continue
            if metadata.get("issuer") != self.url:
                named = str(metadata.get("issuer"))[:200]
                raise IssuerSilent(f"{address} is of the issuer {named!r}. Write it as it is written there.")
            uri = metadata.get("jwks_uri")
            if not isinstance(uri, str):
                raise IssuerSilent(f"{address} names no jwks_uri, and tokens are checked by the keys there.")
            _refuse_open_line(uri)
            return uri
        raise IssuerSilent(trouble)


def well_known(issuer: str) -> Iterator[str]:
    """Where an issuer's metadata may be: RFC 8414 puts it before the path, OpenID Connect after it."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    for place in (
        f"/.well-known/oauth-authorization-server{path}",
        f"{path}/.well-known/openid-configuration",
        f"/.well-known/openid-configuration{path}",
    ):
        yield urlunsplit((parts.scheme, parts.netloc, place, "", ""))


async def _document(http: httpx.AsyncClient, address: str) -> Mapping[str, Any]:
    data = bytearray()
    try:
        async with http.stream("GET", address, headers={"Accept": "application/json"}) as response:
            if response.status_code != httpx.codes.OK:
                raise IssuerSilent(f"{address} answers with status {response.status_code}.")
            async for part in response.aiter_bytes():
                data += part
                if len(data) > MAX_DOCUMENT_BYTES:
                    raise IssuerSilent(f"{address} is over {MAX_DOCUMENT_BYTES:,} bytes.")
        document = json.loads(data)
    except httpx.HTTPError as error:
        raise IssuerSilent(f"{address} cannot be reached: {error or type(error).__name__}.") from None
    except (ValueError, RecursionError):
        raise IssuerSilent(f"{address} is no JSON.") from None
    if not isinstance(document, dict):
        raise IssuerSilent(f"{address} is no JSON object.")
    return document


def _fits(key: Mapping[str, Any], algorithm: str) -> bool:
    kind, curve = ALGORITHMS[algorithm]
    return (
        key.get("kty") == kind
        and key.get("crv", "") == curve
        and key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) == algorithm
    )


def _readable(key: Mapping[str, Any], algorithm: str) -> bool:
    """Whether it is a key of that algorithm, and whole."""
    if not _fits(key, algorithm):
        return False
    try:
        jwt.PyJWK(dict(key), algorithm)
    except jwt.PyJWTError:
        return False
    return True


def _refuse_open_line(url: str) -> None:
    """Keys that travelled in the clear could be anybody's."""
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.netloc:
        return
    if parts.scheme != "http" or not is_loopback(parts.hostname or ""):
        raise SetupFailed(f"{url}: an authorization server is reached by https://, or by http:// on this machine.")
