"""Processes that user code starts: they work as in a script, and none speaks for the context."""

from __future__ import annotations

import os
import re
import select
import sys

import pytest

from mcp_server.worker import frames
from tests.worker.worker_process import PATIENCE_S, WorkerProcess


def test_a_forked_child_that_comes_back_from_its_cell_ends_and_says_nothing(worker: WorkerProcess) -> None:
    run = worker.run(
        "import os\npid = os.fork()\nprint('parent' if pid else 'child')\n"
        "if pid: status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\npid and status"
    )
    assert sorted(run.out.splitlines()) == ["child", "parent"]
    assert run.result == "0"
    assert worker.run("1 + 1").result == "2"


@pytest.mark.parametrize(
    ("end", "status", "stderr"),
    [("1/0", 1, "ZeroDivisionError: division by zero\n"), ("exit(7)", 7, ""), ("exit('text')", 1, "text\n")],
)
def test_a_forked_child_ends_as_a_script_would(worker: WorkerProcess, end: str, status: int, stderr: str) -> None:
    worker.start("import os\npid = os.fork()\nif not pid: %s\nos.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])" % end)  # noqa: UP031
    run = worker.finish()
    assert run.result == str(status)
    assert run.stderr.decode().endswith(stderr)
    assert bool(run.stderr) == bool(stderr)


def test_a_forked_child_cannot_show_anything_in_the_parents_name(worker: WorkerProcess) -> None:
    run = worker.run("import os\npid = os.fork()\nif not pid:\n    display('child')\nelse:\n    os.waitpid(pid, 0)")
    assert run.shown == []
    assert run.stdout == b"'child'\n"


def test_a_forked_child_that_awaits_ends_too(worker: WorkerProcess) -> None:
    run = worker.run(
        "import asyncio, os\nawait asyncio.sleep(0)\npid = os.fork()\nif not pid: 5/0\n"
        "r = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\nr"
    )
    assert run.result == "1"
    assert worker.run("await asyncio.sleep(0, 'mine')").result == "'mine'"


def test_a_child_left_behind_does_not_hold_the_control_socket(worker: WorkerProcess) -> None:
    worker.run(
        "import os, subprocess\n"
        "forked = os.fork()\n"
        "if not forked:\n    import time\n    time.sleep(60)\n"
        "spawned = subprocess.Popen(['sleep', '60'], close_fds=False)\n"
    )
    worker.start("os._exit(9)")
    assert select.select([worker.socket], [], [], PATIENCE_S)[0]
    assert worker.socket.recv(1) == b""
    assert worker.process.wait(PATIENCE_S) == 9


POOLS = """
import multiprocessing, concurrent.futures, sys
def square(n):
    return n * n
class Point:
    def __init__(self, x): self.x = x
    def __repr__(self): return f"Point({self.x})"
"""

USES = {
    "a pool": "with multiprocessing.Pool(2) as pool: r = pool.map(square, range(5))\nr",
    "an executor": "with concurrent.futures.ProcessPoolExecutor(2) as pool: r = list(pool.map(square, range(5)))\nr",
    "a process and a queue": (
        "q = multiprocessing.Queue()\np = multiprocessing.Process(target=lambda: q.put([n * n for n in range(5)]))\n"
        "p.start()\nr = q.get()\np.join()\nr"
    ),
    "a pool of spawned children with a library's function": (
        "import operator\nwith multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "    r = pool.starmap(operator.mul, [(n, n) for n in range(5)])\nr"
    ),
    "a fork server with a library's function": (
        "import operator\nwith multiprocessing.get_context('forkserver').Pool(1) as pool:\n"
        "    r = pool.starmap(operator.mul, [(n, n) for n in range(5)])\nr"
    ),
}


@pytest.mark.parametrize("code", USES.values(), ids=USES)
def test_multiprocessing_works_with_what_a_cell_defines(worker: WorkerProcess, code: str) -> None:
    assert worker.run(POOLS).status == "ok"
    run = worker.run(code)
    assert (run.result, run.stderr) == ("[0, 1, 4, 9, 16]", b"")


def test_objects_of_a_cells_class_come_back_from_a_pool(worker: WorkerProcess) -> None:
    worker.run(POOLS)
    assert worker.run("with multiprocessing.Pool(2) as p: r = p.map(Point, [1, 2])\nr").result == "[Point(1), Point(2)]"


