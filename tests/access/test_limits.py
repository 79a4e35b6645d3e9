"""How much one caller, and all together, may ask for; each limit says so."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest

from tests.mcp.raw_http import RawSession, answer_of
from tests.mcp.server_processes import BOUND_S, ServerProcess, http_server

ANN, BOB, CAT = "token-of-ann-0123456789", "token-of-bob-0123456789", "token-of-cat-0123456789"

BODY_BYTES = 256 * 1024
GOING = "import time\nprint('going', flush=True)\ntime.sleep(600)"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.touch(0o600)
    tokens.write_text(f"ann {ANN}\nbob {BOB}\ncat {CAT}\n")
    limits = ["--requests", "4", "--requests-per-principal", "3", "--contexts-per-principal", "3"]
    flags = ["--toolbox", "--metrics", "--stop-grace-s", "0", "--body-bytes", str(BODY_BYTES), *limits]
    with http_server("--tokens", str(tokens), *flags) as running:
        yield running


def ask(
    server: ServerProcess, method: str, path: str, token: str = ANN, content: bytes | Iterator[bytes] = b""
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    url = f"http://127.0.0.1:{server.port}{path}"
    return httpx.request(method, url, headers=headers, content=content, trust_env=False, timeout=BOUND_S)


@pytest.mark.parametrize("path", ["/mcp", "/api/sandbox", "/toolbox/1/process/interpreter/context"])
def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_read(server: ServerProcess, path: str) -> None:
    answer = ask(server, "POST", path, content=b" " * (BODY_BYTES + 1))
    assert answer.status_code == 413
    assert f"over {BODY_BYTES:,} bytes" in answer.json()["message"]


def test_a_body_in_chunks_is_refused_as_soon_as_it_is_too_large(server: ServerProcess) -> None:
    sent = 0

    def without_end() -> Iterator[bytes]:
        nonlocal sent
        while sent < 1_000 * BODY_BYTES:
            sent += 16 * 1024
            yield b" " * 16 * 1024

    for path in ("/mcp", "/api/sandbox"):
        sent = 0
        try:
            answer = ask(server, "POST", path, content=without_end())
        except (httpx.WriteError, httpx.ReadError):  # the server hung up on what still came
            pass
        else:
            assert answer.status_code == 413
            assert f"over {BODY_BYTES:,} bytes" in answer.text
        assert sent < 100 * BODY_BYTES
    assert ask(server, "GET", "/healthz").status_code == 200


def test_requests_of_one_and_of_all_are_counted_and_given_back(server: ServerProcess) -> None:
    streams: list[Iterator[str]] = []
    with ExitStack() as open_calls:
        sessions = [
            open_calls.enter_context(RawSession(server, modern=True, token=token)) for token in (ANN, ANN, ANN, BOB)
        ]
        # All of them before any stream: a request is given back a moment after its answer has come.
        handles = [
            answer_of(session.post("create_context", {}).text)["result"]["structuredContent"]["context_id"]
            for session in sessions
        ]
        for session, handle in zip(sessions, handles, strict=True):
            if session is sessions[-1]:
                refused = ask(server, "GET", "/api/sandbox")
                assert refused.status_code == 429
                assert "3 requests open, the most that one user may" in refused.json()["message"]
                assert refused.headers["retry-after"] == "1"
            lines = open_calls.enter_context(session.call_streaming("run_code", {"code": GOING, "context_id": handle}))
            streams.append(lines)  # a stream that nobody holds is closed
            session.wait_for(lines, "going")
        refused = ask(server, "GET", "/api/sandbox", CAT)
        assert refused.status_code == 503
        assert "serving 4 requests, the most it may" in refused.json()["message"]
        assert refused.headers["retry-after"] == "1"
        assert ask(server, "GET", "/healthz").status_code == 200
    for token in (ANN, BOB):
        _until_served(server, token)


def _until_served(server: ServerProcess, token: str) -> None:
    """A call whose client went away is given back when the server has noticed."""
    tried = threading.Event()
    for _ in range(int(BOUND_S * 20)):
        if ask(server, "GET", "/api/sandbox", token).status_code == 200:
            return
        tried.wait(0.05)
    raise AssertionError("the requests were not given back")


def test_contexts_of_one_principal_are_limited_over_all_its_conversations(server: ServerProcess) -> None:
    def create(token: str, conversation: str) -> str:
        with RawSession(server, modern=True, token=token) as session:
            return session.post("create_context", {}, {"X-Conversation-Id": conversation}).text

    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda number: create(CAT, f"conversation {number}"), range(8)))
    refused = [text for text in made if "the most that one user may have" in text]
    assert (len(made) - len(refused), len(refused)) == (3, 5)
    assert all("You have 3 contexts in all your conversations" in text for text in refused)
    assert "ctx_" in create(BOB, "conversation 1")
    handle = answer_of(next(text for text in made if "ctx_" in text))["result"]["structuredContent"]
    with RawSession(server, modern=True, token=CAT) as session:
        header = {"Mcp-Param-Context-Id": handle["context_id"]}
        session.post("delete_context", {"context_id": handle["context_id"]}, header)
    assert "ctx_" in create(CAT, "conversation 9")


def test_sandboxes_of_one_principal_are_limited_too(server: ServerProcess) -> None:
    made = [ask(server, "POST", "/api/sandbox", ANN, b"{}") for _ in range(4)]
    assert [answer.status_code for answer in made] == [200, 200, 200, 429]
    assert "You have 3 sandboxes, the most that one user may have." in made[3].json()["message"]
    assert ask(server, "POST", "/api/sandbox", BOB, b"{}").status_code == 200


def test_each_limit_that_was_reached_is_counted(server: ServerProcess) -> None:
    """Runs after the tests above: a file's tests run in order, on one worker."""
    figures = ask(server, "GET", "/metrics").text
    for limit in (
        "body_bytes",
        "requests",
        "requests_per_principal",
        "contexts_per_principal",
        "sandboxes_per_principal",
    ):
        assert f'code_interpreter_limits_reached_total{{limit="{limit}"}}' in figures
