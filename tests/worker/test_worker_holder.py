"""The program that holds a room: it makes the calls of its list, tells how they went, and stays."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from mcp_server.worker import holder
from mcp_server.worker.holder import Program, Step, Texts

REPORT = Step("report", "write", (holder.REPORT_FD, holder.DONE, 1))
NO_SUCH_CALL = Step("impossible", "prctl", (99_999, 1, 2, 3, 4))
IMPOSSIBLE = "impossible: Invalid argument"
PR_SET_NAME = 15
AT_EMPTY_PATH = 0x1000


class Outcome(NamedTuple):
    text: str
    returncode: int
    name: str
    said: bytes


KILLED = -signal.SIGKILL


def executable(place: Path, steps: list[Step], start: int) -> Program:
    path = place / f"room-{start:x}"
    path.write_bytes(holder.image(os.uname().machine, steps, start))
    path.chmod(0o755)
    return Program(os.open(path, os.O_RDONLY), steps, start)


def outcome(*programs: Program) -> Outcome:
    """Starts the first of them, and kills it once it reports that it is done."""
    reading, writing = os.pipe()
    fds = [program.fd for program in programs]
    process = subprocess.Popen(
        ["room"], executable=f"/proc/self/fd/{fds[0]}", stdin=writing, stdout=subprocess.PIPE, pass_fds=fds
    )
    os.close(writing)
    report = os.read(reading, 64)
    name = Path(f"/proc/{process.pid}/comm").read_text()
    if report == holder.DONE:
        process.kill()
    said, _ = process.communicate()
    os.close(reading)
    for fd in fds:
        os.close(fd)
    return Outcome(holder.explain(report, programs), process.returncode, name, said)


def test_it_makes_its_calls_and_stays(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "made")
    flags = os.O_WRONLY | os.O_CREAT
    steps = [
        Step("name", "prctl", (PR_SET_NAME, b"holder")),
        Step("open", "openat", (-100, path, flags, 0o600)),
        Step("say", "write", (1, b"heard", 5)),
        REPORT,
    ]
    seen = outcome(executable(tmp_path, steps, holder.FIRST))
    assert seen == Outcome("", KILLED, "holder\n", b"heard")
    assert Path(os.fsdecode(path)).exists()


@pytest.mark.parametrize("before", range(3))
def test_a_call_that_fails_is_named_and_ends_it(tmp_path: Path, before: int) -> None:
    steps = [Step("name", "prctl", (PR_SET_NAME, b"holder"))] * before
    seen = outcome(executable(tmp_path, [*steps, NO_SUCH_CALL, REPORT], holder.FIRST))
    assert (seen.text, seen.returncode) == (IMPOSSIBLE, 1)


@pytest.mark.parametrize(("last", "text", "returncode"), [(REPORT, "", KILLED), (NO_SUCH_CALL, IMPOSSIBLE, 1)])
def test_a_second_program_goes_on_where_the_first_ends(tmp_path: Path, last: Step, text: str, returncode: int) -> None:
    second = executable(tmp_path, [last], holder.SECOND)
    there = (second.fd, b"", Texts((b"room",)), Texts(()), AT_EMPTY_PATH)
    first = executable(tmp_path, [Step("change", "execveat", there)], holder.FIRST)
    seen = outcome(first, second)
    assert (seen.text, seen.returncode) == (text, returncode)


def test_one_that_was_killed_before_it_reported_is_told_so() -> None:
    assert holder.explain(b"", []) == "its first process was killed"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_machine_has_the_calls_that_a_room_needs(machine: str) -> None:
    names = ("write", "close", "prctl", "mount", "capset", "openat", "unshare", "execveat")
    steps = [Step(name, name, ()) for name in names]
    image = holder.image(machine, steps, holder.FIRST)
    assert image.startswith(b"\x7fELF")
    assert len(image) < 4096
