"""Servers that are told to end while they start: they go at once, and nothing of what they had begun stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mcp.server_processes import BOUND_S, START_BOUND_S, Watched, cgroups_of, command, descendants

Server = subprocess.Popen[bytes]


def _exists(_server: Server) -> None:
    """Its interpreter has hardly begun."""


def _tries_the_sandbox(server: Server) -> None:
    _wait_for_program(server, "trials:main")


def _starts_a_zygote(server: Server) -> None:
    _wait_for_program(server, ":main", but="trials:main")


def _has_contexts_ahead(server: Server) -> None:
    """A bare cell is there, a warm one is on its way, and the server's own modules may be."""
    assert server.stderr is not None
    for line in server.stderr:
        if json.loads(line)["event"] == "service.started":
            return
    pytest.fail("it ended by itself")


def _wait_for_program(server: Server, entry: str, but: str = "nothing") -> None:
    """Until a process below runs that entry of the worker's package."""
    deadline = time.monotonic() + START_BOUND_S
    while time.monotonic() < deadline:
        for pid in descendants(server.pid):
            line = _command_line(pid)
            if entry in line and but not in line:
                return
    pytest.fail(f"no process runs {entry}")


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.mark.parametrize("moment", [_exists, _tries_the_sandbox, _starts_a_zygote, _has_contexts_ahead])
@pytest.mark.parametrize(
    ("transport", "number"), [("stdio", signal.SIGTERM), ("stdio", signal.SIGHUP), ("http", signal.SIGTERM)]
)
def test_a_signal_while_it_starts_leaves_nothing(
    transport: str, moment: Callable[[Server], None], number: signal.Signals, tmp_path: Path
) -> None:
    verb = ["serve", "--port", "0"] if transport == "http" else []
    flags = ("--preload", "numpy", "--state-dir", str(tmp_path / "state"))
    with subprocess.Popen(
        command(*verb, *flags), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as server:
        try:
            moment(server)
            watched = _watched(server)
            server.send_signal(number)
            status = server.wait(BOUND_S)
        finally:
            server.kill()
    assert status == 128 + number or (moment is _exists and status == -number)
    assert cgroups_of(server.pid) == []
    assert watched.survivors() == []
    assert [name for _, _, files in os.walk(tmp_path) for name in files] == []


def _watched(server: Server) -> Watched:
    """All below it, of which some may end while this looks."""
    while True:
        try:
            return Watched(descendants(server.pid))
        except ProcessLookupError:
            continue
