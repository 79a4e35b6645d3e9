"""The three streams of a context, whatever user code does to them."""

from __future__ import annotations

import pytest

from tests.worker.worker_process import WorkerProcess


def test_the_streams_are_real_text_streams_over_the_pipes(shared: WorkerProcess) -> None:
    facts = "[(s.fileno(), s.isatty(), s.encoding, s.errors, s.writable(), s.name) for s in (sys.stdout, sys.stderr)]"
    assert shared.run("import sys\n" + facts).result == (
        "[(1, False, 'utf-8', 'backslashreplace', True, '<stdout>'), "
        "(2, False, 'utf-8', 'backslashreplace', True, '<stderr>')]"
    )


def test_both_streams_and_their_buffers_and_descriptors_arrive(shared: WorkerProcess) -> None:
    run = shared.run(
        "import os, sys\nprint('text')\nsys.stdout.buffer.write(b'\\xffraw\\n')\nsys.stdout.flush()\n"
        "os.write(1, b'fd\\n')\n"
        "print('problem', file=sys.stderr)\nNone"
    )
    assert run.stdout == b"text\n\xffraw\nfd\n"
    assert run.stderr == b"problem\n"


def test_text_without_a_line_end_arrives_with_its_run(shared: WorkerProcess) -> None:
    assert shared.run("print('a', end='')").stdout == b"a"
    assert shared.run("import os; os.write(1, b'b')\nNone").stdout == b"b"


def test_what_cannot_be_encoded_is_escaped(shared: WorkerProcess) -> None:
    assert shared.run("print('\\ud800\\x00é')").stdout == b"\\ud800\x00\xc3\xa9\n"


def test_a_line_of_five_megabytes_arrives_whole(shared: WorkerProcess) -> None:
    assert shared.run("print('x' * 5_000_000)").stdout == b"x" * 5_000_000 + b"\n"


def test_lines_leave_as_they_are_printed(shared: WorkerProcess) -> None:
    shared.start("import os, sys\nr, w = os.pipe()\nprint('first')\nos.read(r, 1)")
    assert shared.late_output(b"first") == b"first\n"
    shared.process.send_signal(2)
    assert shared.finish().error["name"] == "KeyboardInterrupt"


def test_output_of_child_processes_arrives(shared: WorkerProcess) -> None:
    run = shared.run("import subprocess\nsubprocess.run('echo out; echo err >&2', shell=True).returncode")
    assert (run.stdout, run.stderr, run.result) == (b"out\n", b"err\n", "0")


def test_output_of_c_code_arrives_with_its_run(worker: WorkerProcess) -> None:
    code = "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.printf(b'from C')"
    run = worker.run(code)
    assert (run.stdout, run.result) == (b"from C", "6")


PRINTING_THREADS = """
import threading
def work(number):
    for line in range(2000):
        print("thread", number, "line", line{extra})
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
for t in threads: t.start()
for t in threads: t.join()
"""


@pytest.mark.parametrize("extra", ["", ", 'x' * 100", ", flush=True"], ids=["short", "long", "flushed"])
def test_sixteen_thousand_lines_of_eight_threads_arrive_whole(shared: WorkerProcess, extra: str) -> None:
    run = shared.run(PRINTING_THREADS.replace("{extra}", extra))
    end = " " + "x" * 100 if "'x'" in extra else ""
    assert sorted(run.out.splitlines()) == sorted(f"thread {n} line {i}{end}" for n in range(8) for i in range(2000))


def test_texts_of_several_lines_and_of_many_kilobytes_are_not_torn_by_threads(shared: WorkerProcess) -> None:
    run = shared.run(
        "import threading\n"
        "def work(mark):\n"
        "    for _ in range(100): print('\\n'.join([mark * 3000] * 5))\n"
        "threads = [threading.Thread(target=work, args=(m,)) for m in 'abcd']\n"
        "[t.start() for t in threads]\n[t.join() for t in threads]\nNone"
    )
    lines = run.out.splitlines()
    assert sorted(lines) == sorted(m * 3000 for m in "abcd" for _ in range(500))


