"""The server's side of the plain protocol, frame by frame, and of HTTP, key by key."""

from __future__ import annotations

import json
import threading
import time
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.toolbox.plain_socket import execute, hear, hear_output, opened
from tests.toolbox.toolbox_server import ToolboxServer

SPIN = "print('started', flush=True)\nwhile True: pass"
SLEEP = "import time; print('started', flush=True); time.sleep(300)"
STUBBORN = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('started', flush=True)\nwhile True: pass"


def new_context(server: ToolboxServer, sandbox_id: str) -> str:
    return str(server.request("POST", f"/toolbox/{sandbox_id}/process/interpreter/context", {}).json()["id"])


def delete_context(server: ToolboxServer, sandbox_id: str, context_id: str) -> int:
    path = f"/toolbox/{sandbox_id}/process/interpreter/context/{context_id}"
    return server.request("DELETE", path).status_code


# -- how a socket ends ------------------------------------------------------------------------------------------------


def test_a_run_ends_with_completed_and_1000_also_after_an_exception(server: ToolboxServer, sandbox_id: str) -> None:
    spoken = execute(server, sandbox_id, "print('hi')")
    assert [(frame["type"], frame["text"]) for frame in spoken.frames] == [("stdout", "hi\n"), ("control", "completed")]
    assert spoken.code == 1000
    spoken = execute(server, sandbox_id, "1 / 0")
    assert [frame["type"] for frame in spoken.frames] == ["error", "control"]
    assert (spoken.control, spoken.code) == ("completed", 1000)
    assert spoken.error is not None
    assert (spoken.error["name"], spoken.error["value"]) == ("ZeroDivisionError", "division by zero")
    assert "1 / 0" in spoken.error["traceback"]


def test_a_timeout_ends_with_4008_and_the_variables_are_kept(server: ToolboxServer, sandbox_id: str) -> None:
    execute(server, sandbox_id, "x = 1")
    spoken = execute(server, sandbox_id, SPIN, timeout=1)
    assert (spoken.stdout, spoken.control, spoken.code) == ("started\n", "interrupted", 4008)
    assert spoken.error is None
    assert execute(server, sandbox_id, "print(x)").stdout == "1\n"


def test_code_that_ignores_its_timeout_ends_with_4008_and_loses_the_variables(
    server: ToolboxServer, sandbox_id: str
) -> None:
    spoken = execute(server, sandbox_id, STUBBORN, timeout=1)
    assert spoken.code == 4008
    assert "lost" in spoken.reason
    assert execute(server, sandbox_id, "print('again')").stdout == "again\n"


@pytest.mark.parametrize(
    "code", ["import os; os.abort()", "import os; os._exit(0)", "import os; os.kill(os.getpid(), 9)"]
)
def test_a_worker_that_ends_closes_with_1001_and_the_context_lives_on(
    server: ToolboxServer, sandbox_id: str, code: str
) -> None:
    spoken = execute(server, sandbox_id, f"print('before', flush=True); {code}")
    assert (spoken.stdout, spoken.code) == ("before\n", 1001)
    assert "lost" in spoken.reason
    assert execute(server, sandbox_id, "print('again')").stdout == "again\n"


def test_deleting_a_context_closes_its_running_and_its_waiting_sockets_with_1001(
    server: ToolboxServer, sandbox_id: str
) -> None:
    context_id = new_context(server, sandbox_id)
    with opened(server, sandbox_id) as running, opened(server, sandbox_id) as waiting:
        running.send(json.dumps({"code": SLEEP, "contextId": context_id}))
        assert hear_output(running) == "started\n"
        waiting.send(json.dumps({"code": "print('never')", "contextId": context_id}))
        waiting.ping().wait(20)  # answered when the message has been taken
        assert delete_context(server, sandbox_id, context_id) == 200
        assert hear(running).code == 1001
        spoken = hear(waiting)
        assert (spoken.code, spoken.stdout) == (1001, "")


