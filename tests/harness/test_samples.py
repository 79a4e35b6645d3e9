"""The recipe of docs/harnesses.md, run as it stands there."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mcp.server_processes import Watched, descendants, http_server

RECIPE = (Path(__file__).parents[2] / "docs" / "harnesses.md").read_text()

SAMPLES = 200

BOUND_S = 240.0
"""On two cores it takes 20 s; a machine with much else to do takes its time."""


@pytest.mark.timeout(300)
def test_two_hundred_samples_side_by_side_are_each_right_and_leave_nothing() -> None:
    [program] = re.findall(r"^```python\n(.*?)^```$", RECIPE, re.MULTILINE | re.DOTALL)
    flags = ("--contexts", "300", "--random-seed", "1", "--hash-seed", "0", "--time-zone", "UTC")
    with http_server(*flags) as server:
        idle = len(descendants(server.process.pid))
        arguments = [sys.executable, "-c", program, server.url.removesuffix("/mcp"), str(SAMPLES)]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=BOUND_S, check=False)
        assert done.stdout == f"{SAMPLES} of {SAMPLES} samples were right\n", done.stderr[-2000:]
        # Workers and rooms are kept ready for others: a few more or less at any moment.
        assert len(descendants(server.process.pid)) <= idle + 8
        watched = Watched(descendants(server.process.pid))
        assert server.stop(signal.SIGTERM) == 128 + signal.SIGTERM
        assert watched.survivors() == []
    alive = [int(str(event["contexts"])) for event in server.log if event["event"] == "context.created"]
    assert len(alive) == SAMPLES
    assert max(alive) > SAMPLES / 4, "they were not side by side"
    gone = [event for event in server.log if event["event"] == "context.deleted"]
    assert (len(gone), gone[-1]["contexts"]) == (SAMPLES, 0)
    assert [event for event in server.log if event["level"] != "info"] == []


def test_the_recipes_server_takes_its_flags() -> None:
    [command] = re.findall(r"^mcp-code-interpreter (serve .*)$", RECIPE, re.MULTILINE)
    flags = [word for word in command.split() if word.startswith("--")]
    help_text = subprocess.run(
        [sys.executable, "-m", "mcp_server.cli", "serve", "--help"],
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=True,
        env={"COLUMNS": "200", "PATH": ""},
    ).stdout
    assert [flag for flag in flags if flag not in help_text] == []
