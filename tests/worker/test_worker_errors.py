"""Errors as a report shows them: the user's lines, none of the worker's, and nothing that hurts the worker."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.worker.worker_process import WorkerProcess

SHAPES = {
    "a plain error": (
        "def f(x):\n    return 1 / x\nf(0)",
        'Traceback (most recent call last):\n  File "<cell N>", line 3, in <module>\n    f(0)\n'
        '  File "<cell N>", line 2, in f\n    return 1 / x\n           ~~^~~\nZeroDivisionError: division by zero',
    ),
    "an error without a message": (
        "raise ValueError",
        'Traceback (most recent call last):\n  File "<cell N>", line 1, in <module>\n    raise ValueError\nValueError',
    ),
    "a qualified name": (
        "import json; json.loads('{')",
        "Traceback (most recent call last):\n"
        "  File \"<cell N>\", line 1, in <module>\n    import json; json.loads('{')\n"
        "                 ^^^^^^^^^^^^^^^\n"
        "  json/__init__.py:LINE, in loads\n  json/decoder.py:LINE, in decode\n  json/decoder.py:LINE, in raw_decode\n"
        "json.decoder.JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
    ),
    "a cause": (
        "try:\n    {}['k']\nexcept KeyError as e:\n    raise ValueError('v') from e",
        "Traceback (most recent call last):\n  File \"<cell N>\", line 2, in <module>\n    {}['k']\n    ~~^^^^^\n"
        "KeyError: 'k'\n\n"
        "The above exception was the direct cause of the following exception:\n\n"
        'Traceback (most recent call last):\n  File "<cell N>", line 4, in <module>\n'
        "    raise ValueError('v') from e\nValueError: v",
    ),
    "a context": (
        "try:\n    {}['k']\nexcept KeyError:\n    raise ValueError('v')",
        "Traceback (most recent call last):\n  File \"<cell N>\", line 2, in <module>\n    {}['k']\n    ~~^^^^^\n"
        "KeyError: 'k'\n\n"
        "During handling of the above exception, another exception occurred:\n\n"
        'Traceback (most recent call last):\n  File "<cell N>", line 4, in <module>\n'
        "    raise ValueError('v')\nValueError: v",
    ),
    "a suppressed context": (
        "try:\n    {}['k']\nexcept KeyError:\n    raise ValueError('v') from None",
        'Traceback (most recent call last):\n  File "<cell N>", line 4, in <module>\n'
        "    raise ValueError('v') from None\nValueError: v",
    ),
    "notes": (
        "e = ValueError('v')\ne.add_note('one')\ne.add_note('two\\nlines')\nraise e",
        'Traceback (most recent call last):\n  File "<cell N>", line 4, in <module>\n    raise e\n'
        "ValueError: v\none\ntwo\nlines",
    ),
    "a syntax error": (
        "x = 1\nif x = 2:\n    pass",
        '  File "<cell N>", line 2\n    if x = 2:\n       ^^^^^\n'
        "SyntaxError: invalid syntax. Maybe you meant '==' or ':=' instead of '='?",
    ),
    "a syntax error in an indented cell": (
        "    x = 1\n    y = = 2",
        '  File "<cell N>", line 2\n    y = = 2\n        ^\nSyntaxError: invalid syntax',
    ),
    "an unexpected indent": (
        "x = 1\n  y = 2",
        '  File "<cell N>", line 2\n    y = 2\n    ^\nIndentationError: unexpected indent',
    ),
    "a syntax error of code that is compiled by code": (
        "compile('x = = 1', '<made>', 'exec')",
        'Traceback (most recent call last):\n  File "<cell N>", line 1, in <module>\n'
        "    compile('x = = 1', '<made>', 'exec')\n"
        '  File "<made>", line 1\n    x = = 1\n        ^\nSyntaxError: invalid syntax',
    ),
    "an error in an awaited function": (
        "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    raise ValueError('v')\nawait f()",
        'Traceback (most recent call last):\n  File "<cell N>", line 5, in <module>\n    await f()\n'
        "  File \"<cell N>\", line 4, in f\n    raise ValueError('v')\nValueError: v",
    ),
    "an error in a callback of ours": (
        "class R:\n    def __repr__(self):\n        raise ValueError('v')\ndisplay(str(R()))",
        'Traceback (most recent call last):\n  File "<cell N>", line 4, in <module>\n    display(str(R()))\n'
        "            ^^^^^^^^\n  File \"<cell N>\", line 3, in __repr__\n    raise ValueError('v')\nValueError: v",
    ),
    "a group": (
        "raise ExceptionGroup('g', [ValueError(1), ExceptionGroup('h', [TypeError(2)])])",
        "  + Exception Group Traceback (most recent call last):\n"
        '  |   File "<cell N>", line 1, in <module>\n'
        "  |     raise ExceptionGroup('g', [ValueError(1), ExceptionGroup('h', [TypeError(2)])])\n"
        "  | ExceptionGroup: g (2 sub-exceptions)\n"
        "  +-+---------------- 1 ----------------\n"
        "    | ValueError: 1\n"
        "    +---------------- 2 ----------------\n"
        "    | ExceptionGroup: h (1 sub-exception)\n"
        "    +-+---------------- 1 ----------------\n"
        "      | TypeError: 2\n"
        "      +------------------------------------\n"
        "    +------------------------------------\n"
        "\nExceptionGroup: g (2 sub-exceptions)",
    ),
    "a ring of calls without end": (
        "def f(n):\n    return g(n)\ndef g(n):\n    return f(n)\nf(0)",
        'Traceback (most recent call last):\n  File "<cell N>", line 5, in <module>\n    f(0)\n'
        '  File "<cell N>", line 2, in f\n    return g(n)\n           ^^^^\n'
        '  File "<cell N>", line 4, in g\n    return f(n)\n           ^^^^\n'
        "  [the last 2 frames repeated MANY more times]\n"
        '  File "<cell N>", line 2, in f\n    return g(n)\n           ^^^^\n'
        "RecursionError: maximum recursion depth exceeded",
    ),
    "a name that is almost right": (
        "numbers = [1]\nlen(number)",
        "Traceback (most recent call last):\n"
        '  File "<cell N>", line 2, in <module>\n    len(number)\n        ^^^^^^\n'
        "NameError: name 'number' is not defined\nDid you mean 'numbers'?",
    ),
    "an attribute that is almost right": (
        "'abc'.uper()",
        "Traceback (most recent call last):\n"
        "  File \"<cell N>\", line 1, in <module>\n    'abc'.uper()\n    ^^^^^^^^^^\n"
        "AttributeError: 'str' object has no attribute 'uper'\nDid you mean 'upper'?",
    ),
    "a module that was not imported": (
        "itertools.count()",
        "Traceback (most recent call last):\n"
        '  File "<cell N>", line 1, in <module>\n    itertools.count()\n    ^^^^^^^^^\n'
        "NameError: name 'itertools' is not defined\nDid you forget to import 'itertools'?",
    ),
}


ANCHORS = re.compile(r"^[ |]*[~^]+\n", re.MULTILINE)


def anchored(text: str) -> str:
    """From Python 3.13 on more lines have them below, and others: what they are is left to it there."""
    return ANCHORS.sub("", text) if sys.version_info >= (3, 13) else text


def normal(text: str, number: int) -> str:
    """Line numbers of the standard library, and how deep a recursion went, differ between versions."""
    text = text.replace(f"<cell {number}>", "<cell N>")
    text = re.sub(r"(\.py):\d+", r"\1:LINE", text)
    return re.sub(r"repeated \d{3} more", "repeated MANY more", text)


@pytest.mark.parametrize(("code", "traceback"), SHAPES.values(), ids=SHAPES)
def test_a_traceback_shows_the_users_lines_alone(worker: WorkerProcess, code: str, traceback: str) -> None:
    error = worker.run(code).error
    assert anchored(normal(error["traceback"], 1)) == anchored(traceback)
    last = f"{error['name']}: {error['message']}" if error["message"] else error["name"]
    assert error["traceback"].endswith(last)


def test_frames_of_older_cells_and_of_the_users_files_keep_their_lines(worker: WorkerProcess, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def fail():\n    raise ValueError('mine')\n")
    worker.run("def call(function):\n    function()")
    traceback = worker.run("import mine\ncall(mine.fail)").error["traceback"]
    assert 'File "<cell 1>", line 2, in call\n    function()' in traceback
    assert "mine.py\", line 2, in fail\n    raise ValueError('mine')" in traceback


def test_lines_are_counted_as_python_counts_them(worker: WorkerProcess) -> None:
    traceback = worker.run("s = 'a\x0cb\u2028c\x1cd'\n1/0").error["traceback"]
    assert 'File "<cell 1>", line 2, in <module>\n    1/0\n' in traceback


def test_many_library_frames_are_folded(worker: WorkerProcess) -> None:
    traceback = worker.run("import copy\nx = [0]\nfor _ in range(30): x = [x, lambda: 0]\n"
                           "class N:\n    def __deepcopy__(self, memo): raise ValueError('deep')\n"
                           "copy.deepcopy({'a': {'b': [{'c': (N(),)}]}})").error["traceback"]  # fmt: skip
    assert "library frames]" in traceback
    assert "copy.py" in traceback
    assert len(traceback.splitlines()) < 15


HOSTILE = {
    "a text of ten megabytes": ("raise ValueError('y' * 10_000_000)", "10,000,000 characters"),
    "a text that raises": (
        "class E(Exception):\n    def __str__(self): raise KeyError\nraise E",
        "KeyError was raised",
    ),
    "a text that is no text": ("class E(Exception):\n    def __str__(self): return 5\nraise E", "TypeError was raised"),
    "a text that exits": ("class E(Exception):\n    def __str__(self): raise SystemExit\nraise E", "SystemExit was"),
    "an int of too many digits": ("raise ValueError(10 ** 5000)", "ValueError was raised"),
    "a lone surrogate and NUL": ("raise ValueError('a\\ud800\\x00b')", "a\ud800\x00b"),
    "notes of a wrong type": ("e = ValueError('v')\ne.__notes__ = 5\nraise e", "v"),
    "a thousand notes": (
        "e = ValueError('v')\nfor i in range(1000): e.add_note('n' * 9999)\nraise e",
        "980 more notes",
    ),
    "a chain of ten thousand": (
        "e = None\nfor i in range(10_000):\n    n = ValueError(i)\n    n.__cause__ = e\n    e = n\nraise e",
        "9999",
    ),
    "a chain that is a ring": (
        "a = ValueError('a')\nb = ValueError('b')\na.__cause__ = b\nb.__cause__ = a\nraise a",
        "a",
    ),
    "a group in itself by its cause": ("g = ExceptionGroup('g', [ValueError(1)])\ng.__cause__ = g\nraise g", "g (1"),
    "a group of groups of groups": (
        "e = ValueError(1)\nfor _ in range(30): e = ExceptionGroup('g', [e] * 20)\nraise e",
        "g (20 sub-exceptions)",
    ),
    "a line of a megabyte": ("x = '" + "a" * 1_000_000 + "'; 1/0", "division by zero"),
    "a syntax error in a line of a megabyte": ("x = '" + "a" * 1_000_000 + "' = 1", "cannot assign"),
    "a syntax error of strange parts": ("raise SyntaxError('s', (5, 'x', object(), b'', [], 3))", "s"),
    "a name that lies": ("class E(Exception): pass\nE.__name__ = 'x' * 50\nE.__module__ = 5\nraise E('e')", "e"),
    "a metaclass that raises": (
        "class M(type):\n    def __getattribute__(cls, n): raise ValueError\n"
        "class E(Exception, metaclass=M): pass\nraise E('e')",
        "could not be described",
    ),
    "an attribute whose owner has a bad dir": (
        "class A:\n    def __dir__(self): raise ValueError\nA().missing",
        "has no attribute 'missing'",
    ),
    "source with a NUL": ("x = 1\x00", "null bytes"),
    "source with a lone surrogate": ("x = '\ud800'", "surrogates not allowed"),
    "source nested too deep": ("(" * 10_000 + ")" * 10_000, "too many nested parentheses"),
    "a deep recursion in C": (
        "x = []\nfor _ in range(100_000): x = [x]\nrepr(x)",
        "while getting the repr of an object",
    ),
    "a memory error": ("x = bytearray(2 ** 62)", ""),
    "an error of linecache": ("import linecache\nlinecache.getline = None\nraise ValueError('v')", "v"),
}


@pytest.mark.parametrize(("code", "message"), HOSTILE.values(), ids=HOSTILE)
def test_no_error_hurts_the_worker(worker: WorkerProcess, code: str, message: str) -> None:
    error = worker.run(code).error
    assert message in error["message"]
    assert len(error["message"]) < 60_000
    assert len(error["traceback"]) < 300_000
    assert worker.run("1 + 1").result == "2"


def test_an_error_does_not_keep_its_variables_alive(worker: WorkerProcess) -> None:
    worker.run("import gc, weakref\nclass Big: pass\ndef f():\n    big = Big()\n    alive.add(big)\n    1/0\n"
               "alive = weakref.WeakSet()")  # fmt: skip
    worker.run("f()")
    assert worker.run("gc.collect(); len(alive)").result == "0"


def test_the_name_of_an_error_is_bounded_as_its_text_is(worker: WorkerProcess) -> None:
    error = worker.run("raise type('N' * 20_000_000, (Exception,), {})('m' * 20_000_000)").error
    assert error["name"] == "N" * 300 + "…"
    assert len(error["message"]) < 4100
    assert len(error["traceback"]) < 5000


def test_sources_are_kept_again_where_code_took_their_place_away(worker: WorkerProcess) -> None:
    worker.run("import linecache\nlinecache.cache = None")
    run = worker.run("x = 1\n1 / 0")
    assert "    1 / 0\n    ~~^~~" in run.error["traceback"]


EXITS = {
    "nothing": ("exit()", 0, b""),
    "a number": ("exit(3)", 3, b""),
    "None": ("raise SystemExit(None)", 0, b""),
    "True": ("import sys; sys.exit(True)", 1, b""),
    "a text": ("quit('bad end')", 1, b"bad end\n"),
    "an object": ("raise SystemExit(['x'])", 1, b"['x']\n"),
    "a huge number": ("exit(10 ** 30)", -1, b""),
    "while awaiting": ("import asyncio\nasync def f(): exit(4)\nawait f()", 4, b""),
    "in a text": ("class R:\n    def __repr__(self): exit(5)\ndisplay(R())", 5, b""),
    "with stderr replaced": ("import sys\nsys.stderr = None\nexit('said')", 1, b"said\n"),
}


@pytest.mark.parametrize(("code", "exit_code", "stderr"), EXITS.values(), ids=EXITS)
def test_exit_ends_the_run_and_not_the_context(worker: WorkerProcess, code: str, exit_code: int, stderr: bytes) -> None:
    worker.run("kept = 1")
    run = worker.run(code + "\nprint('never')")
    assert (run.status, run.end["exit_code"], run.stderr, run.stdout) == ("ok", exit_code, stderr, b"")
    assert worker.run("kept").result == "1"


def test_an_exit_whose_text_fails_is_an_error(worker: WorkerProcess) -> None:
    run = worker.run("class T:\n    def __str__(self): raise ValueError('no text')\nexit(T())")
    assert run.status == "error"
    assert worker.run("1").result == "1"


HOOKS = {
    "raises": "def hook(event, values):\n    1 / 0\n",
    "exits": "def hook(event, values):\n    raise SystemExit(3)\n",
    "calls what it is told of": "import os\ndef hook(event, values):\n    compile('0', 'hook', 'eval')\n",
}


@pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)
def test_an_audit_hook_of_the_users_spoils_runs_and_not_the_interpreter(worker: WorkerProcess, hook: str) -> None:
    """There is no way to take it away again."""
    assert worker.run("kept = 1\nimport sys, ctypes\n" + hook + "sys.addaudithook(hook)").status == "ok"
    for _ in range(3):
        assert worker.run("kept").end["exit_code"] in (None, 3)
    assert worker.process.poll() is None