def test_output_of_pool_workers_arrives(worker: WorkerProcess) -> None:
    run = worker.run(
        "import multiprocessing\ndef say(n): print('from', n)\nwith multiprocessing.Pool(2) as p: p.map(say, range(4))"
    )
    assert sorted(run.out.splitlines()) == [f"from {n}" for n in range(4)]


def test_a_failing_pool_worker_shows_the_cells_lines(worker: WorkerProcess) -> None:
    error = worker.run(
        "import multiprocessing\ndef fail(n): raise ValueError('in the child')\n"
        "with multiprocessing.Pool(1) as p: p.map(fail, [1])"
    ).error
    assert (error["name"], error["message"].split("\n")[0]) == ("ValueError", "in the child")
    assert "in fail" in error["traceback"]


def test_a_spawned_child_does_not_run_the_cells_again_and_says_what_it_cannot_find(worker: WorkerProcess) -> None:
    worker.run(POOLS + "print('once')")
    run = worker.run(
        "p = multiprocessing.get_context('spawn').Process(target=square, args=(2,))\np.start()\np.join()\np.exitcode"
    )
    assert (run.stdout, run.result) == (b"", "1")
    assert re.search(rb"AttributeError: .*attribute 'square'", run.stderr)


def test_each_context_has_its_own_multiprocessing_key(worker: WorkerProcess) -> None:
    with WorkerProcess("multiprocessing") as first, WorkerProcess("multiprocessing") as second:
        code = "import multiprocessing; bytes(multiprocessing.current_process().authkey)"
        assert first.run(code).result != second.run(code).result


def test_a_shell_child_does_not_inherit_the_socket(shared: WorkerProcess) -> None:
    run = shared.run(
        "import subprocess\nprint(subprocess.run('ls /proc/self/fd', shell=True, capture_output=True).stdout)"
    )
    assert run.out.split("\\n")[:3] == ["b'0", "1", "2"]
    assert len(run.out.split("\\n")) == 5  # the three, the listed directory, and the end of the text


def test_threads_in_a_forked_child_print_whole_lines(worker: WorkerProcess) -> None:
    run = worker.run(
        "import os, threading\n"
        "stop = threading.Event()\n"
        "def noise():\n    while not stop.is_set(): print('n' * 50)\n"
        "threads = [threading.Thread(target=noise) for _ in range(4)]\n[t.start() for t in threads]\n"
        "for _ in range(20):\n"
        "    pid = os.fork()\n"
        "    if not pid:\n        print('child')\n        os._exit(0)\n"
        "    assert os.waitpid(pid, 0)[1] == 0\n"
        "stop.set()\n[t.join() for t in threads]\nNone"
    )
    assert run.status == "ok"


def test_the_contexts_end_frame_comes_while_a_daemon_holds_the_pipes(worker: WorkerProcess) -> None:
    run = worker.run("import subprocess\nd = subprocess.Popen(['sleep', '60'])\nprint('done')")
    assert run.stdout == b"done\n"
    worker.run("d.kill(); d.wait()")


def test_seeds_differ_between_contexts_and_can_be_left_alone() -> None:
    code = "import random; random.random(), numpy.random.rand()"
    drawn = set()
    for _ in range(2):
        with WorkerProcess("random", "numpy") as process:
            process.run("import numpy")
            drawn.add(process.run(code).result)
    assert len(drawn) == 2


def test_the_test_worker_is_the_interpreter_of_the_tests(shared: WorkerProcess) -> None:
    assert shared.answer is not None
    assert shared.answer.kind == frames.READY
    assert shared.answer.header["pid"] == shared.process.pid
    assert shared.answer.header["python"] == "{}.{}.{}".format(*sys.version_info[:3])
    assert os.path.isdir(shared.answer.header["cwd"])


BLAS_THREADS = """
import ctypes
path = next(line.split()[-1] for line in open('/proc/self/maps') if 'openblas' in line)
ctypes.CDLL(path).scipy_openblas_get_num_threads64_()
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor")
def test_blas_has_all_processors_again_once_numpy_is_used() -> None:
    one = {"OPENBLAS_NUM_THREADS": "1"}
    with WorkerProcess("numpy", zygote_envs=one) as process:
        assert process.run(BLAS_THREADS).result == "1"
        process.run("import numpy")
        assert process.run(BLAS_THREADS).result == str(len(os.sched_getaffinity(0)))
    with WorkerProcess("numpy", zygote_envs=one, envs=one) as process:
        process.run("import numpy")
        assert process.run(BLAS_THREADS).result == "1"
