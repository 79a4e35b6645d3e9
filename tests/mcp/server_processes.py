"""Real servers as processes, and what tests need to know of them from outside."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mcp.client.stdio import StdioServerParameters

BOUND_S = 30.0
"""Longest wait for anything that is about to happen; reached only by a fault."""

START_BOUND_S = 100.0
"""The same for a start, most of which is imports: they take ten times as long on a machine that is busy."""

QUICK = ("--preload", "")
"""Most tests need no numpy."""


def command(*flags: str) -> list[str]:
    return [sys.executable, "-m", "mcp_server.cli", *QUICK, *flags]


def stdio_parameters(*flags: str) -> StdioServerParameters:
    program, *arguments = command(*flags)
    return StdioServerParameters(command=program, args=arguments)


@dataclass
class ServerProcess:
    """A server that runs. ``log`` grows with the events that it writes to stderr."""

    process: subprocess.Popen[bytes]
    log: list[dict[str, object]] = field(default_factory=list)
    port: int = 0
    logged: threading.Condition = field(default_factory=threading.Condition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def wait_for_event(self, name: str) -> dict[str, object]:
        """The first event of that name, as soon as it is logged."""
        with self.logged:
            found = self.logged.wait_for(lambda: [entry for entry in self.log if entry["event"] == name], BOUND_S)
        assert found, f"no {name} in the log: {self.log}"
        return found[0]

    def stop(self, number: signal.Signals, bound_s: float = BOUND_S) -> int:
        self.process.send_signal(number)
        return self.process.wait(bound_s)


def http_server(
    *flags: str, wanted: Callable[[dict[str, object]], bool] = lambda _: True
) -> AbstractContextManager[ServerProcess]:
    """A server on a free port, ended with the block. Of its log the events are kept that are `wanted`."""
    return listening(command("serve", "--port", "0", *flags), wanted)


@contextmanager
def listening(
    program: list[str], wanted: Callable[[dict[str, object]], bool] = lambda _: True
) -> Iterator[ServerProcess]:
    """A program that logs as ours do and takes HTTP requests, ended with the block."""
    process = subprocess.Popen(program, stderr=subprocess.PIPE)
    server = ServerProcess(process)
    listening = threading.Event()

    def read_log() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            try:
                event = json.loads(line)
            except ValueError:
                event = {"event": "not of the log", "line": line.decode()}
            with server.logged:
                if wanted(event):
                    server.log.append(event)
                server.logged.notify_all()
            if event["event"] == "server.listening":
                port = str(event["url"]).rsplit(":", 1)[1].split("/")[0]
                server.port = int(port or 0)  # none of a Unix socket
                listening.set()
        listening.set()

    reader = threading.Thread(target=read_log)
    reader.start()
    try:
        assert listening.wait(START_BOUND_S)
        assert process.poll() is None, f"the server did not start: {server.log}"
        yield server
    finally:
        process.kill()
        process.wait(BOUND_S)
        reader.join(BOUND_S)
        assert process.stderr is not None
        process.stderr.close()


def failed_start(*arguments: str) -> str:
    """The one line on stderr of a server that does not start."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=START_BOUND_S, check=False)
    assert done.returncode == 1, done.stderr
    [line] = done.stderr.splitlines()
    return line


def descendants(pid: int) -> list[int]:
    """Every process below one, by what /proc says of their parents."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(entry.name)] = int(fields[1])
    found = [pid]
    for above in found:
        found.extend(child for child, parent in parents.items() if parent == above)
    return found[1:]


def cgroups_of(pid: int) -> list[str]:
    """The control groups that a server has made."""
    found: list[str] = []
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        found += [f"{directory}/{name}" for name in names if name.startswith(f"mcp-code-interpreter-{pid}-")]
    return found


class Watched:
    """Holds processes by descriptors, so that their ends can be awaited without mistaking another for them."""

    def __init__(self, pids: list[int]) -> None:
        self._fds = {os.pidfd_open(pid): pid for pid in pids}

    def survivors(self) -> list[int]:
        """Those that have not ended within the bound."""
        deadline = time.monotonic() + BOUND_S
        left = dict(self._fds)
        poll = select.poll()
        for fd in left:
            poll.register(fd, select.POLLIN)
        while left and (remaining := deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(remaining * 1000):
                poll.unregister(fd)
                del left[fd]
        for fd in self._fds:
            os.close(fd)
        return list(left.values())


@contextmanager
def raw_stdio_server(*flags: str, stderr: int = subprocess.DEVNULL) -> Iterator[RawStdio]:
    """A server over pipes, spoken to line by line."""
    process = subprocess.Popen(command(*flags), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr)
    try:
        yield RawStdio(process)
    finally:
        process.kill()
        process.wait(BOUND_S)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


class RawStdio:
    """JSON-RPC over a process's pipes, in the protocol with the handshake."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def send_line(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def send(self, **message: object) -> None:
        self.send_line(json.dumps({"jsonrpc": "2.0", **message}).encode())

    def receive(self) -> dict[str, object]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the server closed its stdout"
        message: dict[str, object] = json.loads(line)
        return message

    def answer(self, request_id: int) -> dict[str, object]:
        """The answer to a request; what comes before it is passed over."""
        while True:
            message = self.receive()
            if message.get("id") == request_id and "method" not in message:
                return message

    def shake_hands(self) -> None:
        client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        self.send(id=0, method="initialize", params=client)
        self.answer(0)
        self.send(method="notifications/initialized")

    def start_endless_run(self, request_id: int) -> None:
        """Start code that runs until it is stopped; returns when its output has been seen."""
        code = "x = 41\nprint('going', flush=True)\nwhile True: pass"
        params = {"name": "run_code", "arguments": {"code": code}, "_meta": {"progressToken": "p"}}
        self.send(id=request_id, method="tools/call", params=params)
        while True:
            message = self.receive()
            if message.get("method") == "notifications/progress":
                body = message["params"]
                assert isinstance(body, dict)
                if body["message"] == "going":
                    return
