"""What other interpreters get wrong, each as a case that must be right here: real workers, real processes."""

from __future__ import annotations

import asyncio
import os
import resource
import select
import signal
from pathlib import Path

import pytest

from mcp_server.engine.local import LocalEngine
from mcp_server.errors import InvalidArgument
from mcp_server.model import ContextSpec, RunRequest, State, Status, Stream
from tests.bench import Bench, Listener

pytestmark = pytest.mark.anyio


async def test_the_output_of_child_processes_is_captured(bench: Bench) -> None:
    outcome, heard = await bench.run(
        "import subprocess, sys, os\n"
        "subprocess.run(['/bin/sh', '-c', 'echo from a shell; echo to stderr >&2'])\n"
        "os.system('echo from system')\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    print('from a fork'); sys.stdout.flush(); os._exit(0)\n"
        "n = os.waitpid(pid, 0)"
    )
    assert outcome.status is Status.OK
    assert heard.output() == b"from a shell\nfrom system\nfrom a fork\n"
    assert heard.output(Stream.STDERR) == b"to stderr\n"


async def test_a_line_of_five_megabytes_arrives_whole(bench: Bench) -> None:
    _, heard = await bench.run("print('x' * 5_000_000)")
    assert heard.output() == b"x" * 5_000_000 + b"\n"


async def test_text_without_a_newline_on_descriptor_1_arrives(bench: Bench) -> None:
    outcome, heard = await bench.run("import os; n = os.write(1, b'no newline')")
    assert outcome.status is Status.OK
    assert heard.output() == b"no newline"


@pytest.mark.parametrize(
    ("code", "exit_code", "signal"),
    [
        ("import os; os._exit(0)", 0, None),
        ("import os; os._exit(42)", 42, None),
        ("import os; os.abort()", None, 6),
        ("import ctypes; ctypes.string_at(0)", None, 11),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", None, 9),
        (
            "import sys; sys.setrecursionlimit(10**9)\ndef f(): return f()\nimport ctypes; ctypes.memset(0, 1, 1)",
            None,
            11,
        ),
    ],
)
async def test_a_worker_that_dies_is_a_crash_and_its_context_goes_on_empty(
    bench: Bench, code: str, exit_code: int | None, signal: int | None
) -> None:
    await bench.run("x = 41")
    outcome, _ = await bench.run(f"print('before', flush=True)\n{code}")
    assert (outcome.status, outcome.state) == (Status.CRASHED, State.RESET)
    assert (outcome.exit_code, outcome.signal) == (exit_code, signal)
    outcome, heard = await bench.run("'x' in globals()")
    assert (outcome.status, heard.result()) == (Status.OK, "False")
    assert outcome.lost_before


async def test_a_worker_that_dies_between_runs_is_said_with_the_next(bench: Bench) -> None:
    _, heard = await bench.run("import os, threading; os.getpid()")
    pid = int(heard.result())
    await bench.run("t = threading.Timer(0.1, os._exit, (5,)); t.start()")
    await gone(pid)
    outcome, _ = await bench.run("1")
    assert outcome.status is Status.OK
    assert "exit code 5" in outcome.lost_before


async def test_all_prints_of_eight_threads_arrive_as_whole_lines(bench: Bench) -> None:
    outcome, heard = await bench.run(
        "import threading\n"
        "def work(k):\n"
        "    for i in range(2000): print(f'thread {k} line {i}')\n"
        "threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]\n"
        "for t in threads: t.start()\n"
        "for t in threads: t.join()\n"
    )
    assert outcome.status is Status.OK
    lines = heard.output().decode().splitlines()
    assert len(lines) == 16_000
    assert set(lines) == {f"thread {k} line {i}" for k in range(8) for i in range(2000)}


async def test_a_keyboard_interrupt_of_the_codes_own_is_an_error_and_no_timeout(bench: Bench) -> None:
    outcome, _ = await bench.run("raise KeyboardInterrupt", timeout_s=60)
    assert outcome.status is Status.ERROR
    assert outcome.error is not None
    assert outcome.error.name == "KeyboardInterrupt"


async def test_exit_keeps_the_context(bench: Bench) -> None:
    await bench.run("x = 41")
    for code, exit_code in (("exit()", 0), ("import sys; sys.exit(4)", 4), ("raise SystemExit('bye')", 1)):
        outcome, _ = await bench.run(code)
        assert (outcome.status, outcome.state, outcome.exit_code) == (Status.OK, State.KEPT, exit_code)
    _, heard = await bench.run("x")
    assert heard.result() == "41"


