"""Messages over whatever a process can have as stdin and stdout."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification

from mcp_server.stdio_server import MessageWriter
from tests.mcp.server_processes import BOUND_S, command, raw_stdio_server

pytestmark = pytest.mark.anyio

OPENING = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}

LONG = "x" * 300_000
"""Several times what a pipe holds."""


def note(text: str) -> SessionMessage:
    return SessionMessage(JSONRPCNotification(jsonrpc="2.0", method="note", params={"text": text}))


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def read_lines(fd: int, count: int) -> list[str]:
    """What the notes on so many lines say."""
    data = b""
    while data.count(b"\n") < count:
        data += os.read(fd, 65536)
    return [json.loads(line)["params"]["text"] for line in data.splitlines()]


async def test_a_sender_waits_for_a_slow_reader_and_the_loop_does_not(pipe: tuple[int, int]) -> None:
    read_fd, write_fd = pipe
    writer = MessageWriter(write_fd)
    sending = asyncio.create_task(writer.send(note(LONG)))
    second = asyncio.create_task(writer.send(note("second")))
    await asyncio.sleep(0)
    assert not sending.done()
    assert not second.done()
    with anyio.fail_after(BOUND_S):
        assert await asyncio.to_thread(read_lines, read_fd, 2) == [LONG, "second"]
        await asyncio.gather(sending, second)


async def test_a_message_whose_sender_is_cancelled_half_way_is_whole(pipe: tuple[int, int]) -> None:
    read_fd, write_fd = pipe
    writer = MessageWriter(write_fd)
    sending = asyncio.create_task(writer.send(note(LONG)))
    await asyncio.sleep(0)
    sending.cancel()
    second = asyncio.create_task(writer.send(note("second")))
    with anyio.fail_after(BOUND_S):
        assert await asyncio.to_thread(read_lines, read_fd, 2) == [LONG, "second"]
        await second


async def test_a_sender_hears_that_nobody_reads_any_more() -> None:
    read_fd, write_fd = os.pipe()
    writer = MessageWriter(write_fd)
    sending = asyncio.create_task(writer.send(note(LONG)))
    await asyncio.sleep(0)
    os.close(read_fd)
    with anyio.fail_after(BOUND_S), pytest.raises(anyio.BrokenResourceError):
        await sending
    with pytest.raises(anyio.BrokenResourceError):
        await writer.send(note("second"))
    os.close(write_fd)


def test_a_client_that_reads_late_gets_every_answer_whole() -> None:
    count = 3_000  # their answers are more than a pipe holds
    with raw_stdio_server() as server:
        server.shake_hands()
        for number in range(1, count + 1):
            server.send(id=number, method="ping", params={"_meta": {"more": "x" * 60}})
        answers = [server.receive() for _ in range(count)]
    assert sorted(int(str(answer["id"])) for answer in answers) == list(range(1, count + 1))


def test_requests_come_from_a_file_and_answers_go_to_one(tmp_path: Path) -> None:
    asked, answered = tmp_path / "asked", tmp_path / "answered"
    asked.write_text(json.dumps(OPENING) + "\n")
    with asked.open("rb") as stdin, answered.open("wb") as stdout:
        subprocess.run(command(), stdin=stdin, stdout=stdout, stderr=subprocess.DEVNULL, timeout=BOUND_S, check=True)
    assert json.loads(answered.read_text())["result"]["serverInfo"]["name"] == "mcp-code-interpreter"


def test_a_socket_serves_as_both() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(command(), stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.DEVNULL)
        theirs.close()
        ours.settimeout(BOUND_S)
        ours.sendall(json.dumps(OPENING).encode() + b"\n")
        with ours.makefile("rb") as lines:
            assert json.loads(lines.readline())["id"] == 0
        ours.shutdown(socket.SHUT_WR)
        assert process.wait(BOUND_S) == 0
