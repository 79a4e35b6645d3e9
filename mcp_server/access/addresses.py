"""Under which names this server may be asked: no web page may come in by a name of its own (DNS rebinding).

The check is always on, at every door but health; what is taken beside this machine's own names is said by flags.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus

from mcp.server.transport_security import TransportSecuritySettings
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from mcp_server.access.headers import header
from mcp_server.access.refusals import Refusal, refuse
from mcp_server.errors import SetupFailed

LOCAL_NAMES = frozenset(("localhost", "127.0.0.1", "[::1]"))
WILDCARD_HOSTS = frozenset(("0.0.0.0", "::", ""))  # noqa: S104  # named in order to ask for more
ANY_PORT = ":*"


@dataclass(frozen=True, slots=True)
class Addresses:
    """The values of Host and Origin that are taken; one that ends in ``:*`` stands for any port, or none."""

    hosts: frozenset[str]
    origins: frozenset[str]

    @classmethod
    def of(cls, host: str, allowed_hosts: Iterable[str] = (), allowed_origins: Iterable[str] = ()) -> Addresses:
        """For a server that listens at `host`, with what flags add. Raises SetupFailed for what is no such value."""
        names = {*LOCAL_NAMES, *([] if host in WILDCARD_HOSTS else [in_url(host)])}
        names |= {_checked_host(name) for name in allowed_hosts}
        hosts = frozenset(with_ports for name in names for with_ports in _ports(name))
        origins = {f"{scheme}://{name}" for name in hosts for scheme in ("http", "https")}
        return cls(hosts, frozenset(origins | {_checked_origin(origin) for origin in allowed_origins}))

    def take_host(self, host: str) -> bool:
        return _matches(host.lower(), self.hosts)

    def take_origin(self, origin: str) -> bool:
        return _matches(origin.lower(), self.origins)

    def transport_security(self) -> TransportSecuritySettings:
        """The same for the SDK's own check."""
        return TransportSecuritySettings(
            enable_dns_rebinding_protection=True,
            allowed_hosts=sorted(self.hosts),
            allowed_origins=sorted(self.origins),
        )

    def refusal(self, scope: Scope) -> Refusal | None:
        host, origin = header(scope, b"host") or "", header(scope, b"origin")
        if not self.take_host(host):
            return Refusal(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"This server is not asked under the name {host[:100]!r}. Where that name is its own, start it with "
                "--allowed-host.",
            )
        if origin is not None and not self.take_origin(origin):
            return Refusal(
                HTTPStatus.FORBIDDEN,
                f"Pages of {origin[:100]!r} may not use this server. Where they shall, start it with --allowed-origin.",
            )
        return None


class AddressCheck:
    """ASGI middleware: refuses foreign names before anything else is looked at, but for the paths in `open_to_all`."""

    def __init__(self, app: ASGIApp, addresses: Addresses, open_to_all: frozenset[str] = frozenset()) -> None:
        self._app = app
        self._addresses = addresses
        self._open_to_all = open_to_all

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and scope["path"] not in self._open_to_all:
            refusal = self._addresses.refusal(scope)
            if refusal is not None:
                await refuse(refusal, scope, receive, send)
                return
        await self._app(scope, receive, send)


def for_pages_of(origins: Iterable[str], app: ASGIApp) -> ASGIApp:
    """The application with the headers by which a browser lets pages of these origins read its answers (CORS)."""
    origins = list(origins)
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=["Mcp-Session-Id", "WWW-Authenticate"],
    )


@functools.lru_cache(maxsize=64)  # each request asks it of its sender
def is_loopback(host: str) -> bool:
    """Whether `host` is this machine alone, to listen at or as a sender; of a name (but localhost) nobody knows."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _matches(value: str, taken: frozenset[str]) -> bool:
    if value in taken:
        return True
    name, colon, port = value.rpartition(":")
    return bool(colon) and port.isdecimal() and name + ANY_PORT in taken


def _ports(name: str) -> tuple[str, ...]:
    """As it stands where it names a port, else with any port and with none."""
    tail = name.rpartition("]")[2]
    return (name,) if ":" in tail else (name, name + ANY_PORT)


def _checked_host(name: str) -> str:
    if not name or any(character in name for character in "/@ \t*") or "://" in name:
        raise SetupFailed(f"--allowed-host {name[:100]}: give a host name, or name:port, as clients send it.")
    return name.lower()


def _checked_origin(origin: str) -> str:
    scheme, separator, name = origin.lower().partition("://")
    if scheme not in ("http", "https") or not separator or not name or any(mark in name for mark in "/@ \t*"):
        raise SetupFailed(f"--allowed-origin {origin[:100]}: give scheme and host, as in https://app.example.org.")
    return origin.lower()
