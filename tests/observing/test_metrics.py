"""Figures for Prometheus: what happened is in them, and nothing that names anybody."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.mcp.raw_http import RawSession
from tests.mcp.server_processes import START_BOUND_S, ServerProcess, command, http_server

ANN = "token-of-ann-0123456789"


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with http_server("--metrics", "--toolbox", "--contexts-per-conversation", "2") as running:
        yield running


def figures(server: ServerProcess) -> dict[tuple[str, frozenset[str]], float]:
    """Each sample, by its name and the values of its labels."""
    answer = httpx.get(f"http://127.0.0.1:{server.port}/metrics", trust_env=False)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_runs_calls_contexts_output_and_limits_are_counted(server: ServerProcess) -> None:
    with RawSession(server, modern=True) as session:
        here = {"X-Conversation-Id": "one"}
        for code in ("print('x' * 99)", "1 / 0", "import os; os._exit(3)"):
            session.post("run_code", {"code": code}, here)
        session.post("run_code", {"code": "while True: pass", "timeout": 0.2}, here)
        session.post("create_context", {}, here)
        refused = session.post("create_context", {}, here)
        assert "the most it may have" in refused.text
        session.post("run_code", {"code": "1", "context_id": "ctx_none"}, {"Mcp-Param-Context-Id": "ctx_none"})
    found = figures(server)

    def count(name: str, *labels: str) -> float:
        return found[f"code_interpreter_{name}", frozenset(labels)]

    assert count("runs_total", "ok", "kept") == 1
    assert count("runs_total", "error", "kept") == 1
    assert count("runs_total", "crashed", "reset") == 1
    assert count("runs_total", "timeout", "kept") == 1
    assert count("run_seconds_count") == 4
    assert count("run_seconds_sum") > 0.2
    assert count("run_queue_seconds_count") == 4
    assert count("output_bytes_total") == 100
    assert count("contexts") == 2
    assert count("contexts_limit") == 1_000
    assert count("context_create_seconds_count") == 2
    assert count("tool_calls_total", "run_code", "ok") == 4
    assert count("tool_calls_total", "run_code", "refused") == 1
    assert count("tool_calls_total", "create_context", "ok") == 1
    assert count("tool_calls_total", "create_context", "refused") == 1
    assert count("limits_reached_total", "contexts_per_conversation") == 1
    assert count("http_requests_open") == 1
    assert found["process_resident_memory_bytes", frozenset()] > 0


def test_no_label_holds_what_clients_choose(server: ServerProcess) -> None:
    with RawSession(server, modern=True) as session:
        session.post("no_such_tool_of_ours", {}, {"X-Conversation-Id": "name-of-somebody"})
        session.post("run_code", {"code": "class NameOfTheirs(Exception): pass\nraise NameOfTheirs"})
    text = httpx.get(f"http://127.0.0.1:{server.port}/metrics", trust_env=False).text
    for chosen in ("no_such_tool_of_ours", "name-of-somebody", "NameOfTheirs", "ctx_"):
        assert chosen not in text


def test_they_are_asked_for_as_everything_else(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.touch(0o600)
    tokens.write_text(f"ann {ANN}\n")
    with http_server("--metrics", "--tokens", str(tokens)) as server:
        url = f"http://127.0.0.1:{server.port}/metrics"
        assert httpx.get(url, trust_env=False).status_code == 401
        assert httpx.get(url, trust_env=False, headers={"Authorization": f"Bearer {ANN}"}).status_code == 200


def test_without_the_flag_there_are_none() -> None:
    with http_server() as server:
        assert httpx.get(f"http://127.0.0.1:{server.port}/metrics", trust_env=False).status_code == 404


def test_without_the_library_the_flag_is_refused_in_one_line() -> None:
    hidden = "import sys; sys.modules['prometheus_client'] = None; from mcp_server.cli import main; main()"
    program = [sys.executable, "-c", hidden, *command("serve", "--metrics")[3:]]
    done = subprocess.run(program, capture_output=True, text=True, timeout=START_BOUND_S, check=False)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "pip install 'mcp-code-interpreter[metrics]'" in line
