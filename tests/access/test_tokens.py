"""The file of tokens: who each bearer is, and what makes the file one that cannot be trusted."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from mcp_server.access.guard import Access
from mcp_server.access.refusals import Refusal
from mcp_server.access.tokens import TokenFile
from mcp_server.errors import SetupFailed
from tests.mcp.server_processes import http_server

pytestmark = pytest.mark.anyio

ANN, BOB, CAT = "token-of-ann-0123456789", "token-of-bob-0123456789", "token-of-cat-0123456789"


def written(directory: Path, text: str, mode: int = 0o600) -> Path:
    path = directory / "tokens"
    path.touch(mode)
    path.write_text(text)
    return path


def scope(*authorizations: bytes, client: Any = ("127.0.0.1", 5)) -> dict[str, Any]:
    return {"type": "http", "headers": [(b"authorization", value) for value in authorizations], "client": client}


async def who(access: Access, *authorizations: bytes, client: Any = ("127.0.0.1", 5)) -> str | int | None:
    """The principal; None where nobody is asked for, and the status of a refusal."""
    user = await access.user(scope(*authorizations, client=client))
    if isinstance(user, Refusal):
        return user.status
    return user.client_id if user is not None else None


# -- without authentication -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", [None, ("127.0.0.1", 1), ("::1", 1), ("127.9.9.9", 1), ("", 0)])
async def test_without_authentication_peers_on_loopback_and_unix_sockets_may(client: Any) -> None:
    assert await who(Access(), client=client) is None


@pytest.mark.parametrize("client", [("192.0.2.1", 1), ("2001:db8::1", 1), ("testclient", 1)])
async def test_without_authentication_no_other_machine_may(client: Any) -> None:
    assert await who(Access(), client=client) == 403


async def test_without_authentication_an_authorization_header_means_nothing() -> None:
    assert await who(Access(), b"Bearer anything") is None


# -- with a file of tokens --------------------------------------------------------------------------------------------


async def test_a_name_and_its_tokens_are_one_principal_and_a_token_alone_is_named_by_its_digest(tmp_path: Path) -> None:
    text = f"# people\nann {ANN}\n\n  ann\t{BOB}\n{CAT}\n"
    access = Access(TokenFile(written(tmp_path, text)))
    assert await who(access, f"Bearer {ANN}".encode()) == "ann"
    assert await who(access, f"bearer  {BOB}".encode(), client=("192.0.2.1", 1)) == "ann"
    nameless = await who(access, f"Bearer {CAT}".encode())
    assert isinstance(nameless, str)
    assert nameless.startswith("token-")
    assert CAT not in nameless
    again = Access(TokenFile(written(tmp_path, text)))
    assert await who(again, f"Bearer {CAT}".encode()) == nameless


@pytest.mark.parametrize(
    "authorizations",
    [
        [],
        [b"Bearer another-token-that-is-long"],
        [b"Bearer "],
        [b"Bearer"],
        [f"Bearer {ANN}x".encode()],
        [f"Bearer ann {ANN}".encode()],
        [ANN.encode()],
        [f"Basic {ANN}".encode()],
        [b"\xff"],
        [b"Bearer \xff\xfe"],
        [f"Bearer {ANN}".encode(), f"Bearer {ANN}".encode()],
    ],
)
async def test_without_one_of_the_tokens_nobody_may(tmp_path: Path, authorizations: list[bytes]) -> None:
    assert await who(Access(TokenFile(written(tmp_path, f"ann {ANN}\n"))), *authorizations) == 401


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        ("", 0o600, "no token"),
        ("# only a comment\n", 0o600, "no token"),
        ("\nann short\n", 0o600, "line 2: the token has fewer than 16 characters"),
        (f"a b {ANN}\n", 0o600, "line 1: write a name and a token"),
        (f"a/b {ANN}\n", 0o600, "line 1: a name has"),
        (f"ann {ANN}\nbob {ANN}\n", 0o600, "one token twice"),
        (ANN, 0o644, "chmod 600"),
        (ANN, 0o640, "chmod 600"),
        (None, 0o600, "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_refused_and_not_shown(
    tmp_path: Path, text: str | None, mode: int, why: str
) -> None:
    path = written(tmp_path, text, mode) if text is not None else tmp_path / "missing"
    with pytest.raises(SetupFailed, match=why) as caught:
        TokenFile(path)
    assert ANN not in str(caught.value)
    assert "short" not in str(caught.value)


async def test_reading_it_again_takes_new_tokens_and_keeps_the_old_where_the_file_is_broken(tmp_path: Path) -> None:
    path = written(tmp_path, f"ann {ANN}\n")
    tokens = TokenFile(path)
    path.write_text(f"bob {BOB}\n")
    assert tokens.principal(BOB) is None
    tokens.reload()
    assert (tokens.principal(ANN), tokens.principal(BOB)) == (None, "bob")
    path.write_text("nonsense of more than two fields\n")
    tokens.reload()
    assert tokens.principal(BOB) == "bob"


def test_sighup_reads_the_file_again_while_the_server_runs(tmp_path: Path) -> None:
    path = written(tmp_path, f"ann {ANN}\n")
    with http_server("--tokens", str(path)) as server:

        def status(token: str) -> int:
            headers = {"Authorization": f"Bearer {token}"}
            return httpx.get(f"http://127.0.0.1:{server.port}/nothing", headers=headers, trust_env=False).status_code

        assert (status(ANN), status(BOB)) == (404, 401)
        path.write_text(f"bob {BOB}\n")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_event("tokens.loaded")
        assert (status(ANN), status(BOB)) == (401, 404)
        path.chmod(0o644)
        server.process.send_signal(signal.SIGHUP)
        assert "chmod 600" in str(server.wait_for_event("tokens.kept")["reason"])
        assert (status(ANN), status(BOB)) == (401, 404)
        assert server.stop(signal.SIGTERM) == 128 + signal.SIGTERM
