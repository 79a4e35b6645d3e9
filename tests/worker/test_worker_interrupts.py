"""Signals: what stops a run, what does not, and that none of it leaks into the next run."""

from __future__ import annotations

import os
import signal

import pytest

from tests.worker.worker_process import WorkerProcess

LOOPS = {
    "a busy loop": "print('ready')\nwhile True: pass",
    "a sleep": "import time\nprint('ready')\ntime.sleep(60)",
    "a wait for a lock": "import threading\nprint('ready')\nthreading.Event().wait()",
    "a wait for a child": "import subprocess\nprint('ready')\nsubprocess.run(['sleep', '60'])",
    "a command": "!echo ready; sleep 60",
    "an await": "import asyncio\nprint('ready')\nawait asyncio.sleep(60)",
    "an await of many tasks": (
        "import asyncio\nprint('ready')\nawait asyncio.gather(*(asyncio.sleep(60) for _ in range(50)))"
    ),
    "a busy coroutine": "import asyncio\nawait asyncio.sleep(0)\nprint('ready')\nwhile True: pass",
    "a loop of empty awaits": "import asyncio\nprint('ready')\nwhile True: await asyncio.sleep(0)",
    "a busy task beside": (
        "import asyncio\nasync def busy():\n    print('ready')\n    while True: pass\n"
        "t = asyncio.create_task(busy())\nawait asyncio.sleep(60)"
    ),
    "a busy callback": (
        "import asyncio\ndef busy():\n    print('ready')\n    while True: pass\n"
        "asyncio.get_running_loop().call_soon(busy)\nawait asyncio.sleep(60)"
    ),
    "asyncio.run": "import asyncio\nprint('ready')\nasyncio.run(asyncio.sleep(60))",
    "a text of a result that takes for ever": (
        "class Slow:\n    def __repr__(self):\n        print('ready')\n        while True: pass\nSlow()"
    ),
    "a text of an error that takes for ever": (
        "class Slow(Exception):\n    def __str__(self):\n        print('ready')\n        while True: pass\nraise Slow"
    ),
    "after user code took the signal": (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\nprint('ready')\nwhile True: pass"
    ),
}


@pytest.mark.parametrize("code", LOOPS.values(), ids=LOOPS)
def test_an_interrupt_stops_the_run_and_keeps_the_variables(worker: WorkerProcess, code: str) -> None:
    worker.run("kept = 1\nimport asyncio\nawait asyncio.sleep(0)")
    run = worker.interrupt_when(code)
    assert run.status == "error"
    assert run.error["name"] in ("KeyboardInterrupt", "Slow")
    assert worker.run("kept").result == "1"
    assert worker.run("await asyncio.sleep(0, 'the loop is usable')").result == "'the loop is usable'"
    again = worker.interrupt_when("print('ready')\nwhile True: pass")
    assert again.error["name"] == "KeyboardInterrupt"


def test_an_interrupted_await_runs_its_cleanup_and_shows_where_it_was(worker: WorkerProcess) -> None:
    run = worker.interrupt_when(
        "import asyncio\nasync def work():\n    try:\n"
        "        asyncio.get_running_loop().call_soon(print, 'ready')\n        await asyncio.sleep(60)\n"
        "    finally:\n        await asyncio.sleep(0)\n        print('cleaned')\nawait work()"
    )
    assert run.stdout == b"ready\ncleaned\n"
    assert run.error["name"] == "KeyboardInterrupt"
    assert "in work\n    await asyncio.sleep(60)" in run.error["traceback"]


def test_code_may_catch_the_interrupt_and_end_well(worker: WorkerProcess) -> None:
    run = worker.interrupt_when(
        "import time\ntry:\n    print('ready')\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    r = 'caught'\nr"
    )
    assert (run.status, run.result) == ("ok", "'caught'")


def test_a_keyboard_interrupt_that_code_raises_is_an_error(worker: WorkerProcess) -> None:
    run = worker.run("raise KeyboardInterrupt('own')")
    assert (run.status, run.error["name"], run.error["message"]) == ("error", "KeyboardInterrupt", "own")


def test_an_interrupt_between_runs_is_ignored(worker: WorkerProcess) -> None:
    worker.run("import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\nNone")
    for number in range(50):
        os.kill(worker.process.pid, signal.SIGINT)
        assert worker.run(f"{number}").result == str(number)


def test_interrupts_at_any_moment_leave_one_answer_for_each_run(worker: WorkerProcess) -> None:
    """Signals rain on the worker from its own child while runs begin, show, fail and end."""
    worker.run(
        "import asyncio, os, signal, time\nparent = os.getpid()\nchild = os.fork()\n"
        "if child == 0:\n"
        "    signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "    while os.getppid() == parent:\n        os.kill(parent, signal.SIGINT); time.sleep(0.0003)\n"
        "    os._exit(0)"
    )
    codes = ["1 + 1", "display('x')", "1/0", "print('p')", "await asyncio.sleep(0)", "exit(3)"]
    for _ in range(50):
        for code in codes:
            run = worker.run(code)
            assert run.status == "ok" or run.error["name"] in ("KeyboardInterrupt", "ZeroDivisionError"), run.error


def test_handlers_of_user_code_act_in_runs_alone(worker: WorkerProcess) -> None:
    """A timer whose handler raises must not reach the worker's own code between runs."""
    worker.run(
        "import signal\nhits = []\n"
        "def fire(number, frame):\n    hits.append(number)\n    raise TimeoutError('fired')\n"
        "signal.signal(signal.SIGALRM, fire)\nsignal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)"
    )
    endings = {worker.run("display('x'); sum(range(1000))").status for _ in range(300)}
    assert endings <= {"ok", "error"}
    while worker.run("signal.setitimer(signal.ITIMER_REAL, 0); n = len(hits)").status != "ok":
        pass
    assert worker.run("n > 0 and signal.getsignal(signal.SIGALRM) is fire").result == "True"


def test_a_signal_held_back_between_runs_is_delivered_in_the_next(worker: WorkerProcess) -> None:
    worker.run("import os, signal\ngot = []\nsignal.signal(signal.SIGUSR1, lambda n, f: got.append(n))\nNone")
    os.kill(worker.process.pid, signal.SIGUSR1)
    assert worker.run("got").result == f"[{int(signal.SIGUSR1)}]"


def test_a_handler_that_cannot_be_compared_ends_no_run(worker: WorkerProcess) -> None:
    run = worker.run(
        "import os, signal\ngot = []\nclass Handler:\n    def __call__(self, number, frame): got.append(number)\n"
        "    def __eq__(self, other): raise ValueError\n    __hash__ = None\n"
        "signal.signal(signal.SIGUSR1, Handler())\nNone"
    )
    assert run.status == "ok"
    os.kill(worker.process.pid, signal.SIGUSR1)
    assert worker.run("got").result == f"[{int(signal.SIGUSR1)}]"


def test_blocking_the_signal_lasts_for_one_run(worker: WorkerProcess) -> None:
    worker.run("import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\nNone")
    assert worker.interrupt_when("print('ready')\nwhile True: pass").error["name"] == "KeyboardInterrupt"
