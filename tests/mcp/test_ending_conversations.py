"""`DELETE /conversations/{id}` against a real server: at once, with everything, and nobody else's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.mcp.raw_http import RawSession
from tests.mcp.server_processes import BOUND_S, ServerProcess, Watched, descendants, http_server

ANN, BOB = "token-of-ann-0123456789", "token-of-bob-0123456789"


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with http_server() as started:
        yield started


def end(server: ServerProcess, conversation: str, **headers: str) -> httpx.Response:
    url = server.url.removesuffix("/mcp") + f"/conversations/{conversation}"
    return httpx.delete(url, headers=headers, timeout=BOUND_S, trust_env=False)


def run(server: ServerProcess, conversation: str, code: str, **headers: str) -> str:
    with RawSession(server, modern=True) as session:
        response = session.post("run_code", {"code": code}, {"X-Conversation-Id": conversation, **headers})
        assert response.status_code == 200, response.text
        return response.text


def test_its_contexts_its_runs_and_its_files_are_gone_at_once(server: ServerProcess) -> None:
    run(server, "other", "x = 'of the other'")
    write = "import os\nopen('kept.txt', 'w').write('text')\nprint('<' + os.path.abspath('kept.txt') + '>')"
    path = run(server, "sample", write).split("<")[1].split(">")[0]
    with RawSession(server, modern=True) as session:
        header = {"X-Conversation-Id": "sample"}
        made = session.post("create_context", {}, header).text.split('"context_id":"')[1].split('"')[0]
        endless = {"code": "print('going')\nwhile True: pass", "context_id": made}
        with session.call_streaming("run_code", endless) as lines:
            session.wait_for(lines, "going")
            assert end(server, "sample").status_code == 204
            assert any('"status":"cancelled"' in line for line in lines)
        gone = session.post("run_code", {"code": "1", "context_id": made}, {**header, "Mcp-Param-Context-Id": made})
        assert "it does not exist, was deleted, or expired" in gone.text
    look = f"import os; print(write if 'write' in globals() else 'empty', os.path.exists({path!r}))"
    assert "empty False" in run(server, "sample", look)
    assert "of the other" in run(server, "other", "x")


def test_it_can_be_repeated_and_what_never_was_is_no_error(server: ServerProcess) -> None:
    run(server, "twice", "x = 1")
    assert [end(server, "twice").status_code for _ in range(2)] == [204, 204]
    assert end(server, "never-was").status_code == 204
    assert "NameError" in run(server, "twice", "x")


@pytest.mark.parametrize("name", ["with%2Fslash/and?mark", "a/b", "x" * 300, "gr\u00fcn"])
def test_whatever_a_header_can_say_can_be_ended(server: ServerProcess, name: str) -> None:
    with RawSession(server, modern=True) as session:
        header = {"X-Conversation-Id": name.encode().decode("latin-1")}
        assert session.post("run_code", {"code": "x = 1"}, header).status_code == 200
        quoted = "".join(f"%{byte:02X}" for byte in name.encode())
        assert end(server, quoted).status_code == 204
        assert "NameError" in session.post("run_code", {"code": "x"}, header).text


def test_without_a_name_nothing_is_ended(server: ServerProcess) -> None:
    assert end(server, "").status_code == 404
    assert end(server, "%20").status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"), [({"Host": "attacker.example"}, 421), ({"Origin": "http://attacker.example"}, 403)]
)
def test_requests_under_a_foreign_name_end_nothing(server: ServerProcess, headers: dict[str, str], status: int) -> None:
    run(server, "guarded", "x = 'still here'")
    assert end(server, "guarded", **headers).status_code == status
    assert "still here" in run(server, "guarded", "x")


def test_a_principal_ends_only_conversations_of_its_own(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{ANN}\n{BOB}\n")
    tokens.chmod(0o600)
    ann, bob = ({"Authorization": f"Bearer {token}"} for token in (ANN, BOB))
    with http_server("--tokens", str(tokens)) as server:
        run(server, "sample", "x = 'of ann'", **ann)
        run(server, "sample", "x = 'of bob'", **bob)
        assert end(server, "sample").status_code == 401
        assert end(server, "sample", **bob).status_code == 204
        assert "of ann" in run(server, "sample", "x", **ann)
        assert "NameError" in run(server, "sample", "x", **bob)


def test_what_a_deleted_conversation_had_started_ends_with_it(server: ServerProcess) -> None:
    before = set(descendants(server.process.pid))
    run(server, "busy", "import subprocess\nchild = subprocess.Popen(['sleep', '600'])")
    sleeping = [pid for pid in set(descendants(server.process.pid)) - before if _program(pid) == "sleep"]
    assert len(sleeping) == 1
    watched = Watched(sleeping)
    assert end(server, "busy").status_code == 204
    assert watched.survivors() == []


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
