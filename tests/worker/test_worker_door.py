"""The first and the last frame of a worker, and that each run gets exactly one answer whatever its code spoils."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mcp_server.worker import frames
from tests.worker.worker_process import PATIENCE_S, WorkerProcess


def test_init_sets_the_directory_and_the_environment(tmp_path: Path) -> None:
    with WorkerProcess(cwd=str(tmp_path), envs={"GIVEN": "v", "TZ": "XYZ-3"}) as process:
        assert process.answer is not None
        assert process.answer.header["cwd"] == str(tmp_path)
        code = "import os, time; os.getcwd(), os.environ['GIVEN'], time.strftime('%Z', time.localtime(0))"
        assert process.run(code).result == repr((str(tmp_path), "v", "XYZ"))


def test_modules_are_found_where_the_environment_says(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.py").write_text("PLACE = 'there'")
    with WorkerProcess(envs={"PYTHONPATH": f"/nowhere:{tmp_path}"}) as process:
        assert process.run("import elsewhere, sys; elsewhere.PLACE, sys.path[0]").result == "('there', '')"


@pytest.mark.parametrize(
    ("cwd", "envs", "said"),
    [
        ("/no/such/place", {}, "The directory /no/such/place does not exist."),
        ("/dev/null", {}, "/dev/null is not a directory."),
        ("/a\0b", {}, "cannot be entered"),
        ("/" + "x" * 5000, {}, "cannot be entered"),
        ("/", {"A=B": "x"}, "The environment cannot be set"),
    ],
)
def test_what_cannot_be_entered_is_refused_and_the_process_ends(cwd: str, envs: dict[str, str], said: str) -> None:
    with WorkerProcess(cwd=cwd, envs=envs) as process:
        assert process.answer is not None
        assert process.answer.kind == frames.REFUSED
        assert said in process.answer.header["message"]
        assert process.process.wait(PATIENCE_S) == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter every directory")
def test_a_directory_that_may_not_be_entered_is_refused(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o000)
    with WorkerProcess(cwd=str(tmp_path / "closed")) as process:
        assert process.answer is not None
        assert "may not be entered" in process.answer.header["message"]


def test_the_end_of_the_socket_ends_the_worker_at_once(worker: WorkerProcess) -> None:
    worker.run("import atexit\natexit.register(lambda: open('ran', 'w'))\nNone")
    worker.socket.close()
    assert worker.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize(
    "data",
    [b"\xff" * 64, frames.encode(frames.Frame(frames.END, {})), frames.encode(frames.Frame(frames.INIT, {}))],
)
def test_bytes_that_are_not_the_frame_that_is_due_end_the_worker(worker: WorkerProcess, data: bytes) -> None:
    worker.socket.sendall(data)
    assert worker.process.wait(PATIENCE_S) == os.EX_PROTOCOL


def test_a_first_frame_that_is_no_init_ends_the_worker() -> None:
    with WorkerProcess(ready=False) as process:
        process.send(frames.Frame(frames.RUN, {"run": 1, "envs": {}}, b"1"))
        assert process.process.wait(PATIENCE_S) == os.EX_PROTOCOL


def test_nothing_of_ours_is_on_the_search_path_or_in_the_namespace(shared: WorkerProcess) -> None:
    names = shared.run("sorted(name for name in globals())").result
    assert names == "['__builtins__', '__doc__', '__loader__', '__name__', '__package__', '__spec__']"
    assert shared.run("import sys; [p for p in sys.path if 'worker' in p]").result == "[]"


SPOILERS = {
    "every builtin deleted": "import builtins as b\nfor n in list(vars(b)):\n    if n[0] != '_': delattr(b, n)",
    "len and isinstance replaced": "import builtins\nbuiltins.len = builtins.isinstance = builtins.repr = None",
    "json spoiled": "import json\njson.dumps = json.loads = json.JSONEncoder.encode = json.decoder = None",
    "os spoiled": "import os\nfor n in ('getpid', 'fstat', 'dup2', 'write', 'kill'): setattr(os, n, None)",
    "signal spoiled": "import signal\nsignal.signal = signal.getsignal = signal.pthread_sigmask = None",
    "threading spoiled": "import threading\nthreading.Lock = threading.RLock = threading.get_ident = None",
    "socket spoiled": "import socket\nsocket.socket.send = socket.socket.sendall = socket.socket.recv = None",
    "time spoiled": "import time\ntime.time = time.monotonic = time.tzset = None",
    "a default timeout of sockets": "import socket\nsocket.setdefaulttimeout(0.001)",
    "sys spoiled": "import sys\nsys.modules.clear()",
    "main replaced": "import sys, types\nsys.modules['__main__'] = types.ModuleType('x')",
    "the least recursion": "import sys\nfor n in range(20, 200):\n    try:\n        sys.setrecursionlimit(n); break\n"
    "    except RecursionError: pass",
    "a trace function that raises": "import sys\ndef t(*a): raise ValueError\nsys.settrace(t)\ndef f(): pass\n"
    "try: f()\nexcept ValueError: sys.settrace(t)",
    "a trace function": "import sys\nsys.settrace(lambda *a: None)",
    "the collector off": "import gc\ngc.disable()",
    "hooks that raise": "import sys\ndef h(*a): raise ValueError\nsys.excepthook = sys.displayhook = h",
    "an audit hook that counts": "import sys\nseen = set()\nsys.addaudithook(lambda *a: seen.add(a[0]))",
    "linecache and traceback spoiled": "import linecache, traceback\nlinecache.cache = linecache.getline = None\n"
    "traceback.FrameSummary = None",
    "codecs spoiled": "import codecs\ncodecs.lookup = codecs.encode = None",
    "all variables deleted": "for n in list(globals()): del globals()[n]",
    "the directory removed": "import os\nos.mkdir('d'); os.chdir('d'); os.rmdir('../d')",
    "a switch interval": "import sys\nsys.setswitchinterval(1e-6)",
}


@pytest.mark.parametrize("spoiler", SPOILERS.values(), ids=SPOILERS)
def test_each_run_is_answered_once_whatever_the_code_spoils(worker: WorkerProcess, spoiler: str) -> None:
    worker.run(spoiler)
    for code in ("pass", "1 +", "undefined", "pass"):
        run = worker.run(code)
        assert run.status == ("ok" if code == "pass" else "error") or run.error["name"]
    worker.socket.close()
    assert worker.process.wait(PATIENCE_S) == 0


ENDS = {"os._exit": ("import os; os._exit(7)", 7), "abort": ("import os; os.abort()", -6)}


@pytest.mark.parametrize(("code", "status"), ENDS.values(), ids=ENDS)
def test_a_process_that_ends_closes_the_socket(worker: WorkerProcess, code: str, status: int) -> None:
    worker.start(code)
    assert worker.socket.recv(1) == b""
    assert worker.process.wait(PATIENCE_S) == status


def test_a_segmentation_fault_says_where(worker: WorkerProcess) -> None:
    worker.start("import ctypes\nctypes.string_at(1)")
    assert worker.socket.recv(1) == b""
    assert worker.process.wait(PATIENCE_S) == -11
    assert worker.process.stderr is not None
    stderr = worker.process.stderr.read().decode()
    assert "Segmentation fault" in stderr
    assert '"<cell 1>", line 2' in stderr


def test_ten_thousand_small_runs_do_not_grow_the_worker(worker: WorkerProcess) -> None:
    resident = "int(open('/proc/self/statm').read().split()[1]) * 4096"
    for number in range(1500):
        worker.run(f"x = {number}; x")
    before = int(worker.run(resident).result or 0)
    for number in range(10_000):
        worker.run(f"x = {number}; x")
    grown = int(worker.run(resident).result or 0) - before
    assert grown < 2_000_000