async def test_children_die_with_their_context_however_they_hide(bench: Bench, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    os.chmod(tmp_path, 0o777)
    await bench.run(
        "import os, signal, time\n"
        "def record():\n"
        f"    with open({str(pids)!r}, 'a') as file: print(os.getpid(), file=file)\n"
        "read, write = os.pipe()\n"
        "def hidden():\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "    record(); os.write(write, b'.')\n"
        "    while True: time.sleep(60)\n"
        "if os.fork() == 0: hidden()\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0: hidden()\n"
        "    os._exit(0)\n"
        "n = 0\n"
        "while n < 2: n += len(os.read(read, 1))\n"
    )
    hidden = [int(line) for line in pids.read_text().split()]
    assert len(hidden) == 2
    assert all(alive(pid) for pid in hidden)
    await bench.engine.delete(bench.context_id)
    assert not any(alive(pid) for pid in hidden)


@pytest.mark.parametrize(
    "forgery",
    [
        b"garbage that is no frame at all",
        b"\x13\x00\x00\x00\x02\x00\x00\x00\x00{}",
        b'\x13\x00\x00\x00\x30\x00\x00\x00\x00{"run":9,"status":"ok","error":null,"exit_code":0}',
        b"\xff" * 64,
        b"\x12\xff\xff\xff\xff\xff\xff\xff\xff",
    ],
)
async def test_a_forged_frame_hurts_its_own_context_only(
    local_engine: LocalEngine, bench: Bench, forgery: bytes
) -> None:
    neighbour = await local_engine.create(ContextSpec("sbx_test"), Listener())
    await local_engine.execute(neighbour.context_id, RunRequest(1, "x = 41"), Listener())
    outcome, _ = await bench.run(
        "import os, socket, stat, time\n"
        "for fd in map(int, os.listdir('/proc/self/fd')):\n"
        "    try: mode = os.fstat(fd).st_mode\n"
        "    except OSError: continue\n"
        "    if stat.S_ISSOCK(mode):\n"
        f"        os.write(fd, {forgery!r})\n"
        "time.sleep(30)",
        timeout_s=60,
    )
    assert (outcome.status, outcome.state) == (Status.CRASHED, State.RESET)
    assert "wire" in outcome.detail
    assert (await bench.run("1"))[0].status is Status.OK
    heard = Listener()
    await local_engine.execute(neighbour.context_id, RunRequest(2, "x"), heard)
    assert heard.result() == "41"


async def test_a_forged_end_is_believed_about_its_own_run_only_and_the_late_one_is_a_violation(bench: Bench) -> None:
    outcome, _ = await bench.run(
        "import os, socket, stat, struct, time, json\n"
        "header = json.dumps({'run': 1, 'status': 'ok', 'error': None, 'exit_code': None}).encode()\n"
        "for fd in map(int, os.listdir('/proc/self/fd')):\n"
        "    try: mode = os.fstat(fd).st_mode\n"
        "    except OSError: continue\n"
        "    if stat.S_ISSOCK(mode): os.write(fd, struct.pack('>BII', 19, len(header), 0) + header)\n"
    )
    assert outcome.status is Status.OK
    outcome, _ = await bench.run("1")
    assert outcome.status in (Status.OK, Status.CRASHED)
    assert outcome.lost_before or outcome.state is State.RESET


async def test_code_that_closes_every_descriptor_loses_its_context_and_nothing_else(bench: Bench) -> None:
    outcome, _ = await bench.run("import os, time; os.closerange(0, 100_000); time.sleep(30)", timeout_s=60)
    assert (outcome.status, outcome.state) == (Status.CRASHED, State.RESET)
    outcome, heard = await bench.run("print('back')")
    assert (outcome.status, heard.output()) == (Status.OK, b"back\n")


async def test_a_pool_of_processes_runs_a_function_of_the_cell(bench: Bench) -> None:
    await bench.run("def square(n): return n * n")
    outcome, heard = await bench.run(
        "import multiprocessing\nwith multiprocessing.Pool(2) as pool: answer = pool.map(square, range(5))\nanswer",
        timeout_s=60,
    )
    assert (outcome.status, heard.result()) == (Status.OK, "[0, 1, 4, 9, 16]")


async def test_a_class_of_the_cell_can_be_pickled(bench: Bench) -> None:
    await bench.run("import pickle\nclass Point:\n    def __init__(self, x): self.x = x")
    outcome, heard = await bench.run("pickle.loads(pickle.dumps(Point(7))).x")
    assert (outcome.status, heard.result()) == (Status.OK, "7")


async def test_input_raises_at_once(bench: Bench) -> None:
    for code in ("input('name? ')", "import sys; sys.stdin.read()"):
        outcome, _ = await bench.run(code, timeout_s=60)
        assert outcome.status is Status.ERROR
        assert outcome.error is not None
        assert "stdin" in outcome.error.message or "input" in outcome.error.message


async def test_a_daemon_that_holds_the_pipes_open_does_not_hold_the_run(bench: Bench) -> None:
    outcome, heard = await bench.run("import subprocess; p = subprocess.Popen(['sleep', '600']); print('done')")
    assert (outcome.status, heard.output()) == (Status.OK, b"done\n")


async def test_an_interrupt_reaches_the_children_in_the_foreground(bench: Bench) -> None:
    await bench.run("x = 41")
    code = "import subprocess\nprint('started', flush=True)\nsubprocess.run(['sleep', '600'])"
    running = await bench.run_until_started(code)
    await bench.engine.interrupt(bench.context_id, Status.INTERRUPTED)
    outcome, _ = await running
    assert (outcome.status, outcome.state) == (Status.INTERRUPTED, State.KEPT)
    _, heard = await bench.run("x")
    assert heard.result() == "41"


async def test_an_interrupt_that_comes_late_never_hits_the_next_run(bench: Bench) -> None:
    for _ in range(100):
        running = asyncio.create_task(bench.run("pass"))
        await asyncio.sleep(0)
        await bench.engine.interrupt(bench.context_id, Status.INTERRUPTED)
        outcome, _ = await running
        assert outcome.state is State.KEPT
        assert (await bench.run("1"))[0].status is Status.OK


async def test_fifty_contexts_run_at_once_each_with_its_own_variables(local_engine: LocalEngine) -> None:
    contexts = [await local_engine.create(ContextSpec(f"sbx_{k % 5}"), Listener()) for k in range(50)]

    async def use(k: int, context_id: str) -> str:
        for number, code in enumerate([f"x = {k}", "import time; time.sleep(0.05)", "x += 1000", "print(x)"], start=1):
            heard = Listener()
            outcome = await local_engine.execute(context_id, RunRequest(number, code), heard)
            assert outcome.status is Status.OK
        return heard.output().decode().strip()

    answers = await asyncio.gather(*(use(k, info.context_id) for k, info in enumerate(contexts)))
    assert answers == [str(1000 + k) for k in range(50)]


async def test_ten_thousand_small_runs_leave_neither_memory_nor_descriptors(bench: Bench) -> None:
    async def run_many(count: int) -> None:
        for _ in range(count):
            outcome, _ = await bench.run("y = 1 + 1")
            assert outcome.status is Status.OK

    async def worker_bytes() -> int:
        _, heard = await bench.run("int(open('/proc/self/statm').read().split()[1]) * 4096")
        return int(heard.result())

    await run_many(1_000)
    descriptors, inside, outside = len(os.listdir("/proc/self/fd")), await worker_bytes(), _resident_bytes()
    await run_many(9_000)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert await worker_bytes() - inside < 4 * 1024 * 1024
    assert _resident_bytes() - outside < 8 * 1024 * 1024


async def test_a_cwd_that_is_no_directory_is_refused_and_leaves_nothing(
    local_engine: LocalEngine, bench: Bench
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for cwd in ("/no/such/place", "/etc/hostname"):
        with pytest.raises(InvalidArgument, match=cwd):
            await local_engine.create(ContextSpec("sbx_test", cwd=cwd), Listener())
    assert len(os.listdir("/proc/self/fd")) == before
    assert (await bench.run("1"))[0].status is Status.OK


async def test_a_context_stands_in_a_directory_of_its_own_and_shares_its_sandboxs_files(
    local_engine: LocalEngine, bench: Bench
) -> None:
    other = await local_engine.create(ContextSpec("sbx_test"), Listener())
    await bench.run("open('note.txt', 'w').write('hello')")
    _, heard = await bench.run("import os; os.getcwd()")
    mine = heard.result().strip("'")
    assert mine != other.cwd
    heard = Listener()
    await local_engine.execute(other.context_id, RunRequest(1, f"open({mine!r} + '/note.txt').read()"), heard)
    assert heard.result() == "'hello'"


async def test_a_lost_zygote_is_replaced_and_its_contexts_go_on_empty(local_engine: LocalEngine, bench: Bench) -> None:
    _, heard = await bench.run("import os; x = 41; os.getppid()")
    zygote = os.pidfd_open(int(heard.result()))
    signal.pidfd_send_signal(zygote, signal.SIGKILL)
    assert select.select([zygote], [], [], 20)[0]  # its children have been sent their signal then
    os.close(zygote)
    outcome, heard = await bench.run("'x' in globals()")
    if outcome.state is State.RESET:  # the loss came while it ran
        outcome, heard = await bench.run("'x' in globals()")
    assert (outcome.status, heard.result()) == (Status.OK, "False")
    assert outcome.lost_before


def alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


async def gone(pid: int) -> None:
    """Returns once the process has ended."""
    fd = os.pidfd_open(pid)
    try:
        ended = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(fd, lambda: None if ended.done() else ended.set_result(None))
        async with asyncio.timeout(20):
            await ended
    finally:
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
