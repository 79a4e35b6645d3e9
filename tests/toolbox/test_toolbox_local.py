"""The embedded engine: a server of one's own that comes with the first call and goes with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mcp_server import (
    AsyncCodeInterpreter,
    AsyncSandbox,
    CodeInterpreter,
    CodeInterpreterConnectionError,
    CodeInterpreterNotFoundError,
    Sandbox,
)
from mcp_server.toolbox.client_local import LocalServer
from tests.toolbox.toolbox_server import ToolboxServer

BOUND_S = 30.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No preloading, and the files of contexts in a place of the test's own."""
    monkeypatch.setenv("CODE_INTERPRETER_PRELOAD", "")
    monkeypatch.setenv("CODE_INTERPRETER_STATE_DIR", str(tmp_path))


def process_group(pid: int) -> list[int]:
    """The living processes of a session's leader and of what it started in its own session."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == pid and fields[0] not in "ZX":
                members.append(int(entry.name))
    return members


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + BOUND_S
    while process_group(pid):
        assert time.monotonic() < deadline, f"{process_group(pid)} live on"
        time.sleep(0.02)


def test_five_lines_from_nothing_to_a_result() -> None:
    with CodeInterpreter.local() as interpreter:
        interpreter.run_code("x = 6 * 7")
        result = interpreter.run_code("print(x)")
    assert result.stdout == "42\n"


@pytest.mark.anyio
async def test_the_same_with_await() -> None:
    async with AsyncCodeInterpreter.local() as interpreter:
        await interpreter.run_code("x = 6 * 7")
        result = await interpreter.run_code("print(x)")
    assert result.stdout == "42\n"


def test_closing_ends_the_server_and_removes_its_socket() -> None:
    server = LocalServer()
    server.start()
    pid = server.pid
    assert pid is not None
    assert process_group(pid)
    directory = Path(server.unix_socket).parent
    assert directory.stat().st_mode & 0o777 == 0o700
    server.stop()
    server.stop()
    assert process_group(pid) == []
    assert not directory.exists()


def test_nothing_is_started_before_it_is_used() -> None:
    with CodeInterpreter.local():
        pass


def test_a_closed_interpreter_says_so() -> None:
    interpreter = CodeInterpreter.local()
    interpreter.close()
    with pytest.raises(CodeInterpreterConnectionError, match="closed"):
        interpreter.run_code("pass")


def test_a_server_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODE_INTERPRETER_TIMEOUT_S", "soon")
    with (
        CodeInterpreter.local() as interpreter,
        pytest.raises(CodeInterpreterConnectionError, match="CODE_INTERPRETER_TIMEOUT_S"),
    ):
        interpreter.run_code("pass")


PARENT = """
import sys
from mcp_server.toolbox.client_local import LocalServer
from mcp_server.toolbox.client_provision import Provision, main_api, LOCAL_URL
server = LocalServer()
provision = Provision(main_api(LOCAL_URL, unix_socket=server.unix_socket), None, server)
provision.ensure()
print(server.pid, server.unix_socket, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_ends_with_its_parent_however_that_ends(number: signal.Signals) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        pid_text, unix_socket = parent.stdout.readline().split()
        pid = int(pid_text)
        assert process_group(pid)
        parent.send_signal(number)
        parent.wait(BOUND_S)
        wait_until_gone(pid)
    assert not Path(unix_socket).parent.exists()


def test_a_server_whose_parent_is_another_than_it_was_told_ends_at_once(tmp_path: Path) -> None:
    stranger = subprocess.Popen(["true"])
    stranger.wait()
    command = [sys.executable, "-m", "mcp_server.cli", "serve", "--toolbox", "--port", "0"]
    for parent in (stranger.pid, os.getppid()):
        done = subprocess.run([*command, "--parent", str(parent)], capture_output=True, timeout=BOUND_S, check=False)
        assert done.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)


def test_a_sandbox_has_an_id_and_an_interpreter() -> None:
    with Sandbox.local() as sandbox:
        assert sandbox.id
        assert sandbox.code_interpreter.run_code("print(1)").stdout == "1\n"


# -- the same at a server that is there already -----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "/", "/api"])
def test_connecting_makes_a_sandbox_and_closing_deletes_it(server: ToolboxServer, suffix: str) -> None:
    before = server.request("GET", "/api/sandbox").json()["items"]
    with CodeInterpreter.connect(server.url + suffix) as interpreter:
        assert interpreter.run_code("print(1)").stdout == "1\n"
        assert len(server.request("GET", "/api/sandbox").json()["items"]) == len(before) + 1
    assert len(server.request("GET", "/api/sandbox").json()["items"]) == len(before)


def test_a_sandbox_that_is_named_stays(server: ToolboxServer, sandbox_id: str) -> None:
    with CodeInterpreter.connect(server.url, sandbox_id=sandbox_id) as interpreter:
        interpreter.run_code("x = 1")
    with CodeInterpreter.connect(server.url, sandbox_id=sandbox_id) as interpreter:
        assert interpreter.run_code("print(x)").stdout == "1\n"
    with (
        CodeInterpreter.connect(server.url, sandbox_id="nobody") as nobody,
        pytest.raises(CodeInterpreterNotFoundError, match=r"^Failed to run code: No sandbox 'nobody'"),
    ):
        nobody.run_code("pass")


def test_a_sandbox_is_deleted_when_it_is_told(server: ToolboxServer) -> None:
    sandbox = Sandbox.connect(server.url)
    sandbox_id = sandbox.id
    sandbox.delete()
    assert server.request("GET", f"/api/sandbox/{sandbox_id}").status_code == 404


@pytest.mark.anyio
async def test_an_async_sandbox_does_the_same(server: ToolboxServer) -> None:
    async with AsyncSandbox.connect(server.url) as sandbox:
        assert (await sandbox.code_interpreter.run_code("print(1)")).stdout == "1\n"
        assert server.request("GET", f"/api/sandbox/{sandbox.id}").status_code == 200
    assert server.request("GET", f"/api/sandbox/{sandbox.id}").status_code == 404
    again = await AsyncSandbox.connect(server.url).start()
    await again.delete()
    assert server.request("GET", f"/api/sandbox/{again.id}").status_code == 404