def test_deleting_a_sandbox_closes_its_sockets_with_1001(server: ToolboxServer) -> None:
    sandbox_id = server.create_sandbox()
    with opened(server, sandbox_id) as running:
        running.send(json.dumps({"code": SLEEP}))
        assert hear_output(running) == "started\n"
        assert server.request("DELETE", f"/api/sandbox/{sandbox_id}").status_code == 200
        assert hear(running).code == 1001


@pytest.mark.parametrize("message", ["", "{", "[1]", '{"code": 5}', b"\xff\xfe", '{"code": "1", "envs": {"A": 1}}'])
def test_a_bad_first_message_closes_with_1002(server: ToolboxServer, sandbox_id: str, message: str | bytes) -> None:
    with opened(server, sandbox_id) as socket:
        socket.send(message)
        assert hear(socket).code == 1002


@pytest.mark.parametrize(
    "fields",
    [
        {"code": "\n"},
        {"code": "1", "timeout": -1},
        {"code": "1", "contextId": "ctx_unknown"},
        {"code": "1", "contextId": "\0\ud800"},
        {"code": "1", "envs": {"A=B": "1"}},
        {"code": "1", "envs": {"A": "\0"}},
        {"code": "#" * (4 * 1024 * 1024 + 1)},
    ],
)
def test_what_cannot_be_done_closes_with_1008(
    server: ToolboxServer, sandbox_id: str, fields: dict[str, object]
) -> None:
    with opened(server, sandbox_id) as socket:
        socket.send(json.dumps(fields))
        spoken = hear(socket)
        assert (spoken.code, spoken.frames) == (1008, [])
        assert spoken.reason


def test_binary_first_messages_are_read_as_json_too(server: ToolboxServer, sandbox_id: str) -> None:
    with opened(server, sandbox_id) as socket:
        socket.send(b'{"code": "print(1)"}')
        assert hear(socket).stdout == "1\n"


def test_what_a_client_says_later_is_passed_over(server: ToolboxServer, sandbox_id: str) -> None:
    with opened(server, sandbox_id) as socket:
        socket.send(json.dumps({"code": "import time; print('started', flush=True); time.sleep(0.5); print('end')"}))
        assert hear_output(socket) == "started\n"
        for _ in range(50):
            socket.send("more" * 1000)
        assert hear(socket).stdout == "end\n"


# -- clients that go away ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("politely", [True, False])
def test_a_client_that_goes_away_interrupts_its_code_and_keeps_the_variables(
    server: ToolboxServer, sandbox_id: str, politely: bool
) -> None:
    execute(server, sandbox_id, "x = 1")
    with opened(server, sandbox_id) as socket:
        socket.send(json.dumps({"code": SPIN, "timeout": 0}))
        assert hear_output(socket) == "started\n"
        if not politely:
            socket.socket.shutdown(2)
    assert execute(server, sandbox_id, "print(x)").stdout == "1\n"


def test_a_client_that_goes_away_while_waiting_never_runs_its_code(server: ToolboxServer, sandbox_id: str) -> None:
    with opened(server, sandbox_id) as running:
        running.send(json.dumps({"code": "import time; print('started', flush=True); time.sleep(1)"}))
        assert hear_output(running) == "started\n"
        with opened(server, sandbox_id) as waiting:
            waiting.send(json.dumps({"code": "ran = True"}))
            waiting.ping().wait(20)
        hear(running)
    assert execute(server, sandbox_id, "print('ran' in globals())").stdout == "False\n"


# -- output -----------------------------------------------------------------------------------------------------------


def test_long_output_without_a_newline_arrives_whole_and_cut_at_characters(
    server: ToolboxServer, sandbox_id: str
) -> None:
    spoken = execute(server, sandbox_id, "import sys; n = sys.stdout.write('aé€😀' * 500_000)")
    assert spoken.stdout == "aé€😀" * 500_000