def test_the_begun_line_of_a_thread_that_ended_arrives(shared: WorkerProcess) -> None:
    run = shared.run(
        "import threading\nt = threading.Thread(target=lambda: print('begun', end=''))\nt.start()\nt.join()"
    )
    assert run.stdout == b"begun"


def test_output_of_a_thread_after_its_run_comes_late(shared: WorkerProcess) -> None:
    run = shared.run(
        "import threading\ngo = threading.Event()\n"
        "def work():\n    go.wait()\n    print('late')\n    display('shown late')\n"
        "threading.Thread(target=work).start()\nthreading.Timer(0.05, go.set).start()\nprint('soon')"
    )
    late = run.stdout + shared.late_output(b"shown late'\n")
    assert late == b"soon\nlate\n'shown late'\n"


SPOILERS = {
    "replaced": "import io; sys.stdout = sys.stderr = io.StringIO()",
    "removed": "sys.stdout = sys.stderr = None",
    "deleted": "del sys.stdout, sys.stderr",
    "closed": "sys.stdout.close(); sys.stderr.close(); sys.stdin.close()",
    "detached": "sys.stdout.detach(); sys.stderr.detach()",
    "its buffer closed": "sys.stdout.buffer.close(); sys.stderr.buffer.close()",
    "its raw file closed": "sys.stdout.buffer.raw.close()",
    "descriptor closed": "os.close(1); os.close(2); os.close(0)",
    "all low descriptors closed": "os.closerange(0, 100)",
    "descriptor closed after printing": "print('lost?', end=''); os.close(1)",
    "descriptor redirected": "fd = os.open('/dev/null', os.O_WRONLY); os.dup2(fd, 1); os.dup2(fd, 2)",
    "descriptor does not block": "os.set_blocking(1, False); os.set_blocking(2, False)",
    "reconfigured": "sys.stdout.reconfigure(line_buffering=False, write_through=False); print('kept back')",
    "a method of it replaced": "sys.stdout.flush = sys.stderr.settle = lambda: 1 / 0",
    "a method of its class removed": "del type(sys.stdout).settle",
    "only the descriptors of a child": "subprocess.run('exec 1>&- 2>&-', shell=True)",
}


@pytest.mark.parametrize("spoiler", SPOILERS.values(), ids=SPOILERS)
def test_the_next_run_has_usable_streams(worker: WorkerProcess, spoiler: str) -> None:
    assert worker.run("import os, subprocess, sys\n" + spoiler).status == "ok"
    run = worker.run(
        "print('out')\nprint('err', file=sys.stderr)\nos.write(1, b'fd\\n')\nsys.stdin.fileno(), os.read(0, 1)"
    )
    assert run.status == "ok"
    assert run.out.endswith("out\nfd\n")
    assert run.stderr == b"err\n"
    assert run.result == "(0, b'')"
    assert worker.run("os.get_blocking(1) and subprocess.run('echo child', shell=True).returncode").stdout == b"child\n"


def test_what_was_printed_before_a_redirection_goes_where_it_was_printed(worker: WorkerProcess) -> None:
    run = worker.run(
        "import os\nprint('to the pipe', end='', flush=True)\nfd = os.open('f', os.O_WRONLY | os.O_CREAT)\n"
        "os.dup2(fd, 1)\nprint('to the file', end='')"
    )
    assert run.stdout == b"to the pipe"
    assert worker.run("open('f').read()").result == "'to the file'"


READS = {
    "input": "input('name? ')",
    "read": "sys.stdin.read()",
    "readline": "sys.stdin.readline()",
    "iteration": "next(iter(sys.stdin))",
    "buffer": "sys.stdin.buffer.read()",
    "getpass": "import getpass, warnings; warnings.simplefilter('ignore'); getpass.getpass()",
}


@pytest.mark.parametrize("code", READS.values(), ids=READS)
def test_reading_what_nobody_types_fails_at_once_and_says_what_to_do(shared: WorkerProcess, code: str) -> None:
    error = shared.run("import sys\n" + code).error
    assert error["name"] == "EOFError"
    assert "no standard input" in error["message"]
    assert "Put the value into the code" in error["message"]
    assert "streams.py" not in error["traceback"]
