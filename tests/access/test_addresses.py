"""Under which names the server is asked, and where it may listen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse

from mcp_server.access.addresses import Addresses, for_pages_of
from mcp_server.composition import EngineChoice
from mcp_server.errors import SetupFailed
from mcp_server.serving import Address, Credentials, HttpPlan, serve
from mcp_server.settings import Settings
from tests.mcp.server_processes import failed_start


def scope(host: str, origin: str | None = None) -> dict[str, Any]:
    headers = [(b"host", host.encode())] if host else []
    return {"type": "http", "headers": [*headers, *([(b"origin", origin.encode())] if origin is not None else [])]}


def status(addresses: Addresses, host: str, origin: str | None = None) -> int:
    refusal = addresses.refusal(scope(host, origin))
    return refusal.status if refusal is not None else 200


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST", "[::1]"])
def test_this_machines_own_names_are_taken_with_any_port(host: str) -> None:
    assert status(Addresses.of("127.0.0.1"), host) == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost.evil.example", "", "[::2]:80", "localhost:80:80", "[::1"]
)
def test_no_other_name_leads_here(host: str) -> None:
    assert status(Addresses.of("127.0.0.1"), host) == 421


@pytest.mark.parametrize("allowed", ["code.example.org", "CODE.example.org"])
def test_an_allowed_host_is_taken_with_any_port(allowed: str) -> None:
    addresses = Addresses.of("0.0.0.0", [allowed])
    assert status(addresses, "code.example.org") == status(addresses, "code.example.org:8443") == 200
    assert status(addresses, "code.example.org.evil.example") == 421
    assert status(addresses, "0.0.0.0:80") == 421


def test_an_allowed_host_with_a_port_is_taken_with_that_alone() -> None:
    addresses = Addresses.of("127.0.0.1", ["code.example.org:8443"])
    assert status(addresses, "code.example.org:8443") == 200
    assert status(addresses, "code.example.org") == status(addresses, "code.example.org:80") == 421


def test_pages_come_in_from_allowed_origins_alone() -> None:
    addresses = Addresses.of("127.0.0.1", (), ["https://app.example.org"])
    assert status(addresses, "localhost", "https://app.example.org") == 200
    assert status(addresses, "localhost", "http://localhost:5173") == 200
    for origin in (
        "http://app.example.org",
        "https://app.example.org.evil.example",
        "https://evil.example",
        "null",
        "",
    ):
        assert status(addresses, "localhost", origin) == 403


@pytest.mark.anyio
async def test_a_browser_lets_pages_of_allowed_origins_alone_read_what_is_answered() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("hello")(scope, receive, send)

    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,mcp-session-id"}
    allowed = "https://app.example.org"
    for origin in (allowed, "null", "https://evil.example"):
        transport = httpx.ASGITransport(for_pages_of([allowed], app))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            before = await client.options("/mcp", headers={"Origin": origin, **asked})
            answer = await client.get("/mcp", headers={"Origin": origin})
        granted = allowed if origin == allowed else None
        assert before.headers.get("access-control-allow-origin") == granted
        assert answer.headers.get("access-control-allow-origin") == granted
        assert (before.status_code == 200) is (origin == allowed)
        if granted:
            assert "authorization" in before.headers["access-control-allow-headers"].lower()
            assert "mcp-session-id" in answer.headers["access-control-expose-headers"].lower()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "0.0.0.0"])
def test_the_sdks_own_check_is_always_on_and_holds_to_the_same_names(host: str) -> None:
    addresses = Addresses.of(host, ["code.example.org"], ["https://app.example.org"])
    security = addresses.transport_security()
    assert security.enable_dns_rebinding_protection is True
    assert "code.example.org:*" in security.allowed_hosts
    assert "https://app.example.org" in security.allowed_origins
    assert not any("*" in name.removesuffix(":*") for name in security.allowed_hosts + security.allowed_origins)


@pytest.mark.parametrize("host", ["", "*", "https://code.example.org", "code.example.org/mcp", "a b"])
def test_an_allowed_host_that_is_none_is_told(host: str) -> None:
    with pytest.raises(SetupFailed, match="--allowed-host"):
        Addresses.of("127.0.0.1", [host])


@pytest.mark.parametrize("origin", ["", "*", "null", "app.example.org", "https://app.example.org/", "ftp://x"])
def test_an_allowed_origin_that_is_none_is_told(origin: str) -> None:
    with pytest.raises(SetupFailed, match="--allowed-origin"):
        Addresses.of("127.0.0.1", (), [origin])


def test_a_server_that_would_be_open_to_all_does_not_start() -> None:
    line = failed_start("serve", "--host", "0.0.0.0")
    assert "--host 0.0.0.0: without authentication, whoever reaches this address could run code here." in line


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["192.0.2.1", "::", "example.com", ""])
async def test_without_authentication_nothing_but_this_machine_is_listened_at(host: str) -> None:
    with pytest.raises(SetupFailed, match="without authentication"):
        await serve(Settings(), EngineChoice(), HttpPlan(Address(host)))


@pytest.mark.anyio
async def test_who_listens_at_every_address_says_under_which_name(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.touch(0o600)
    tokens.write_text("ann 0123456789abcdef\n")
    with pytest.raises(SetupFailed, match="--allowed-host"):
        await serve(Settings(), EngineChoice(), HttpPlan(Address("0.0.0.0"), Credentials(tokens)))