def test_a_slow_reader_slows_the_program_and_loses_nothing(server: ToolboxServer, sandbox_id: str) -> None:
    size = 48 * 1024 * 1024
    flag = execute(server, sandbox_id, "import os; flag = os.path.abspath('flag'); print(flag)").stdout.strip()
    code = f"import sys\nn = sys.stdout.write('x' * {size})\nsys.stdout.flush()\nopen(flag, 'w').close()"
    with opened(server, sandbox_id) as socket:
        socket.send(json.dumps({"code": code}))
        assert hear_output(socket)
        time.sleep(1)  # an unbounded server has taken all of it by then; a slower machine only makes this easier
        assert not Path(flag).exists()
        rest = hear(socket)
    assert rest.code == 1000
    assert Path(flag).exists()
    assert size - 1024 * 1024 < len(rest.stdout) < size


def test_pings_are_answered_while_the_output_waits_for_the_reader(server: ToolboxServer, sandbox_id: str) -> None:
    with opened(server, sandbox_id, max_queue=None) as socket:
        socket.send(json.dumps({"code": "print('x' * 1_000_000); import time; time.sleep(0.5)"}))
        assert socket.ping().wait(20)
        assert hear(socket).code == 1000


def test_what_was_printed_between_runs_comes_with_the_next(server: ToolboxServer, sandbox_id: str) -> None:
    execute(
        server,
        sandbox_id,
        "import os, threading, time\n"
        "def speak():\n"
        "    time.sleep(0.2)\n"
        "    print('from a thread', flush=True)\n"
        "    open('spoken', 'w').close()\n"
        "threading.Thread(target=speak).start()",
    )
    marker = Path(execute(server, sandbox_id, "print(os.path.abspath('spoken'))").stdout.strip())
    deadline = time.monotonic() + 20
    while not marker.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert "from a thread\n" in execute(server, sandbox_id, "print('next')").stdout


# -- HTTP -------------------------------------------------------------------------------------------------------------


def assert_error(server: ToolboxServer, method: str, path: str, status: int, code: str) -> str:
    answer = server.request(method, path)
    assert answer.status_code == status
    fields = answer.json()
    assert set(fields) == {"statusCode", "message", "code", "timestamp", "path", "method", "source"}
    assert (fields["statusCode"], fields["code"]) == (status, code)
    assert (fields["path"], fields["method"]) == (path, method)
    assert datetime.fromisoformat(fields["timestamp"]).tzinfo is not None
    assert fields["source"] == ("DAYTONA_API" if path.startswith("/api") else "DAYTONA_DAEMON")
    return str(fields["message"])


def test_every_error_has_a_body_with_the_seven_keys(server: ToolboxServer, sandbox_id: str) -> None:
    contexts = f"/toolbox/{sandbox_id}/process/interpreter/context"
    assert_error(server, "GET", "/api/nothing", 404, "NOT_FOUND")
    assert_error(server, "GET", "/api/sandbox/nobody", 404, "NOT_FOUND")
    assert_error(server, "GET", "/toolbox/nobody/process/interpreter/context", 404, "NOT_FOUND")
    assert_error(server, "GET", f"/toolbox/{sandbox_id}/files", 404, "NOT_FOUND")
    assert_error(server, "PUT", contexts, 405, "METHOD_NOT_ALLOWED")
    assert_error(server, "DELETE", f"{contexts}/ctx_unknown", 404, "NOT_FOUND")
    assert "default" in assert_error(server, "DELETE", f"{contexts}/default", 400, "BAD_REQUEST")


def test_a_context_is_shown_with_its_five_fields(server: ToolboxServer, sandbox_id: str) -> None:
    contexts = f"/toolbox/{sandbox_id}/process/interpreter/context"
    made = server.request("POST", contexts, {"language": "python"}).json()
    assert set(made) == {"id", "cwd", "createdAt", "active", "language"}
    assert datetime.fromisoformat(made["createdAt"]).tzinfo is not None
    assert (made["active"], made["language"]) == (True, "python")
    assert server.request("GET", contexts).json() == {"contexts": [made]}


