"""What a cell is: its result, its names, its awaits, its commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.worker.worker_process import WorkerProcess

RESULTS = {
    "the last expression": ("1 + 1", "2"),
    "the last expression after a statement in the same line": ("a = 1; a", "1"),
    "the last of several": ("1\n2\n3", "3"),
    "None is no result": ("None", None),
    "a call that returns None": ("print", "<built-in function print>"),
    "an assignment is no result": ("a = 5", None),
    "a loop is no result": ("for i in range(3): i", None),
    "a semicolon at the end suppresses": ("1 + 1;", None),
    "a semicolon before a comment suppresses": ("1 + 1; # why", None),
    "a semicolon after a bracket suppresses": ("(1 +\n1) ;\n\n", None),
    "a semicolon in a comment does not": ("1 + 1  # a; b;", "2"),
    "a semicolon in a string does not": ("'a;'", "'a;'"),
    "a semicolon before the last expression does not": ("1;\n2", "2"),
    "wide characters before the semicolon": ("'äöü😀';", None),
    "an expression over several lines": ("[\n  1,\n  2,\n]", "[1, 2]"),
    "an empty cell": ("", None),
    "only a comment": ("# nothing", None),
    "a walrus": ("(n := 10) + 1", "11"),
    "a uniformly indented cell": ("    x = 1\n    x + 1", "2"),
    "an indented cell with a blank first line": ("\n  x = 3\n\n  x", "3"),
    "an indented cell whose string is not indented": ("  s = '''a\nb'''\n  s", "'a\\nb'"),
    "an indented cell with tabs": ("\tx = 4\n\tx", "4"),
    "top-level await": ("import asyncio\nawait asyncio.sleep(0, 'done')", "'done'"),
    "await in an expression": ("[await asyncio.sleep(0, i) for i in range(3)]", "[0, 1, 2]"),
    "async for": ("async def g():\n    yield 1\nasync for x in g(): pass\nx", "1"),
    "async with": (
        "class C:\n async def __aenter__(self): return 7\n async def __aexit__(self, *a): pass\n"
        "async with C() as c: pass\nc",
        "7",
    ),
    "an async comprehension": ("[x async for x in g()]", "[1]"),
    "await in an indented cell": ("  import asyncio\n  await asyncio.sleep(0, 5)", "5"),
    "asyncio.run in a cell without await": ("asyncio.run(asyncio.sleep(0, 6))", "6"),
    "the module's name": ("__name__", "'__main__'"),
    "the arguments": ("import sys; sys.argv", "['']"),
    "the search path begins with the working directory": ("sys.path[0]", "''"),
    "there is no file": ("'__file__' in globals() or __spec__", None),
    "exit is there": ("callable(exit) and callable(quit)", "True"),
    "a lone surrogate in the source's text": ("'\\ud800'", "'\\ud800'"),
    "a bytes result": ("b'\\x00'", "b'\\x00'"),
    "a percent and an exclamation mark in plain Python": ("'%d!' % 3 != 4", "True"),
    "line ends of another system": ("a = 1\r\nif a:\r\n    a += 1\r\na", "2"),
    "a modulo at the begin of a continued line": ("(10\n% 4)", "2"),
}


@pytest.mark.parametrize(("code", "result"), RESULTS.values(), ids=RESULTS)
def test_a_cell_gives_its_last_expression(shared: WorkerProcess, code: str, result: str | None) -> None:
    shared.run("import asyncio, sys\nasync def g():\n    yield 1")
    run = shared.run(code)
    assert (run.status, run.end["error"]) == ("ok", None)
    assert run.result == result
    assert (run.stdout, run.stderr) == (b"", b"")


def test_variables_stay(worker: WorkerProcess) -> None:
    worker.run("x = 41")
    assert worker.run("x + 1").result == "42"


def test_the_last_result_is_underscore_unless_the_name_is_taken(worker: WorkerProcess) -> None:
    worker.run("6 * 7")
    assert worker.run("_ + 1").result == "43"
    worker.run("_ = 'mine'")
    worker.run("5")
    assert worker.run("_").result == "'mine'"


def test_a_file_in_the_working_directory_can_be_imported(worker: WorkerProcess, tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("VALUE = 'near'")
    assert worker.run("import neighbour; neighbour.VALUE").result == "'near'"


def test_a_future_import_holds_for_the_cells_that_follow(worker: WorkerProcess) -> None:
    worker.run("from __future__ import annotations")
    assert worker.run("def f(x: not_defined): pass\nf.__annotations__").result == "{'x': 'not_defined'}"


def test_without_a_future_import_annotations_are_evaluated(worker: WorkerProcess) -> None:
    assert worker.run("def f(x: not_defined): pass\nf.__annotations__").error["name"] == "NameError"


def test_tasks_stay_on_the_loop_and_go_on_when_a_later_run_awaits(worker: WorkerProcess) -> None:
    worker.run(
        "import asyncio\nlog = []\ngo = asyncio.Event()\n"
        "async def work():\n    log.append('begun')\n    await go.wait()\n    log.append('done')\n"
        "task = asyncio.create_task(work())\nawait asyncio.sleep(0)"
    )
    assert worker.run("go.set(); log").result == "['begun']"
    assert worker.run("await task\nlog").result == "['begun', 'done']"


def test_context_variables_set_beside_an_await_stay(worker: WorkerProcess) -> None:
    worker.run("import asyncio, contextvars\nv = contextvars.ContextVar('v')\nawait asyncio.sleep(0)\nv.set('kept')")
    assert worker.run("v.get()").result == "'kept'"
    assert worker.run("await asyncio.sleep(0, v.get())").result == "'kept'"


def test_a_loop_that_user_code_closed_is_replaced(worker: WorkerProcess) -> None:
    worker.run("import asyncio\nawait asyncio.sleep(0)")
    worker.run("asyncio.get_event_loop().close()")
    assert worker.run("await asyncio.sleep(0, 1)").result == "1"


FENCED = {
    "a fence": "```python\n6 * 7\n```",
    "a fence and blanks": "\n  ```py \n6 * 7\n  ```  \n",
    "a fence without a language": "```\n6 * 7\n```\n",
    "another fence": "~~~~ python3\n6 * 7\n~~~~",
    "a fence within a string": "````python\nx = '''\n```\n'''\n6 * 7\n````",
    "a command": "```python\n!true\n6 * 7\n```",
    "indented code": "```python\n    6 * 7\n```",
    "a byte order mark": "\ufeff6 * 7",
    "a byte order mark and a statement": "\ufeffx = 6\nx * 7",
}


@pytest.mark.parametrize("code", FENCED.values(), ids=FENCED)
def test_what_stands_around_code_in_a_text_is_passed_over(shared: WorkerProcess, code: str) -> None:
    assert shared.run(code).result == "42"


def test_code_within_a_fence_keeps_its_line_numbers(shared: WorkerProcess) -> None:
    error = shared.run("```python\nx = 1\n1 / 0\n```").error
    assert "line 3, in <module>\n    1 / 0\n" in error["traceback"]
    assert "line 3\n    x = = 2" in shared.run("```python\nx = 1\nx = = 2\n```").error["traceback"]


@pytest.mark.parametrize("code", ["```python\n1", "```python\n1\n````", "1\n```", "```", "```\n``` 1"])
def test_half_a_fence_is_a_syntax_error(shared: WorkerProcess, code: str) -> None:
    assert shared.run(code).error["name"] == "SyntaxError"


def test_an_empty_fence_is_an_empty_cell(shared: WorkerProcess) -> None:
    assert shared.run("```python\n```").status == "ok"


def test_commands_run_in_a_shell(worker: WorkerProcess, tmp_path: Path) -> None:
    run = worker.run("x = 2\n!echo $((1 + 1)) > made.txt; echo 'it''s' \"said\" >&2\nif x:\n    !cat made.txt\nx")
    assert (run.stdout, run.stderr, run.result) == (b"2\n", b"its said\n", "2")
    assert (tmp_path / "made.txt").read_text() == "2\n"


def test_a_command_stands_in_order_with_prints(worker: WorkerProcess) -> None:
    assert worker.run("print('a', end=' ')\n!echo b\nprint('c')").stdout == b"a b\nc\n"


def test_a_command_continued_over_lines_keeps_the_line_numbers(worker: WorkerProcess) -> None:
    run = worker.run("!echo one \\\n  two\n1/0")
    assert run.stdout == b"one two\n"
    assert "line 3, in <module>" in run.error["traceback"]


def test_a_command_with_line_ends_of_another_system(worker: WorkerProcess) -> None:
    assert worker.run("!echo a\r\n!echo b\r\n").stdout == b"a\nb\n"


def test_a_failing_command_says_so(worker: WorkerProcess) -> None:
    run = worker.run("!exit 3")
    assert run.status == "ok"
    assert run.stderr == b"[the command ended with status 3]\n"


def test_command_signs_within_strings_are_left_alone(worker: WorkerProcess) -> None:
    run = worker.run("s = '''\n!not a command\n%neither\n'''\n!echo real\ns")
    assert (run.stdout, run.result) == (b"real\n", "'\\n!not a command\\n%neither\\n'")


@pytest.mark.parametrize("line", ["%pip --version", "!pip --version", "!pip3 --version", "% pip --version"])
def test_pip_is_the_interpreters_own(shared: WorkerProcess, line: str) -> None:
    run = shared.run(line)
    assert run.status == "ok"
    version = shared.run("import importlib.metadata, sys\n'pip ' + importlib.metadata.version('pip')").result
    assert version is not None
    assert run.out.startswith(version.strip("'"))


@pytest.mark.parametrize(("interfaces", "told"), [(["lo"], True), (["lo", "eth0"], False)])
def test_a_pip_that_fails_for_want_of_a_network_says_so(
    worker: WorkerProcess, interfaces: list[str], told: bool
) -> None:
    worker.run(f"import socket\nsocket.if_nameindex = lambda: list(enumerate({interfaces}))")
    run = worker.run("%pip install --no-index a-module-that-nobody-has")
    assert ("[the command ended with status 1. There is no network here" in run.stderr.decode()) is told
    assert b"[the command ended with status 1" in run.stderr
    assert b"network" not in worker.run("!exit 1").stderr


def test_asking_for_inline_figures_is_no_error(shared: WorkerProcess) -> None:
    assert shared.run("%matplotlib inline\n1").result == "1"


@pytest.mark.parametrize("line", ["%timeit x", "%%bash", "%", "%load_ext autoreload"])
def test_other_commands_of_ipython_are_named_as_such_before_anything_runs(shared: WorkerProcess, line: str) -> None:
    run = shared.run("print('never')\n" + line)
    assert run.stdout == b""
    assert run.error["name"] == "SyntaxError"
    assert "IPython" in run.error["message"]
    assert "line 2" in run.error["traceback"]


def test_source_of_a_function_of_a_cell_can_be_read(worker: WorkerProcess) -> None:
    worker.run("def f():\n    return 'here'  # a comment")
    assert worker.run("import inspect; inspect.getsource(f)").result == repr(
        "def f():\n    return 'here'  # a comment\n"
    )


def test_source_of_old_cells_is_forgotten_and_of_new_ones_kept(worker: WorkerProcess) -> None:
    worker.run("def old(): pass")
    for number in range(1000):
        worker.run(f"def new(): return {number}")
    assert worker.run("import inspect; inspect.getsource(new)").result == repr("def new(): return 999\n")
    assert worker.run("inspect.getsource(old)").error["name"] == "OSError"
    assert worker.run("import linecache; len(linecache.cache) < 1100").result == "True"


def test_warnings_show_the_line_and_come_again_in_another_cell(worker: WorkerProcess) -> None:
    code = "import warnings\nwarnings.warn('careful')"
    for number in (1, 2):
        stderr = worker.run(code).stderr.decode()
        assert stderr == f"<cell {number}>:2: UserWarning: careful\n  warnings.warn('careful')\n"


def test_dataclasses_pickle_and_type_hints_work_as_in_a_script(worker: WorkerProcess) -> None:
    worker.run("import dataclasses, pickle, typing\n@dataclasses.dataclass\nclass P:\n    x: int = 1\n")
    assert worker.run("pickle.loads(pickle.dumps(P(5)))").result == "P(x=5)"
    assert worker.run("typing.get_type_hints(P)").result == "{'x': <class 'int'>}"


def test_variables_of_the_environment_hold_for_their_run(worker: WorkerProcess) -> None:
    worker.run("import os\nos.environ['STAYS'] = 'before'")
    code = "[os.environ.get('STAYS'), os.environ.get('NEW'), os.popen('echo $NEW').read()]"
    assert worker.run(code, {"STAYS": "during", "NEW": "n"}).result == "['during', 'n', 'n\\n']"
    assert worker.run(code).result == "['before', None, '\\n']"


def test_a_run_that_changes_its_variables_gets_them_restored_and_keeps_others(worker: WorkerProcess) -> None:
    worker.run("import os\ndel os.environ['GIVEN']\nos.environ['OWN'] = 'kept'", {"GIVEN": "1"})
    assert worker.run("os.environ.get('GIVEN'), os.environ.get('OWN')").result == "(None, 'kept')"


def test_a_time_zone_holds_for_its_run(worker: WorkerProcess) -> None:
    code = "import time; time.strftime('%Z', time.localtime(0))"
    utc = worker.run(code).result
    assert worker.run(code, {"TZ": "XYZ-3"}).result == "'XYZ'"
    assert worker.run(code).result == utc


def test_variables_are_restored_after_an_interrupt(worker: WorkerProcess) -> None:
    worker.start("print('ready')\nwhile True: pass", {"GIVEN": "1"})
    worker.late_output(b"ready")
    worker.process.send_signal(2)
    assert worker.finish().error["name"] == "KeyboardInterrupt"
    assert worker.run("import os; os.environ.get('GIVEN')").result is None


def test_variables_that_cannot_be_restored_are_said(worker: WorkerProcess) -> None:
    run = worker.run("import os\nos.putenv = os.unsetenv = None", {"GIVEN": "1"})
    assert run.stderr == b"[the environment could not be restored: its functions have been replaced]\n"
    assert worker.run("1").result == "1"


def test_variables_that_cannot_be_set_are_an_error_of_that_run(worker: WorkerProcess) -> None:
    assert worker.run("1", {"A=B": "x"}).error["name"] == "ValueError"
    assert worker.run("1").result == "1"
