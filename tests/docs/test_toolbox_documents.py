"""The code in the documents of the toolbox runs, and the tables say what is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mcp_server
from mcp_server.toolbox.wire import CloseCode
from tests.mcp.server_processes import ServerProcess, http_server

DOCS = Path(__file__).parents[2] / "docs"
DAYTONA, PYTHON_API = (DOCS / "daytona.md").read_text(), (DOCS / "python-api.md").read_text()


def blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run(code: str, state_dir: Path) -> str:
    env = {**os.environ, "CODE_INTERPRETER_PRELOAD": "", "CODE_INTERPRETER_STATE_DIR": str(state_dir)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def toolbox() -> Iterator[ServerProcess]:
    with http_server("--toolbox") as server:
        yield server


@pytest.mark.parametrize(
    ("number", "printed"),
    [
        (0, "42\n\n"),
        (1, "42\n\n"),
        (2, "stdout: out\nstderr: err\nZeroDivisionError division by zero\nso far\n\n"),
        (3, "1\n 2\n\n['ctx_"),
    ],
)
def test_the_examples_of_the_python_api_run(number: int, printed: str, tmp_path: Path) -> None:
    assert run(blocks(PYTHON_API)[number], tmp_path).startswith(printed)


def test_every_example_of_the_python_api_is_run() -> None:
    assert len(blocks(PYTHON_API)) == 4


def test_the_example_with_the_sdk_runs(toolbox: ServerProcess, tmp_path: Path) -> None:
    [code] = blocks(DAYTONA)
    assert run(code.replace("127.0.0.1:8000", f"127.0.0.1:{toolbox.port}"), tmp_path) == "42\n"


def test_every_error_of_the_table_is_a_public_name() -> None:
    named = set(re.findall(r"^\| `(CodeInterpreter\w+)`", PYTHON_API, re.MULTILINE))
    public = {name for name in mcp_server.__all__ if name.startswith("CodeInterpreter") and name.endswith("Error")}
    assert named == public - {"CodeInterpreterError"}


def test_the_table_of_endings_names_every_close_code() -> None:
    named = {int(code) for code in re.findall(r"\| (\d{4}) \|$", DAYTONA, re.MULTILINE)}
    assert named == set(CloseCode) - {CloseCode.BAD_MESSAGE}  # which the SDK never earns
