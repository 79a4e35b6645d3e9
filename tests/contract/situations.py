"""Situations that every engine must handle: Python for engines that run code, steps for the scripted one."""

from __future__ import annotations

from collections.abc import Sequence

from mcp_server.engine.scripted import (
    Assign,
    Block,
    Die,
    Exit,
    Fail,
    Recall,
    Result,
    ShowEnv,
    Step,
    Write,
    WriteLate,
)
from mcp_server.model import Stream

PRINT_HI = "print('hi')"
PRINT_BOTH = "import sys; print('out'); print('err', file=sys.stderr)"
PRINT_LATIN_1 = "import os; n = os.write(1, b'caf\\xe9')"
SUM = "1 + 1"
PRINT_AND_SUM = "print('x' * 1000)\n1 + 1"
NOTHING = "pass"
SET_X = "x = 41"
GET_X = "x"
DIVIDE = "1 / 0"
EXIT_3 = "exit(3)"
SHOW_ENV = "import os; os.environ.get('COLOUR', '')"
SLEEP = "print('started', flush=True)\nimport time\nwhile True: time.sleep(0.01)"
STUBBORN = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
print('started', flush=True)
while True: time.sleep(0.01)
"""
ABORT = "print('before', flush=True); import os; os.abort()"
EXIT_HARD = "print('before', flush=True); import os; os._exit(7)"
LATE = """
import threading, time
gate = threading.Event()
def speak():
    gate.wait()
    time.sleep(0.2)  # the run that opened the gate is over by then
    print('from a thread', flush=True)
threading.Thread(target=speak, daemon=True).start()
gate.set()
"""
LONG = "print('x' * 100_000)"

SCRIPTS: dict[str, Sequence[Step]] = {
    PRINT_HI: [Write(b"hi\n")],
    PRINT_BOTH: [Write(b"out\n"), Write(b"err\n", Stream.STDERR)],
    PRINT_LATIN_1: [Write(b"caf\xe9")],
    SUM: [Result("2")],
    PRINT_AND_SUM: [Write(b"x" * 1000 + b"\n"), Result("2")],
    NOTHING: [],
    SET_X: [Assign("x", "41")],
    GET_X: [Recall("x")],
    DIVIDE: [Fail("ZeroDivisionError", "division by zero")],
    EXIT_3: [Exit(3)],
    SHOW_ENV: [ShowEnv("COLOUR")],
    SLEEP: [Write(b"started\n"), Block()],
    STUBBORN: [Write(b"started\n"), Block(stubborn=True)],
    ABORT: [Write(b"before\n"), Die(signal=6)],
    EXIT_HARD: [Write(b"before\n"), Die(exit_code=7)],
    LATE: [WriteLate(b"from a thread\n")],
    LONG: [Write(b"x" * 100_000 + b"\n")],
}
