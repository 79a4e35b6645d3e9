"""The toolbox door behind the guard: bearers of a token, or without authentication this machine's programs alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from websockets.exceptions import InvalidStatus

from tests.mcp.server_processes import ServerProcess, http_server
from tests.toolbox.plain_socket import opened
from tests.toolbox.toolbox_server import ToolboxServer

ANN, BOB = "token-of-ann-0123456789", "token-of-bob-0123456789"


def test_without_authentication_no_page_of_a_browser_may(server: ToolboxServer, sandbox_id: str) -> None:
    answer = httpx.get(f"{server.url}/api/sandbox", headers={"Origin": "http://localhost"}, trust_env=False)
    assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
    with pytest.raises(InvalidStatus) as caught, opened(server, sandbox_id, origin="http://localhost"):
        pass
    assert caught.value.response.status_code == 403


# -- the whole server -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server as the command line starts it, with all its doors, for two bearers."""
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.touch(0o600)
    tokens.write_text(f"{ANN}\n\n# and\n{BOB}\n")
    with http_server("--toolbox", "--tokens", str(tokens)) as server:
        yield server


def ask(server: ServerProcess, method: str, path: str, token: str = "", body: Any = None) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"http://127.0.0.1:{server.port}{path}"
    return httpx.request(method, url, headers=headers, json=body, trust_env=False, timeout=30)


def test_every_door_asks_for_a_token_but_health_does_not(guarded: ServerProcess) -> None:
    for path in ("/mcp", "/api/sandbox", "/toolbox/x/info", "/toolbox/1/process/interpreter/context", "/nothing"):
        answer = ask(guarded, "GET", path)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["statusCode"] == 401
    assert ask(guarded, "GET", "/healthz").status_code == 200


def test_one_bearer_never_sees_the_sandboxes_of_another(guarded: ServerProcess) -> None:
    sandbox_id = ask(guarded, "POST", "/api/sandbox", ANN, {"name": "hers"}).json()["id"]
    contexts = f"/toolbox/{sandbox_id}/process/interpreter/context"
    assert ask(guarded, "GET", contexts, ANN).status_code == 200
    assert ask(guarded, "GET", "/api/sandbox", BOB).json()["items"] == []
    for method, path in [
        ("GET", f"/api/sandbox/{sandbox_id}"),
        ("GET", "/api/sandbox/hers"),
        ("DELETE", f"/api/sandbox/{sandbox_id}"),
        ("GET", contexts),
        ("POST", contexts),
    ]:
        assert ask(guarded, method, path, BOB).status_code == 404
    assert ask(guarded, "POST", "/api/sandbox", BOB, {"name": "hers"}).status_code == 200


@pytest.mark.anyio
async def test_the_mcp_door_reaches_a_sandboxs_contexts_for_the_same_bearer_alone(guarded: ServerProcess) -> None:
    sandbox_id = ask(guarded, "POST", "/api/sandbox", ANN, {"env": {"COLOUR": "red"}}).json()["id"]
    contexts = f"/toolbox/{sandbox_id}/process/interpreter/context"
    context_id = ask(guarded, "POST", contexts, ANN).json()["id"]

    async def run(token: str, code: str, **arguments: Any) -> str:
        headers = {"Authorization": f"Bearer {token}", "X-Conversation-Id": sandbox_id}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=30) as http,
            Client(streamable_http_client(guarded.url, http_client=http)) as client,
        ):
            result = await client.call_tool("run_code", {"code": code, **arguments})
            return str(result.content[0].text)  # type: ignore[union-attr]  # reports begin with text

    assert "red" in await run(ANN, "import os; os.environ['COLOUR']")
    assert "red" in await run(ANN, "import os; os.environ['COLOUR']", context_id=context_id)
    assert "No context" in await run(BOB, "1", context_id=context_id)
