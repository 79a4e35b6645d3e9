"""Conversations with a real server are recorded, replayed by the command line, and compared."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp_types import CallToolResult

from tests.mcp.raw_http import RawSession
from tests.mcp.server_processes import BOUND_S, http_server, stdio_parameters

pytestmark = pytest.mark.anyio

Run = Callable[..., Awaitable[CallToolResult]]


async def record(directory: Path, talk: Callable[[Client, Run], Awaitable[None]], *flags: str) -> Path:
    """Have a server over stdio record a conversation; the file that came of it."""
    async with Client(stdio_parameters("--transcript", str(directory), *flags)) as client:

        async def run(code: str, **arguments: object) -> CallToolResult:
            return await client.call_tool("run_code", {"code": code, **arguments}, read_timeout_seconds=BOUND_S)

        await talk(client, run)
    [name] = os.listdir(directory)
    return directory / name


def replay(file: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mcp_server.cli", "replay", "--preload", "", *flags, str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=2 * BOUND_S, check=False)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("ascii").splitlines()]


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text("ascii")
    assert old in text
    file.write_text(text.replace(old, new))


async def talk_of_all_kinds(client: Client, run: Run) -> None:
    await run("x = 20\nprint('printed')\nx + 1")
    await run("1 / 0")
    await run("print('half \\ud83d a character')")
    made = (await client.call_tool("create_context", {})).structured_content
    assert made is not None
    await run("open('made.txt', 'w').write('by the other')", context_id=made["context_id"])
    await run(f"open('{made['cwd']}/made.txt').read()")
    await run("import time\nfor n in range(4): print(n, end='.'); time.sleep(0.2)", wait=0.3)
    await run("", wait=BOUND_S)
    await run("while True: pass", timeout=0.2)
    await run("import time\ntime.sleep(600)", wait=0.1)
    await run("x", interrupt=True)
    await run("")
    await run("import os\nos._exit(3)")
    await run("x")
    await run("for n in range(3000): print('line', n)", max_output_chars=2000)
    await client.call_tool("delete_context", {"context_id": made["context_id"]})


async def test_a_conversation_of_all_kinds_comes_out_alike(tmp_path: Path) -> None:
    file = await record(tmp_path / "made", talk_of_all_kinds)
    done = replay(file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "12 runs: all alike"
    assert done.stdout.count("status same") == 12


async def test_what_differs_is_shown_for_its_run_alone(tmp_path: Path) -> None:
    async def talk(_: Client, run: Run) -> None:
        await run("import time\nprint('printed')")
        await run("time.time_ns()")
        await run("print('the last')")

    file = await record(tmp_path, talk)
    done = replay(file)
    assert done.returncode == 1
    assert "3 runs: 1 different" in done.stdout
    [fault] = [line for line in done.stdout.splitlines() if line.startswith("✗")]
    assert fault.endswith("time.time_ns()")
    assert "status same · output same · result different" in done.stdout
    assert len([line for line in done.stdout.splitlines() if line.strip()[:2] in ("-1", "+1")]) == 2


async def test_code_that_was_changed_is_found_to_differ(tmp_path: Path) -> None:
    async def talk(_: Client, run: Run) -> None:
        await run("print('before')")

    file = await record(tmp_path, talk)
    change(file, '"code":"print(\'before\')', '"code":"print(\'after\')')
    done = replay(file)
    assert done.returncode == 1
    assert "-before" in done.stdout
    assert "+after" in done.stdout


async def test_random_numbers_come_out_alike_with_a_seed(tmp_path: Path) -> None:
    async def talk(_: Client, run: Run) -> None:
        await run("import random\nrandom.random()")

    file = await record(tmp_path, talk, "--random-seed", "5")
    assert replay(file, "--random-seed", "5").returncode == 0
    assert replay(file).returncode == 1


def test_over_http_each_conversation_has_a_file_of_its_own_that_can_be_replayed(tmp_path: Path) -> None:
    with http_server("--transcript", str(tmp_path)) as server, RawSession(server, modern=True) as session:
        for name in ("../../sample", "other"):
            for code in ("x = 'of ' + 'this one'", "x"):
                assert session.post("run_code", {"code": code}, {"X-Conversation-Id": name}).status_code == 200
        assert session.post("run_code", {"code": "'nobody'"}).status_code == 200
        assert server.stop(signal.SIGTERM) == 128 + signal.SIGTERM
    files = {lines(file)[0]["conversation"]: file for file in tmp_path.iterdir()}
    assert set(files) >= {"header:../../sample", "header:other"}
    assert len(files) == 3
    for file in files.values():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert "sample" not in file.name
        assert lines(file)[-1]["event"] == "context_deleted"
    done = replay(files["header:other"])
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "2 runs: all alike")


async def test_the_file_says_all_that_a_replay_needs_in_order(tmp_path: Path) -> None:
    async def talk(_: Client, run: Run) -> None:
        await run("print('printed')", timeout=9, wait=8, max_output_chars=1234)

    told = lines(await record(tmp_path, talk))
    assert [line["event"] for line in told] == [
        *("transcript", "context_created", "run", "began", "ended", "report", "context_deleted")
    ]
    header, created, run, _, ended, report, _ = told
    assert header["version"] == 1
    assert created["default"] is True
    assert (run["code"], run["timeout_s"], run["wait_s"], run["max_output_chars"]) == ("print('printed')", 9, 8, 1234)
    assert (ended["status"], ended["state"]) == ("ok", "kept")
    assert report["record"]["status"] == "ok"
    assert report["text"].endswith("\nprinted")
    assert len({line["context_id"] for line in told[1:]}) == 1


@pytest.mark.parametrize(("flags", "kept"), [((), False), (("--transcript-envs",), True)], ids=["left out", "asked"])
async def test_values_of_envs_are_left_out_unless_asked_for(tmp_path: Path, flags: tuple[str, ...], kept: bool) -> None:
    async def talk(client: Client, run: Run) -> None:
        await run("import os; len(os.environ['KEY'])", envs={"KEY": "a-secret"})
        await client.call_tool("create_context", {"envs": {"KEY": "a-secret"}})

    file = await record(tmp_path, talk, *flags)
    assert ("a-secret" in file.read_text()) is kept
    done = replay(file)
    assert done.returncode == (0 if kept else 1)
    assert ("not set: KEY." in done.stdout) is not kept


async def test_images_are_kept_as_digests(tmp_path: Path) -> None:
    async def talk(_: Client, run: Run) -> None:
        await run("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()")

    [report] = [line for line in lines(await record(tmp_path, talk)) if line["event"] == "report"]
    [image] = report["images"]
    assert image["mime"] == "image/png"
    assert len(image["sha256"]) == 64


def test_a_full_disk_breaks_no_run_and_is_counted(tmp_path: Path) -> None:
    failed = threading.Event()

    def note(event: dict[str, object]) -> bool:
        if event["event"] == "transcript.failed":
            failed.set()
        return True

    with http_server("--transcript", str(tmp_path), wanted=note) as server, RawSession(server, modern=True) as session:

        def run(code: str) -> str:
            return session.post("run_code", {"code": code}, {"X-Conversation-Id": "sample"}).text

        assert '"status":"ok"' in run("x = 'kept'")
        pid = server.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        assert '"status":"ok"' in run("x")
        assert failed.wait(BOUND_S)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
        assert "kept" in run("x")
        assert server.stop(signal.SIGTERM) == 128 + signal.SIGTERM
    assert [event["reason"] for event in server.log if event["event"] == "transcript.failed"] == ["File too large"]
    [file] = tmp_path.iterdir()
    told = lines(file)
    [lost] = [line["lines"] for line in told if line["event"] == "lost"]
    # The header and the line of the loss; the context's two lines and three runs of four.
    assert len(told) - 2 + lost == 2 + 3 * 4
    assert f"{lost} lines of it could not be written" in replay(file).stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    command = [sys.executable, "-m", "mcp_server.cli", "--transcript", str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=BOUND_S, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 1
    assert "may not write there" in done.stderr


HEADER = {
    "at": "",
    "event": "transcript",
    "version": 1,
    "server": "0",
    "conversation": "c",
    "timeout_s": 1,
    "max_output_chars": 9000,
}


def _malformed() -> Iterator[tuple[str, bytes, str]]:
    header = json.dumps(HEADER).encode() + b"\n"
    yield "empty", b"", "its first line does not say so"
    yield "other JSON", b'{"event": "context_deleted", "context_id": "c"}\n', "its first line does not say so"
    yield "no JSON", b"#!/bin/sh\n", "line 1 is no JSON"
    yield "binary", bytes(range(256)) + b"\n", "line 1 is no JSON"
    yield "deep", b"[" * 100_000 + b"\n", "line 1 is no JSON"
    yield "newer", header.replace(b'"version": 1', b'"version": 2'), "is of version '2'; this program reads version 1"
    yield "unknown event", header + b'{"event": "dance"}\n', "line 2"
    yield "wrong type", header + b'{"event": "began", "context_id": 7, "run": 1}\n', "line 2, began.context_id"
    yield "a list", header + b"[1]\n", "line 2"


@pytest.mark.parametrize(("data", "said"), [pytest.param(d, s, id=name) for name, d, s in _malformed()])
def test_what_is_no_transcript_is_told_in_one_line(tmp_path: Path, data: bytes, said: str) -> None:
    file = tmp_path / "some.jsonl"
    file.write_bytes(data)
    done = replay(file)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"mcp-code-interpreter: {file} is ")
    assert said in line


def test_a_file_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    done = replay(tmp_path / "none")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "Cannot read" in done.stderr


async def test_a_torn_last_line_is_left_out_and_said(tmp_path: Path) -> None:
    async def talk(_: Client, run: Run) -> None:
        await run("1")

    file = await record(tmp_path, talk)
    data = await anyio.Path(file).read_bytes()
    await anyio.Path(file).write_bytes(data[:-5])
    done = replay(file)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "Its last line is torn, and was left out.")
