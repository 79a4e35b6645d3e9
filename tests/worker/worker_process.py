"""A real worker for tests: a process that loads `worker/` by path and serves one socket, and the host's side of it."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from mcp_server.worker import frames

WORKER_DIR = Path(frames.__file__).parent

BOOTSTRAP = """
import fcntl, importlib.util, os, socket, sys
name, place = "_code_interpreter_worker", sys.argv[1]
spec = importlib.util.spec_from_file_location(name, place + "/__init__.py", submodule_search_locations=[place])
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
spec.loader.exec_module(module)
main = importlib.import_module(name + ".main")
for preload in sys.argv[3:]:
    importlib.import_module(preload)
control = fcntl.fcntl(int(sys.argv[2]), fcntl.F_DUPFD_CLOEXEC, 500)  # far from what user code may close, as in a room
os.close(int(sys.argv[2]))
post = main.Post()
post.take(socket.socket(fileno=control))
post.begin(post.receive())
post.serve()
"""

PATIENCE_S = 30.0
"""Bound of every wait: nothing here takes as long unless it hangs."""


@dataclass
class Shown:
    """A DISPLAY frame: `parts` maps a MIME type to its data."""

    is_result: bool
    parts: dict[str, bytes]
    alts: dict[str, str]
    originals: dict[str, int]
    order: list[str]

    @property
    def text(self) -> str:
        return self.parts["text/plain"].decode()


@dataclass
class Run:
    """All that one RUN gave."""

    stdout: bytes = b""
    stderr: bytes = b""
    shown: list[Shown] = field(default_factory=list)
    end: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        return str(self.end["status"])

    @property
    def error(self) -> dict[str, str]:
        error = self.end["error"]
        assert isinstance(error, dict), f"the run did not fail: {self.stdout!r} {self.end!r}"
        return error

    @property
    def out(self) -> str:
        return self.stdout.decode()

    @property
    def result(self) -> str | None:
        results = [shown.text for shown in self.shown if shown.is_result]
        assert len(results) <= 1
        return results[0] if results else None


class WorkerDied(AssertionError):
    """The worker closed its socket."""


class WorkerProcess:
    """Starts a worker; `run` drives it and reads both pipes all the while."""

    def __init__(
        self,
        *preload: str,
        cwd: str | None = None,
        envs: Mapping[str, str] | None = None,
        zygote_envs: Mapping[str, str] | None = None,
        ready: bool = True,
    ) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", BOOTSTRAP, str(WORKER_DIR), str(theirs.fileno()), *preload],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                cwd="/",
                env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": "/nonexistent", **(zygote_envs or {})},
                start_new_session=True,
            )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.socket = ours
        self._stdout = self.process.stdout
        self._stderr = self.process.stderr
        self._decoder = frames.Decoder()
        self._frames: list[frames.Frame] = []
        self._output = {self._stdout.fileno(): b"", self._stderr.fileno(): b""}
        self.number = 0
        self.answer: frames.Frame | None = None
        if ready:
            self.send(frames.Frame(frames.INIT, {"cwd": cwd or "/", "envs": dict(envs or {})}))
            self.answer = self.receive()
            assert self.answer.kind in (frames.READY, frames.REFUSED), self.answer

    def send(self, frame: frames.Frame) -> None:
        self.socket.sendall(frames.encode(frame))

    def start(self, code: str, envs: Mapping[str, str] | None = None) -> None:
        """Send a RUN without waiting for its end."""
        self.number += 1
        header = {"run": self.number, "envs": dict(envs or {})}
        self.send(frames.Frame(frames.RUN, header, code.encode("utf-8", "surrogatepass")))

    def finish(self, on_output: Callable[[bytes], None] = lambda _: None) -> Run:
        """Read on to the END frame. `on_output` sees stdout so far whenever more of it came."""
        run = Run()
        while not run.end:
            frame = self.receive(on_output)
            if frame.kind == frames.DISPLAY:
                run.shown.append(_shown(frame))
            else:
                assert frame.kind == frames.END, frame
                assert frame.header["run"] == self.number
                run.end = frame.header
        self._drain()
        assert not self._frames, "nothing may follow END"
        run.stdout, run.stderr = self._output.values()
        self._output = dict.fromkeys(self._output, b"")
        return run

    def run(self, code: str, envs: Mapping[str, str] | None = None) -> Run:
        self.start(code, envs)
        return self.finish()

    def interrupt_when(self, code: str, sign: bytes = b"ready") -> Run:
        """Run code and send SIGINT once it has printed `sign`."""
        sent: list[bool] = []

        def look(output: bytes) -> None:
            if sign in output and not sent:
                sent.append(True)
                os.kill(self.process.pid, signal.SIGINT)

        self.start(code)
        return self.finish(look)

    def receive(self, on_output: Callable[[bytes], None] = lambda _: None) -> frames.Frame:
        deadline = time.monotonic() + PATIENCE_S
        while not self._frames:
            readable = self._wait(max(0.0, deadline - time.monotonic()))
            assert readable, f"no frame in {PATIENCE_S:g} s; output: {self._output!r}"
            for descriptor in readable:
                if descriptor == self.socket.fileno():
                    data = self.socket.recv(1 << 20)
                    if not data:
                        self._drain()
                        raise WorkerDied(f"exit code {self.process.wait(PATIENCE_S)}, output {self._output!r}")
                    self._frames += self._decoder.feed(data)
                else:
                    self._read(descriptor)
                    on_output(self._output[self._stdout.fileno()])
        return self._frames.pop(0)

    def late_output(self, sign: bytes) -> bytes:
        """Output that comes after a run, up to and with `sign` in stdout."""
        deadline = time.monotonic() + PATIENCE_S
        while sign not in self._output[self._stdout.fileno()]:
            readable = self._wait(max(0.0, deadline - time.monotonic()))
            assert readable, f"{sign!r} did not come: {self._output!r}"
            assert self.socket.fileno() not in readable, "a frame outside a run"
            for descriptor in readable:
                self._read(descriptor)
        output = self._output[self._stdout.fileno()]
        self._output[self._stdout.fileno()] = b""
        return output

    def _wait(self, timeout_s: float) -> list[int]:
        return select.select([self.socket.fileno(), *self._output], [], [], timeout_s)[0]

    def _read(self, descriptor: int) -> None:
        self._output[descriptor] += os.read(descriptor, 1 << 20)

    def _drain(self) -> None:
        """Take what is in the pipes already."""
        while True:
            readable = select.select(list(self._output), [], [], 0)[0]
            grown = False
            for descriptor in readable:
                data = os.read(descriptor, 1 << 20)
                self._output[descriptor] += data
                grown = grown or bool(data)
            if not grown:
                return

    def close(self) -> None:
        self.socket.close()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)
        self._stdout.close()
        self._stderr.close()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()


def _shown(frame: frames.Frame) -> Shown:
    shown = Shown(frame.header["is_result"], {}, {}, {}, [])
    position = 0
    for part in frame.header["parts"]:
        mime = part["mime"]
        shown.parts[mime] = frame.body[position : position + part["bytes"]]
        shown.alts[mime] = part["alt"]
        shown.originals[mime] = part["original"]
        shown.order.append(mime)
        position += part["bytes"]
    assert position == len(frame.body)
    assert shown.order[0] == "text/plain"
    return shown
