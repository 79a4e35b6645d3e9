"""How the server over HTTP stops: running calls may end, then their code is interrupted, and nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.mcp.raw_http import RawSession
from tests.mcp.server_processes import BOUND_S, ServerProcess, Watched, cgroups_of, descendants, http_server

ENDLESS = "print('going', flush=True)\nwhile True: pass"
GOES_ON = "import time\nprint('going', flush=True)\ntime.sleep(6)\nprint('came', 'to its end')"
STUBBORN = """\
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
print('going', flush=True)
while True: pass"""


class RunningCall:
    """A call of `run_code` whose code has begun, read to its end by a thread."""

    def __init__(self, lines: Iterator[str]) -> None:
        self.messages: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._read, args=(lines,))
        self._thread.start()

    def _read(self, lines: Iterator[str]) -> None:
        try:
            self.messages += [json.loads(line[5:]) for line in lines if line.startswith("data:")]
        except httpx.RemoteProtocolError:  # cut off
            return

    def report(self) -> str | None:
        """The text of its report; None where the connection was cut before it came."""
        self._thread.join(BOUND_S)
        assert not self._thread.is_alive()
        for message in self.messages:
            if "result" in message:
                return str(message["result"]["content"][0]["text"])
        return None


@contextmanager
def running(server: ServerProcess, code: str) -> Iterator[RunningCall]:
    with RawSession(server, modern=True) as session:
        with session.call_streaming("run_code", {"code": code, "wait": 60}) as lines:
            session.wait_for(lines, "going")
            yield RunningCall(lines)


@contextmanager
def nothing_stays(server: ServerProcess) -> Iterator[None]:
    """The block must end the server; then its processes and control groups must be gone."""
    watched = Watched(descendants(server.process.pid))
    yield
    assert watched.survivors() == []
    assert cgroups_of(server.process.pid) == []


def mounts() -> int:
    return Path("/proc/self/mounts").read_text().count("\n")


def test_a_running_call_comes_to_its_end_and_others_are_told_to_come_later() -> None:
    before = mounts()
    with http_server("--stop-grace-s", "60") as server, running(server, GOES_ON) as call, nothing_stays(server):
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_event("server.stopping")
        for path, method in (("/mcp", "POST"), ("/mcp", "GET"), ("/healthz", "GET")):
            answer = httpx.request(method, f"http://127.0.0.1:{server.port}{path}", trust_env=False)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
            assert answer.json()["message"] == "The server is stopping."
        report = call.report()
        assert report is not None
        assert report.startswith("ok · ")
        assert "came to its end" in report
        assert server.process.wait(BOUND_S) == 128 + signal.SIGTERM
    assert mounts() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_when_its_time_is_up_code_is_interrupted_and_its_report_delivered(number: signal.Signals) -> None:
    with http_server("--stop-grace-s", "0.2") as server, running(server, ENDLESS) as call, nothing_stays(server):
        assert server.stop(number) == 128 + number
        report = call.report()
        assert report is not None
        assert report.startswith("interrupted · ")
        assert "going" in report


def test_code_that_takes_no_interrupt_is_killed_and_that_is_reported_too() -> None:
    with http_server("--stop-grace-s", "0") as server, running(server, STUBBORN) as call, nothing_stays(server):
        assert server.stop(signal.SIGTERM) == 128 + signal.SIGTERM
        report = call.report()
        assert report is not None
        assert report.startswith("interrupted · ")
        assert "lost" in report.splitlines()[0]


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    flags = ("--stop-grace-s", "3600", "--state-dir", str(tmp_path / "state"))
    with http_server(*flags) as server, running(server, ENDLESS), nothing_stays(server):
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_event("server.stopping")
        assert server.process.poll() is None
        assert server.stop(signal.SIGTERM) == 128 + signal.SIGTERM
    assert [path for path, _, files in os.walk(tmp_path) if files] == []


def test_runs_that_nobody_waits_for_hold_no_stop_up() -> None:
    with http_server("--stop-grace-s", "3600") as server:
        with RawSession(server, modern=True) as session, nothing_stays(server):
            report = session.post("run_code", {"code": ENDLESS, "wait": 0.5}).text
            assert "going" in report
            assert server.stop(signal.SIGTERM) == 128 + signal.SIGTERM
