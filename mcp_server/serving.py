"""What `serve` runs: the HTTP doors over one service, where they listen, and who may use them."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.routing import Route
from starlette.types import ASGIApp

from mcp_server import http_server, waiting
from mcp_server.access.addresses import (
    WILDCARD_HOSTS,
    AddressCheck,
    Addresses,
    for_pages_of,
    in_url,
    is_loopback,
)
from mcp_server.access.admission import Admission, RequestLimits
from mcp_server.access.guard import Access, Guard
from mcp_server.access.issuer import Issuer
from mcp_server.access.oauth import JwtVerifier, Resource
from mcp_server.access.tokens import TokenFile
from mcp_server.app import HEALTH_PATH, MCP_PATH, build_asgi, build_server
from mcp_server.composition import EngineChoice, chosen_engine, service_over, texts_for
from mcp_server.conversation_door import conversation_routes
from mcp_server.errors import SetupFailed
from mcp_server.service import Service
from mcp_server.settings import Settings
from mcp_server.toolbox import server as toolbox_server
from mcp_server.toolbox.server_parent import remove_private_socket, watch
from mcp_server.unix_socket import listening_at

if TYPE_CHECKING:
    from mcp_server.metrics import PrometheusMetrics


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: at ``host`` and ``port``, at ``unix_socket``, or on a socket bound by ``parent``, whom this
    server ends with. ``allowed_hosts`` and ``allowed_origins`` are the names that it has beside its own.
    """

    host: str = "127.0.0.1"
    port: int = 0
    unix_socket: Path | None = None
    listener_fd: int | None = None
    parent: int | None = None
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()

    @property
    def reaches_others(self) -> bool:
        """Whether other machines may be able to come in."""
        return self.unix_socket is None and self.listener_fd is None and not is_loopback(self.host)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What callers show: a token of the file ``tokens``, one of the issuer's for ``resource``, or nothing."""

    tokens: Path | None = None
    issuer: str = ""
    resource: str = ""
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HttpPlan:
    """What the flags of `serve` ask for, beside the settings."""

    address: Address
    credentials: Credentials = Credentials()
    toolbox: bool = False
    metrics: bool = False


async def serve(settings: Settings, choice: EngineChoice, plan: HttpPlan) -> int:
    """Serve until a signal comes. Gives the exit status; raises SetupFailed."""
    access = await _access(plan.credentials)
    addresses = _addresses(plan.address, access)
    metrics = _metrics() if plan.metrics else None
    with _listener(plan.address) as listener:
        toolbox_server.tune(listener)
        if plan.address.parent is not None:
            watch(plan.address.parent, lambda: _end_with_parent(listener))
        engine, warmth = chosen_engine(settings, choice)
        service = service_over(engine, settings, [metrics] if metrics is not None else [])
        try:
            with waiting.shown(waiting.STARTING):
                await service.start()
            server = build_server(service, settings, texts_for(service, settings, warmth()))
            doors = conversation_routes(service)
            doors += toolbox_server.routes(service, for_pages=access.needs_token) if plan.toolbox else []
            metadata = access.resource.routes() if access.resource is not None else []
            figures = [metrics.route()] if metrics is not None else []
            asgi = build_asgi(server, addresses, settings, [*doors, *metadata, *figures])
            admission, app = _behind_access(asgi, access, addresses, metadata, service, settings)
            if metrics is not None:
                metrics.watch("contexts", "Contexts that are alive.", lambda: service.load[0])
                metrics.watch("contexts_limit", "Contexts that there may be.", lambda: service.load[1])
                metrics.watch("http_requests_open", "Requests and streams that are on.", lambda: admission.requests)

            async def drain() -> None:
                admission.stop()
                await service.drain(settings.stop_grace_s)

            actions = http_server.SignalActions(drain, access.tokens.reload if access.tokens is not None else None)
            app = for_pages_of(plan.address.allowed_origins, app)
            url = _url(plan.address, listener) + MCP_PATH
            return await http_server.serve(app, listener, url, actions, **toolbox_server.UVICORN_OPTIONS)
        finally:
            await service.close()


def _metrics() -> PrometheusMetrics:
    try:
        from mcp_server.metrics import PrometheusMetrics
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        raise SetupFailed("--metrics needs prometheus_client: pip install 'mcp-code-interpreter[metrics]'.") from None
    return PrometheusMetrics()


def _behind_access(
    asgi: ASGIApp,
    access: Access,
    addresses: Addresses,
    metadata: Sequence[Route],
    service: Service,
    settings: Settings,
) -> tuple[Admission, ASGIApp]:
    """The application as it is asked from outside: by which name, by whom, how much; and what counts the requests."""
    open_to_all = frozenset((HEALTH_PATH, *(route.path for route in metadata)))
    limits = RequestLimits(settings.requests, settings.requests_per_principal, settings.body_bytes)
    admission = Admission(asgi, limits, service.observer.request_refused, open_to_all)
    return admission, AddressCheck(Guard(admission, access, open_to_all), addresses, open_to_all)


async def _access(credentials: Credentials) -> Access:
    """Raises SetupFailed for a file that cannot be trusted and for an issuer that does not answer."""
    tokens = TokenFile(credentials.tokens) if credentials.tokens is not None else None
    if not credentials.issuer and not credentials.resource:
        if credentials.scopes:
            raise SetupFailed("--oauth-scope needs --oauth-issuer and --oauth-resource.")
        return Access(tokens)
    if not credentials.issuer or not credentials.resource:
        raise SetupFailed(
            "--oauth-issuer and --oauth-resource go together: whose tokens are taken, and the address of this server's "
            f"{MCP_PATH} as clients know it."
        )
    resource = Resource(credentials.issuer, credentials.resource, credentials.scopes)
    resource.routes()
    issuer = Issuer(credentials.issuer)
    await issuer.start()
    return Access(tokens, resource, JwtVerifier(resource, issuer))


def _addresses(address: Address, access: Access) -> Addresses:
    """Raises SetupFailed where the server would be open to all, or would turn everybody away."""
    allowed = address.allowed_hosts
    if access.resource is not None:
        allowed += (access.resource.host,)
    if address.reaches_others:
        if not access.needs_token:
            raise SetupFailed(
                f"--host {address.host}: without authentication, whoever reaches this address could run code here. "
                "Give --tokens or --oauth-issuer, or let a proxy that authenticates forward to 127.0.0.1."
            )
        if address.host in WILDCARD_HOSTS and not allowed:
            raise SetupFailed(
                f"--host {address.host}: under which name do clients ask this server? Give it as --allowed-host."
            )
    return Addresses.of(address.host, allowed, address.allowed_origins)


def _end_with_parent(listener: socket.socket) -> None:
    remove_private_socket(listener)
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _listener(address: Address) -> Iterator[socket.socket]:
    if address.unix_socket is not None:
        with listening_at(address.unix_socket) as listener:
            yield listener
        return
    if address.listener_fd is None:
        with http_server.bind(address.host, address.port) as listener:
            yield listener
        return
    try:
        inherited = socket.socket(fileno=address.listener_fd)
    except OSError as error:
        raise SetupFailed(f"--listener-fd {address.listener_fd} is no socket: {error.strerror}.") from None
    with inherited:
        yield inherited


def _url(address: Address, listener: socket.socket) -> str:
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}:"
    return f"http://{in_url(address.host)}:{listener.getsockname()[1]}"
