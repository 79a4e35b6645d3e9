"""Faults that another interpreter behind this protocol was known for, each a case that is right here."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from tests.toolbox.plain_socket import Spoken, execute, hear, hear_output, opened
from tests.toolbox.test_toolbox_server import delete_context, new_context
from tests.toolbox.toolbox_server import ToolboxServer

Run = Callable[..., Spoken]


@pytest.fixture
def run(server: ToolboxServer, sandbox_id: str) -> Run:
    return lambda code, **fields: execute(server, sandbox_id, code, **fields)


def test_output_of_child_processes_arrives(run: Run) -> None:
    code = "import subprocess\nfor n in range(3): subprocess.run(['sh', '-c', f'echo {n}; echo {n} >&2'])"
    spoken = run(code)
    assert (spoken.stdout, spoken.text("stderr")) == ("0\n1\n2\n", "0\n1\n2\n")


def test_a_line_over_one_mebibyte_does_not_wedge_the_context(run: Run) -> None:
    assert run("print('x' * 3_000_000)").stdout == "x" * 3_000_000 + "\n"
    assert run("print('next')").stdout == "next\n"


def test_text_without_a_newline_on_descriptor_1_does_not_wedge_the_context(run: Run) -> None:
    assert run("import os; n = os.write(1, b'no newline')").stdout == "no newline"
    assert run("print('next')").stdout == "next\n"


@pytest.mark.parametrize("end", ["os._exit(1)", "os.abort()", "os.kill(os.getpid(), 11)"])
def test_the_end_of_the_interpreter_does_not_wedge_the_context(run: Run, end: str) -> None:
    assert run(f"import os; {end}").code == 1001
    assert run("print('next')").stdout == "next\n"


FORGED = json.dumps({"type": "control", "text": "completed", "name": "", "value": "", "traceback": ""})


@pytest.mark.parametrize("fd", [1, 2])
def test_a_forged_frame_on_an_output_stream_is_output(run: Run, fd: int) -> None:
    code = f"import os, sys; n = os.write({fd}, {FORGED!r}.encode() + b'\\n'); print('after', flush=True)"
    spoken = run(code)
    assert spoken.text("stdout" if fd == 1 else "stderr").startswith(FORGED)
    assert "after\n" in spoken.stdout
    assert [frame["type"] for frame in spoken.frames].count("control") == 1


def test_bytes_forged_on_every_descriptor_stay_in_their_own_context(
    server: ToolboxServer, sandbox_id: str, run: Run
) -> None:
    code = (
        "import os\n"
        "for fd in map(int, os.listdir('/proc/self/fd')):\n"
        "    try: os.write(fd, b'\\x13\\0\\0\\0\\2\\0\\0\\0\\0{}' * 3)\n"
        "    except OSError: pass\n"
    )
    other = new_context(server, sandbox_id)
    run("x = 1", contextId=other)
    assert run(code).code in (1000, 1001)
    assert run("print(x)", contextId=other).stdout == "1\n"
    assert run("print('next')").stdout.endswith("next\n")


def test_prints_of_threads_arrive(run: Run) -> None:
    code = (
        "import threading\n"
        "threads = [threading.Thread(target=print, args=(n,)) for n in range(50)]\n"
        "for t in threads: t.start()\n"
        "for t in threads: t.join()\n"
    )
    assert sorted(run(code).stdout.split(), key=int) == [str(number) for number in range(50)]


def test_a_keyboard_interrupt_of_the_codes_own_is_an_error_and_no_timeout(run: Run) -> None:
    spoken = run("raise KeyboardInterrupt('mine')", timeout=60)
    assert (spoken.code, spoken.control) == (1000, "completed")
    assert spoken.error is not None
    assert (spoken.error["name"], spoken.error["value"]) == ("KeyboardInterrupt", "mine")


@pytest.mark.parametrize("leave", ["exit()", "exit(3)", "import sys; sys.exit('bye')", "raise SystemExit"])
def test_exit_ends_the_run_and_keeps_the_state(run: Run, leave: str) -> None:
    run("x = 1")
    assert run(leave).code == 1000
    assert run("print(x)").stdout == "1\n"


def test_children_do_not_survive_the_deletion_of_their_context(
    server: ToolboxServer, sandbox_id: str, run: Run
) -> None:
    context_id = new_context(server, sandbox_id)
    code = "import subprocess\nchild = subprocess.Popen(['sleep', '1000'], start_new_session=True)\nprint(child.pid)"
    pid = int(run(code, contextId=context_id).stdout)
    assert alive(pid)
    assert delete_context(server, sandbox_id, context_id) == 200
    assert not alive(pid)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_client_that_waits_in_line_gets_its_pings_answered(server: ToolboxServer, sandbox_id: str) -> None:
    with opened(server, sandbox_id) as running, opened(server, sandbox_id) as waiting:
        running.send(json.dumps({"code": "print('started', flush=True)\nwhile True: pass", "timeout": 0}))
        assert hear_output(running) == "started\n"
        waiting.send(json.dumps({"code": "print('my turn')"}))
        for _ in range(5):
            assert waiting.ping().wait(20)
        running.close()
        assert hear(waiting).stdout == "my turn\n"


def test_no_polling_stands_between_the_end_of_a_run_and_its_closing_frame(run: Run) -> None:
    run("pass")
    times = []
    for _ in range(50):
        began = time.perf_counter()
        run("pass")
        times.append(time.perf_counter() - began)
    assert min(times) < 0.025  # a server that looks every 50 ms takes 55 ms each time


def test_text_that_no_utf8_can_hold_arrives_replaced(run: Run) -> None:
    assert run("import os; n = os.write(1, b'caf\\xe9 \\0 end')").stdout == "caf\ufffd \0 end"
    spoken = run("raise ValueError('\\ud800')")
    assert spoken.error is not None
    assert spoken.error["name"] == "ValueError"
    assert run("print('\\ud800 \\0')").code == 1000
