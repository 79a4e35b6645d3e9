"""Access tokens of an authorization server: which are taken, and where its metadata and keys are looked for."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest

from mcp_server.access.issuer import KEYS_FRESH_S, KEYS_STALE_S, REFETCH_S, Issuer, IssuerSilent, well_known
from mcp_server.access.oauth import JwtVerifier, Resource
from mcp_server.errors import SetupFailed
from tests.access.authorization_server import RESOURCE, AuthorizationServer, SigningKey, authorization_server

pytestmark = pytest.mark.anyio


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def server() -> Iterator[AuthorizationServer]:
    with authorization_server() as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def verifier_of(server: AuthorizationServer, clock: Clock | None = None, url: str = "") -> JwtVerifier:
    issuer = Issuer(url or server.url, clock or time.monotonic)
    await issuer.start()
    return JwtVerifier(Resource(issuer.url, RESOURCE), issuer)


async def taken(verifier: JwtVerifier, token: str) -> bool:
    return await verifier.verify_token(token) is not None


async def test_a_token_for_this_server_is_taken_and_says_who_and_with_which_scopes(server: AuthorizationServer) -> None:
    verifier = await verifier_of(server)
    found = await verifier.verify_token(server.token("ann@example.org", scope="code:run other"))
    assert found is not None
    assert (found.client_id, found.scopes) == ("oauth:ann@example.org", ["code:run", "other"])
    assert found.token == ""
    listed = await verifier.verify_token(server.token(scp=["code:run"]))
    assert listed is not None
    assert listed.scopes == ["code:run"]
    long = await verifier.verify_token(server.token("x" * 500))
    assert long is not None
    assert len(long.client_id) < 100


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS256", "ES256", "EdDSA"])
async def test_the_usual_signatures_are_taken(algorithm: str) -> None:
    with authorization_server(SigningKey.made("k", algorithm)) as server:
        assert await taken(await verifier_of(server), server.token())


def _in_base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.mark.parametrize("audience", [RESOURCE, f"{RESOURCE}/", ["https://other.example", RESOURCE]])
async def test_the_audience_may_be_one_of_several(server: AuthorizationServer, audience: Any) -> None:
    resource = Resource(server.url, audience if isinstance(audience, str) else RESOURCE)
    issuer = Issuer(server.url)
    await issuer.start()
    assert await taken(JwtVerifier(resource, issuer), server.token(aud=audience))


NOW = int(time.time())

WRONG: dict[str, dict[str, Any]] = {
    "for another server": {"aud": "https://other.example/mcp"},
    "for a server whose address begins alike": {"aud": f"{RESOURCE}/../other"},
    "for nobody": {"aud": None},
    "of another issuer": {"iss": "https://evil.example"},
    "of no issuer": {"iss": None},
    "expired": {"exp": NOW - 3600},
    "without an end": {"exp": None},
    "not valid yet": {"nbf": NOW + 3600},
    "of nobody": {"sub": None},
    "of no text": {"sub": 5},
}


@pytest.mark.parametrize("claims", WRONG.values(), ids=WRONG.keys())
async def test_a_token_is_refused_that_is(server: AuthorizationServer, claims: dict[str, Any]) -> None:
    sub = claims.get("sub", "ann")
    token = jwt.encode(
        {
            name: value
            for name, value in {
                "iss": server.url, "aud": RESOURCE, "exp": NOW + 600, **claims, "sub": sub
            }.items()
            if value is not None
        },
        server.key.private,
        server.key.algorithm,
        headers={"kid": server.key.key_id},
    )  # fmt: skip
    assert not await taken(await verifier_of(server), token)


async def test_a_token_that_another_key_signed_is_refused(server: AuthorizationServer) -> None:
    verifier = await verifier_of(server)
    forged = SigningKey.made(server.key.key_id)
    assert not await taken(verifier, server.token(key=forged))
    head, body, signature = server.token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    other = _in_base64(json.dumps({**claims, "sub": "bob"}).encode())
    assert not await taken(verifier, f"{head}.{other}.{signature}")


async def test_the_algorithm_is_not_the_tokens_to_choose(server: AuthorizationServer) -> None:
    verifier = await verifier_of(server)
    claims = {"iss": server.url, "aud": RESOURCE, "sub": "ann", "exp": NOW + 600}
    unsigned = jwt.encode(claims, "", "none", headers={"kid": "first"})
    published = json.dumps(server.documents["/keys"]["keys"][0]).encode()
    signed = ".".join(_in_base64(json.dumps(part).encode()) for part in ({"alg": "HS256", "kid": "first"}, claims))
    symmetric = f"{signed}.{_in_base64(hmac.digest(published, signed.encode(), 'sha256'))}"
    for token in (unsigned, symmetric, "", "a.b.c", "not a token", "é" * 40, "." * 5_000):
        assert not await taken(verifier, token)


async def test_a_key_is_used_for_signatures_of_its_own_kind_alone() -> None:
    with authorization_server(SigningKey.made("k", "RS256")) as server:
        keys = server.documents["/keys"]["keys"]
        keys[0] = server.key.public(alg="RS256")
        assert not await taken(await verifier_of(server), server.token(algorithm="PS256"))
        keys[0] = server.key.public(use="enc")
        assert not await taken(await verifier_of(server), server.token())


# -- rotation ---------------------------------------------------------------------------------------------------------


async def test_a_new_key_is_found_when_a_token_names_it_but_made_up_ones_do_not_flood_the_issuer(
    server: AuthorizationServer, clock: Clock
) -> None:
    verifier = await verifier_of(server, clock)
    second = SigningKey.made("second", "RS256")
    server.publish(server.key, second)
    for number in range(50):
        assert not await taken(verifier, server.token(headers={"kid": f"made up {number}"}))
    assert server.asked.count("/keys") == 1
    clock.now_s += REFETCH_S
    assert await taken(verifier, server.token(key=second))
    assert await taken(verifier, server.token())
    for number in range(50):
        assert not await taken(verifier, server.token(headers={"kid": f"made up {number}"}))
    assert server.asked.count("/keys") == 2


async def test_a_key_that_was_taken_back_no_longer_counts_within_the_hour(
    server: AuthorizationServer, clock: Clock
) -> None:
    verifier = await verifier_of(server, clock)
    server.publish(SigningKey.made("second"))
    clock.now_s += KEYS_FRESH_S + 1
    assert not await taken(verifier, server.token())


async def test_known_keys_outlive_an_outage_of_the_issuer_for_a_day(server: AuthorizationServer, clock: Clock) -> None:
    verifier = await verifier_of(server, clock)
    server.documents.clear()
    clock.now_s += KEYS_FRESH_S + 1
    assert await taken(verifier, server.token())
    clock.now_s += KEYS_STALE_S
    with pytest.raises(IssuerSilent, match="cannot be reached"):
        await verifier.verify_token(server.token())
    server.publish(server.key)
    clock.now_s += REFETCH_S
    assert await taken(verifier, server.token())


async def test_a_token_that_names_no_key_is_taken_where_only_one_can_be_meant(server: AuthorizationServer) -> None:
    verifier = await verifier_of(server)
    nameless = jwt.encode(
        {"iss": server.url, "aud": RESOURCE, "sub": "ann", "exp": NOW + 600}, server.key.private, "ES256"
    )
    assert await taken(verifier, nameless)
    server.publish(server.key, SigningKey.made("second"))
    assert not await taken(await verifier_of(server), nameless)


# -- discovery --------------------------------------------------------------------------------------------------------


def test_metadata_is_looked_for_where_both_standards_put_it() -> None:
    assert list(well_known("https://login.example.org/tenant")) == [
        "https://login.example.org/.well-known/oauth-authorization-server/tenant",
        "https://login.example.org/tenant/.well-known/openid-configuration",
        "https://login.example.org/.well-known/openid-configuration/tenant",
    ]


async def test_an_openid_provider_with_a_path_is_found(server: AuthorizationServer) -> None:
    server.documents.clear()
    server.url += "/realms/one"
    server.publish(server.key, at="/realms/one/.well-known/openid-configuration")
    server.documents["/realms/one/keys"] = server.documents["/keys"]
    assert await taken(await verifier_of(server), server.token())


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        (None, "answers with status 404"),
        (b"<html>", "is no JSON"),
        (b"[]", "is no JSON object"),
        (b"[" * 100_000, "is no JSON"),
        (b" " * 2_000_000, "is over"),
        ({"issuer": "https://evil.example", "jwks_uri": "x"}, "is of the issuer 'https://evil.example'"),
        ({}, "is of the issuer 'None'"),
        ({"issuer": "ITS"}, "names no jwks_uri"),
        ({"issuer": "ITS", "jwks_uri": "http://keys.example/"}, "reached by https://"),
        ({"issuer": "ITS", "jwks_uri": "ITS/nothing"}, "answers with status 404"),
        ({"issuer": "ITS", "jwks_uri": "ITS/no-keys"}, "is no set of keys"),
    ],
)
async def test_an_issuer_that_cannot_be_used_is_told_at_the_start(
    server: AuthorizationServer, metadata: Any, why: str
) -> None:
    server.documents.clear()
    server.documents["/no-keys"] = {"keys": "none"}
    if isinstance(metadata, dict):
        metadata = {name: value.replace("ITS", server.url) for name, value in metadata.items()}
    if metadata is not None:
        server.documents["/.well-known/oauth-authorization-server"] = metadata
    with pytest.raises(SetupFailed, match=why):
        await Issuer(server.url).start()


@pytest.mark.parametrize("url", ["http://login.example.org", "ftp://login.example.org", "login.example.org", ""])
def test_an_issuer_is_asked_over_a_line_that_nobody_can_change(url: str) -> None:
    with pytest.raises(SetupFailed, match="https://"):
        Issuer(url)
