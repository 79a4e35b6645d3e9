"""The plain protocol by hand: one socket, seen frame by frame."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.toolbox.toolbox_server import ToolboxServer

LONGEST_WAIT_S = 60


@dataclass
class Spoken:
    """All that the server said on one socket."""

    frames: list[dict[str, Any]] = field(default_factory=list)
    code: int = 0
    reason: str = ""

    def text(self, kind: str) -> str:
        return "".join(frame["text"] for frame in self.frames if frame["type"] == kind)

    @property
    def stdout(self) -> str:
        return self.text("stdout")

    @property
    def control(self) -> str:
        return self.text("control")

    @property
    def error(self) -> dict[str, Any] | None:
        return next((frame for frame in self.frames if frame["type"] == "error"), None)


@contextmanager
def opened(server: ToolboxServer, sandbox_id: str, **options: Any) -> Iterator[ClientConnection]:
    """A socket on which nothing has been said."""
    url = f"ws{server.url.removeprefix('http')}/toolbox/{sandbox_id}/process/interpreter/execute"
    options = {"compression": None, "ping_interval": None, "proxy": None} | options
    with connect(url, additional_headers=server.headers, **options) as socket:
        yield socket


def execute(server: ToolboxServer, sandbox_id: str, code: str = "pass", **fields: Any) -> Spoken:
    """Run code on a socket of its own, to its closing frame."""
    with opened(server, sandbox_id) as socket:
        socket.send(json.dumps({"code": code, **fields}))
        return hear(socket)


def hear(socket: ClientConnection) -> Spoken:
    """Everything up to the closing frame."""
    spoken = Spoken()
    try:
        while True:
            message = socket.recv(timeout=LONGEST_WAIT_S)
            assert isinstance(message, str)
            assert len(message.encode()) < 1024 * 1024
            frame = json.loads(message)
            assert set(frame) == {"type", "text", "name", "value", "traceback"}
            assert all(isinstance(value, str) for value in frame.values())
            spoken.frames.append(frame)
    except ConnectionClosed as closed:
        last = closed.rcvd
    assert last is not None, "the connection ended without a closing frame"
    spoken.code, spoken.reason = last.code, last.reason
    assert len(spoken.reason.encode()) < 123
    return spoken


def hear_output(socket: ClientConnection) -> str:
    """The next piece of output: by then the code runs."""
    return str(json.loads(socket.recv(timeout=LONGEST_WAIT_S))["text"])
