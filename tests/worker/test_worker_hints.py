"""The sentence that helps after an error: what was meant, what there is, and what there is not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.worker_process import WorkerProcess


@pytest.fixture(scope="module")
def frames() -> Iterator[WorkerProcess]:
    with WorkerProcess("pandas") as process:
        process.run("import pandas as pd\ndf = pd.DataFrame({'city': ['a', 'b'], 'price': [1, 2]})")
        yield process


CONNECTED = "import socket\nsocket.if_nameindex = lambda: [(1, 'lo'), (2, 'eth0')]"


def test_a_missing_module_names_what_is_close_and_how_to_get_it(worker: WorkerProcess) -> None:
    worker.run(CONNECTED)
    error = worker.run("import pandsa").error
    assert error["message"].startswith("No module named 'pandsa'\n")
    assert "pandas" in error["message"]
    assert "%pip install pandsa" in error["message"]
    assert "%pip install scikit-learn" in worker.run("import sklearn").error["message"]
    assert "Similar in json: decoder" in worker.run("import json.decodr").error["message"]


NETWORK = "There is no network here"

ALONE = """
import socket
socket.if_nameindex = lambda: [(1, 'lo')]
def look_up(name): raise socket.gaierror(-2, 'Name or service not known')
"""

SOUGHT = {
    "a name": "look_up('a')",
    "an address": "raise OSError(101, 'Network is unreachable')",
    "as a cause": "try: look_up('a')\nexcept OSError as e: raise RuntimeError('all attempts failed') from e",
    "while it was handled": "try: look_up('a')\nexcept OSError: raise ConnectionError('no connection')",
    "a module": "import a_module_that_nobody_has",
    "a module of a library's": "raise ImportError('`Import tabulate` failed. Use pip to install it.')",
}


@pytest.mark.parametrize("code", SOUGHT.values(), ids=SOUGHT)
def test_where_there_is_no_network_an_error_that_comes_of_it_says_so(worker: WorkerProcess, code: str) -> None:
    message = worker.run(ALONE + code).error["message"]
    assert NETWORK in message
    assert "%pip" not in message


@pytest.mark.parametrize(
    "code", ["raise FileNotFoundError(2, 'No such file')", "e = OSError('x')\ne.__cause__ = e\nraise e"]
)
def test_other_errors_do_not_speak_of_the_network(worker: WorkerProcess, code: str) -> None:
    assert NETWORK not in worker.run(ALONE + code).error["message"]


def test_a_network_that_is_there_is_not_denied(worker: WorkerProcess) -> None:
    assert NETWORK not in worker.run(f"{ALONE}\n{CONNECTED}\nlook_up('a')").error["message"]


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (
            "asyncio.create_task(asyncio.sleep(0))",
            "A cell with `await` at its top level runs on the context's event loop",
        ),
        ("await asyncio.sleep(0)\nasyncio.run(asyncio.sleep(0))", "Here `await` works at the top level: await it."),
    ],
)
def test_mistakes_with_the_event_loop_get_a_hint(worker: WorkerProcess, code: str, hint: str) -> None:
    assert hint in worker.run("import asyncio\n" + code).error["message"]


def test_a_backend_that_opens_windows_is_said_to_be_needless(worker: WorkerProcess) -> None:
    said = (
        "Cannot load backend 'TkAgg' which requires the 'tk' interactive framework, as 'headless' is currently running"
    )
    assert "figures are shown as images here" in worker.run(f"raise ImportError({said!r})").error["message"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise ModuleNotFoundError('m', name='IPython')", "`display(value)` is there without an import"),
        ("raise ModuleNotFoundError('m', name='nest_asyncio')", "`await` works at the top level"),
        ("open(__file__)", "Its directory is `os.getcwd()`"),
        ("breakpoint()\n1", "there is no standard input"),
    ],
)
def test_who_looks_in_vain_for_what_a_notebook_has_is_told_what_there_is(
    worker: WorkerProcess, code: str, said: str
) -> None:
    assert said in worker.run(code).error["message"]


COLUMNS = "Its labels: 'city', 'price'."

LABELS = {
    "a column": ("df['pricee']", "Did you mean 'price'? " + COLUMNS),
    "several columns": ("df[['city', 'zzz']]", COLUMNS),
    "a column to sort by": ("df.sort_values('prices')", "Did you mean 'price'? " + COLUMNS),
    "a column to group by": ("df.groupby('zzz')", COLUMNS),
    "a column to join on": ("df.merge(df, on='id')", COLUMNS),
    "a row": ("df.loc[5]", "Its labels: 0, 1."),
    "one of many": ("pd.Series(range(1000))[5000]", "Its 1000 labels go from 0 to 999."),
    "a long one": ("df.rename(columns={'city': 'x' * 100})['y']", "Its labels: '" + "x" * 39 + "…, 'price'."),
}


@pytest.mark.parametrize(("code", "said"), LABELS.values(), ids=LABELS)
def test_a_missing_label_of_pandas_names_those_that_there_are(frames: WorkerProcess, code: str, said: str) -> None:
    assert frames.run(code).error["message"].endswith("\n" + said)


NO_LABELS = {
    "a dictionary": "{'price': 1}['pricee']",
    "a dictionary within pandas": "df.apply(lambda column: {'price': 1}['pricee'])",
    "an empty frame": "pd.DataFrame()['price']",
}


@pytest.mark.parametrize("code", NO_LABELS.values(), ids=NO_LABELS)
def test_a_key_of_something_else_gets_no_labels(frames: WorkerProcess, code: str) -> None:
    error = frames.run(code).error
    assert error["name"] == "KeyError"
    assert "label" not in error["message"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("open('lap.csv')", "Did you mean 'laps.csv'? In {}: 'laps.csv', 'more', 'times.json'."),
        ("open('zzz')", "In {}: 'laps.csv', 'more', 'times.json'."),
        ("open('mor/laps.csv')", "Did you mean 'more'? In {}: 'laps.csv', 'more', 'times.json'."),
        ("open('more/laps.csv')", "In {}/more: nothing."),
        ("open('more/and/more')", "In {}/more: nothing."),
        ("open('/home/of/nobody/lap.csv')", "Did you mean 'laps.csv'? In {}: 'laps.csv', 'more', 'times.json'."),
        ("import pathlib\npathlib.Path('more/x').read_text()", "In {}/more: nothing."),
        ("import os\nos.chdir('more/x')", "In {}/more: nothing."),
    ],
)
def test_a_missing_file_names_what_is_where_it_was_looked_for(
    worker: WorkerProcess, tmp_path: Path, code: str, said: str
) -> None:
    for name in ("laps.csv", "times.json"):
        (tmp_path / name).touch()
    (tmp_path / "more").mkdir()
    assert worker.run(code).error["message"].endswith("\n" + said.format(tmp_path))


def test_names_are_not_compared_where_that_would_take_long(worker: WorkerProcess, tmp_path: Path) -> None:
    for number in range(1_000):
        (tmp_path / f"{'x' * 80}-{number:04}").touch()
    error = worker.run(f"open({'x' * 80 + '-1x34'!r})").error
    assert "Did you mean" not in error["message"]
    assert "… (970 more)." in error["message"]


def test_many_files_are_counted(worker: WorkerProcess, tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"file-{number:02}").touch()
    message = worker.run("open('missing')").error["message"]
    assert message.endswith("'file-29', … (70 more).")


@pytest.mark.parametrize(
    "code",
    [
        "import subprocess\nsubprocess.run(['no-such-program'])",
        "raise FileNotFoundError('something')",
        "raise FileNotFoundError(2, 'No such file', b'\\xff')",
        "raise FileNotFoundError(2, 'No such file', 7)",
        "open('')",
    ],
)
def test_what_is_no_missing_file_gets_no_names(worker: WorkerProcess, tmp_path: Path, code: str) -> None:
    (tmp_path / "laps.csv").touch()
    error = worker.run(code).error
    assert error["name"] == "FileNotFoundError"
    assert "laps.csv" not in error["message"]


def test_who_wants_too_much_memory_is_told_how_much_there_may_be(worker: WorkerProcess) -> None:
    limited = "import resource\nresource.setrlimit(resource.RLIMIT_DATA, (4 << 30, resource.RLIM_INFINITY))\n"
    code = "try: big = bytearray(1 << 60)\nexcept MemoryError as e: raise"
    assert worker.run(limited + code).error["message"] == "A process here may have 4.3 GB of memory."
    unlimited = "resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY,) * 2)\n"
    assert worker.run(unlimited + code).error["message"] == ""


def test_where_the_disk_is_full_it_is_said_what_is_free(worker: WorkerProcess, tmp_path: Path) -> None:
    message = worker.run("raise OSError(28, 'No space left on device')").error["message"]
    assert re.search(rf"\nFree in {tmp_path}: [\d.]+ \w+ of [\d.]+ \w+, \d+ of \d+ names\. Free in /tmp: \d", message)
