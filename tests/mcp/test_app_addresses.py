"""Which addresses are listened on, and which names are answered to."""

from __future__ import annotations

import pytest

from mcp_server.app import refuse_public_address, transport_security
from mcp_server.errors import SetupFailed


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_alone_may_be_listened_on(host: str) -> None:
    refuse_public_address(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.5", "8.8.8.8", "example.org", "localhost.example.org", ""]
)
def test_whatever_others_can_reach_is_refused_with_what_to_do(host: str) -> None:
    with pytest.raises(SetupFailed, match=r"without authentication, .* Listen on 127\.0\.0\.1"):
        refuse_public_address(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_the_check_of_names_is_always_on_and_takes_this_machines_alone(host: str) -> None:
    security = transport_security(host)
    assert security.enable_dns_rebinding_protection is True
    named = f"[{host}]" if ":" in host else host
    for taken in ("127.0.0.1", "localhost:*", "[::1]:*", named):
        assert taken in security.allowed_hosts
    for origin in security.allowed_origins:
        scheme, _, name = origin.partition("://")
        assert scheme in ("http", "https")
        assert name in security.allowed_hosts
