"""The whole server as a resource server: what clients are told, and whom it lets in, over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from mcp_server.composition import EngineChoice
from mcp_server.errors import SetupFailed
from mcp_server.serving import Address, Credentials, HttpPlan, serve
from mcp_server.settings import Settings
from tests.access.authorization_server import RESOURCE, AuthorizationServer, SigningKey, authorization_server
from tests.mcp.raw_http import RawSession
from tests.mcp.server_processes import ServerProcess, failed_start, http_server

METADATA = "https://code.example.org/.well-known/oauth-protected-resource/mcp"
FILE_TOKEN = "token-of-the-operator-0123"


@pytest.fixture(scope="module")
def issuer() -> Iterator[AuthorizationServer]:
    with authorization_server(SigningKey.made("first", "RS256")) as running:
        yield running


@pytest.fixture(scope="module")
def server(issuer: AuthorizationServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.touch(0o600)
    tokens.write_text(f"operator {FILE_TOKEN}\n")
    flags = ["--oauth-issuer", issuer.url, "--oauth-resource", RESOURCE, "--oauth-scope", "code:run"]
    with http_server("--toolbox", "--tokens", str(tokens), *flags) as running:
        yield running


def get(server: ServerProcess, path: str, token: str = "", **headers: str) -> httpx.Response:
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return httpx.get(f"http://127.0.0.1:{server.port}{path}", headers=headers, trust_env=False)


def test_the_metadata_of_the_resource_names_its_issuer_and_scopes(
    server: ServerProcess, issuer: AuthorizationServer
) -> None:
    answer = get(server, "/.well-known/oauth-protected-resource/mcp")
    assert answer.status_code == 200
    facts = answer.json()
    assert facts["resource"] == RESOURCE
    assert facts["authorization_servers"] == [issuer.url]
    assert facts["scopes_supported"] == ["code:run"]
    assert facts["bearer_methods_supported"] == ["header"]


def test_the_metadata_is_told_under_any_name_the_doors_are_not(server: ServerProcess) -> None:
    metadata = "/.well-known/oauth-protected-resource/mcp"
    assert get(server, metadata, Host="anything.example").status_code == 200
    assert get(server, "/api/sandbox", FILE_TOKEN, Host="anything.example").status_code == 421
    assert get(server, "/api/sandbox", FILE_TOKEN, Host="code.example.org").status_code == 200


@pytest.mark.parametrize("path", ["/mcp", "/api/sandbox", "/toolbox/x/info", "/nothing"])
def test_without_a_token_a_client_learns_where_to_get_one(server: ServerProcess, path: str) -> None:
    answer = get(server, path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == f'Bearer scope="code:run", resource_metadata="{METADATA}"'


def test_a_token_that_is_not_valid_is_told_so(server: ServerProcess, issuer: AuthorizationServer) -> None:
    for token in ("nonsense", issuer.token(scope="code:run", aud="https://other.example"), issuer.token(exp=5)):
        answer = get(server, "/mcp", token)
        assert answer.status_code == 401
        assert answer.json()["error"] == "invalid_token"
        challenge = answer.headers["www-authenticate"]
        assert challenge.startswith('Bearer error="invalid_token", error_description="')
        assert f'resource_metadata="{METADATA}"' in challenge


def test_a_token_without_the_scope_is_forbidden_and_told_which(
    server: ServerProcess, issuer: AuthorizationServer
) -> None:
    answer = get(server, "/mcp", issuer.token(scope="other"))
    assert answer.status_code == 403
    assert answer.json()["error"] == "insufficient_scope"
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
    assert 'scope="code:run"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("modern", [False, True], ids=["older", "newest"])
def test_each_subject_has_contexts_of_its_own(server: ServerProcess, issuer: AuthorizationServer, modern: bool) -> None:
    def texts(token: str, *codes: str) -> list[str]:
        with RawSession(server, modern=modern, token=token) as session:
            return [session.post("run_code", {"code": code}).text for code in codes]

    ann, bob = (issuer.token(f"{name}-{modern}", scope="code:run") for name in ("ann", "bob"))
    texts(ann, "kept = 'of ' + 'ann'")
    assert "of ann" in texts(ann, "kept")[0]
    assert "NameError" in texts(bob, "kept")[0]
    assert "NameError" in texts(FILE_TOKEN, "kept")[0]
    renewed = issuer.token(f"ann-{modern}", scope="code:run", jti="another")
    assert "of ann" in texts(renewed, "kept")[0]


def test_a_session_of_the_older_protocol_is_its_subjects_alone(
    server: ServerProcess, issuer: AuthorizationServer
) -> None:
    ann, bob = (issuer.token(name, scope="code:run") for name in ("ann", "bob"))
    with RawSession(server, token=ann) as session:
        assert session.post("list_contexts", {}).status_code == 200
        renewed = {"Authorization": f"Bearer {issuer.token('ann', scope='code:run', jti='2')}"}
        assert session.post("list_contexts", {}, renewed).status_code == 200
        assert session.post("list_contexts", {}, {"Authorization": f"Bearer {bob}"}).status_code == 404
        assert session.post("list_contexts", {}, {"Authorization": f"Bearer {FILE_TOKEN}"}).status_code == 404


def test_the_log_names_no_token(server: ServerProcess, issuer: AuthorizationServer) -> None:
    token = issuer.token(scope="code:run")
    get(server, "/mcp", token)
    log = str(server.log)
    assert "issuer.keys" in log
    assert token.rpartition(".")[2] not in log
    assert FILE_TOKEN not in log


def test_what_cannot_be_set_up_is_told_in_one_line() -> None:
    assert "go together" in failed_start("serve", "--oauth-resource", RESOURCE)


@pytest.mark.parametrize(
    ("credentials", "why"),
    [
        (Credentials(issuer="ITS"), "go together"),
        (Credentials(scopes=("x",)), "--oauth-scope needs"),
        (Credentials(issuer="ITS", resource="code.example.org"), "is no http or https address"),
        (Credentials(issuer="ITS", resource=f"{RESOURCE}?a=b"), "no query"),
        (Credentials(issuer="ITS/other", resource=RESOURCE), "answers with status 404"),
        (Credentials(issuer="http://127.0.0.1:1", resource=RESOURCE), "cannot be reached"),
        (Credentials(issuer="http://login.example.org", resource=RESOURCE), "https://"),
    ],
)
@pytest.mark.anyio
async def test_an_authorization_server_that_cannot_be_used_keeps_the_server_from_starting(
    issuer: AuthorizationServer, credentials: Credentials, why: str
) -> None:
    credentials = replace(credentials, issuer=credentials.issuer.replace("ITS", issuer.url))
    with pytest.raises(SetupFailed, match=why):
        await serve(Settings(), EngineChoice(), HttpPlan(Address(), credentials))