@pytest.mark.parametrize("body", [[], "x", {"cwd": 5}, {"cwd": "\0"}, {"cwd": "x" * 5000}, {"language": "cobol"}])
def test_a_context_that_cannot_be_is_a_bad_request(server: ToolboxServer, sandbox_id: str, body: object) -> None:
    answer = server.request("POST", f"/toolbox/{sandbox_id}/process/interpreter/context", body)
    assert answer.status_code == 400


def test_a_toolbox_reaches_no_contexts_of_other_sandboxes(server: ToolboxServer, sandbox_id: str) -> None:
    context_id = new_context(server, sandbox_id)
    other = server.create_sandbox()
    assert execute(server, other, "pass", contextId=context_id).code == 1008
    assert delete_context(server, other, context_id) == 404
    assert delete_context(server, sandbox_id, context_id) == 200


def test_a_socket_at_a_wrong_place_is_refused_with_the_same_body(server: ToolboxServer) -> None:
    with pytest.raises(InvalidStatus) as caught:
        execute(server, "nobody")
    assert caught.value.response.status_code == 404
    assert json.loads(caught.value.response.body or b"")["code"] == "NOT_FOUND"


def test_a_sandbox_with_a_time_to_live_is_deleted_after_it(server: ToolboxServer) -> None:
    sandbox_id = server.create_sandbox(ttlMinutes=1 / 300)
    gone = threading.Event()
    deadline = time.monotonic() + 20
    while server.request("GET", f"/api/sandbox/{sandbox_id}").status_code == 200:
        assert time.monotonic() < deadline
        gone.wait(0.05)


def test_a_sandbox_that_is_deleted_when_it_stops_goes_after_its_idle_time_but_never_while_code_runs(
    server: ToolboxServer,
) -> None:
    sandbox_id = server.create_sandbox(autoStopInterval=1 / 120, autoDeleteInterval=0)
    assert execute(server, sandbox_id, "import time; time.sleep(1.5); print('done')").stdout == "done\n"
    deadline = time.monotonic() + 20
    listed = f"/api/sandbox?id={sandbox_id}"
    while server.request("GET", listed).json()["items"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("asked", [{"volumes": [{}]}, {"snapshot": "x"}, {"gpu": 1}, {"networkAllowList": "0.0.0.0/0"}])
def test_a_sandbox_with_what_this_server_lacks_is_refused(server: ToolboxServer, asked: dict[str, object]) -> None:
    answer = server.request("POST", "/api/sandbox", asked)
    assert answer.status_code == 400
    assert next(iter(asked)) in answer.json()["message"]


def test_a_sandbox_names_its_toolbox_as_its_caller_reaches_it(server: ToolboxServer, sandbox_id: str) -> None:
    path = f"{server.url}/api/sandbox/{sandbox_id}"
    assert httpx.get(path, trust_env=False).json()["toolboxProxyUrl"] == f"{server.url}/toolbox"
    proxied = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "code.example"}
    answer = httpx.get(path, headers=proxied, trust_env=False)
    assert answer.json()["toolboxProxyUrl"] == "https://code.example/toolbox"


def test_a_name_is_taken_once(server: ToolboxServer) -> None:
    sandbox_id = server.create_sandbox(name="the one")
    assert server.request("POST", "/api/sandbox", {"name": "the one"}).status_code == 409
    server.request("DELETE", f"/api/sandbox/{sandbox_id}")
    server.request("DELETE", f"/api/sandbox/{server.create_sandbox(name='the one')}")


def test_the_info_tells_capacity_contexts_and_a_nonce_of_this_start(server: ToolboxServer, sandbox_id: str) -> None:
    before = server.request("GET", "/toolbox/x/info").json()
    new_context(server, sandbox_id)
    after = server.request("GET", "/toolbox/x/info").json()
    assert after["contexts"] == before["contexts"] + 1
    assert after["capacity"] >= after["contexts"]
    assert after["bootNonce"] == before["bootNonce"]
    assert (after["version"], after["mux"]) == (1, "code-interpreter-mux.v1")
