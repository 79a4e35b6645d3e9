"""A control group that systemd gives away, asked for over D-Bus: here of a stand-in that speaks the protocol."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jeepney
import pytest
from jeepney.low_level import HeaderFields, Message, Parser

from mcp_server.sandbox import scopes

SESSION = "/user.slice/user-1000.slice/session-7.scope"
DESKTOP = "/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-code-4711.scope"
JOB = "/org/freedesktop/systemd1/job/9"

LET_IN = b"OK 0123456789abcdef0123456789abcdef\r\n"

Answer = Callable[["Manager", Message], None]


class Manager(threading.Thread):
    """A bus with systemd on it. It takes one client and one unit, does what `answer` says, and remembers what it was
    asked for.
    """

    def __init__(self, path: Path, own: Path, answer: Answer, welcome: bytes) -> None:
        super().__init__(daemon=True)
        self._welcome = welcome
        self.path = str(path)
        self.asked: dict[str, tuple[Any, ...]] = {}
        self._own = own
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._serial = 0
        self.start()

    def run(self) -> None:
        self._client, _ = self._listener.accept()
        with self._client:
            self._let_in()
            parser = Parser()
            while data := self._client.recv(4096):
                parser.add_data(data)
                while (message := parser.get_next_message()) is not None:
                    self._take(message)

    def close(self) -> None:
        self._listener.close()
        self.join(10)
        assert not self.is_alive()

    def _let_in(self) -> None:
        said = b""
        while not said.endswith(b"BEGIN\r\n"):
            said += self._client.recv(1)
            if said.endswith(b"\r\n") and b"AUTH" in said and b"BEGIN" not in said:
                assert said.startswith(b"\0AUTH EXTERNAL ")
                self._client.sendall(self._welcome)
                if self._welcome != LET_IN:
                    return

    def _take(self, message: Message) -> None:
        member = message.header.fields[HeaderFields.member]
        self.asked[member] = message.body
        if member == "Hello":
            self.reply(message, "s", (":1.7",))
        elif member == "StartTransientUnit":
            self._answer(self, message)
        else:
            self.reply(message)

    def reply(self, message: Message, signature: str | None = None, body: tuple[Any, ...] = ()) -> None:
        self.send(jeepney.new_method_return(message, signature, body))

    def send(self, message: Message) -> None:
        self._serial += 1
        self._client.sendall(message.serialise(self._serial))

    def move_client(self) -> None:
        """As systemd moves the processes of a scope that it starts."""
        name = self.asked["StartTransientUnit"][0]
        self._own.write_text(f"0::/user.slice/user-1000.slice/user@1000.service/app.slice/{name}\n")

    def end_job(self, job: str, result: str) -> None:
        emitter = jeepney.DBusAddress("/org/freedesktop/systemd1", interface="org.freedesktop.systemd1.Manager")
        body = (9, job, self.asked["StartTransientUnit"][0], result)
        self.send(jeepney.new_signal(emitter, "JobRemoved", "uoss", body))


@pytest.fixture(autouse=True)
def controllers(tmp_path: Path) -> Path:
    """Of the hierarchy of version 2 that is at `tmp_path`."""
    file = tmp_path / "cgroup.controllers"
    file.write_text("cpu io memory pids\n")
    return file


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "own"
    file.write_text(f"0::{SESSION}\n")
    return file


@pytest.fixture
def systemd(tmp_path: Path, own: Path) -> Iterator[Callable[..., Manager]]:
    made: list[Manager] = []

    def make(answer: Answer, welcome: bytes = LET_IN) -> Manager:
        made.append(Manager(tmp_path / "bus", own, answer, welcome))
        return made[-1]

    yield make
    for manager in made:
        manager.close()


def start(manager: Manager, message: Message, *, result: str = "done") -> None:
    manager.reply(message, "o", (JOB,))
    manager.end_job("/org/freedesktop/systemd1/job/8", "failed")  # somebody else's
    manager.move_client()
    manager.end_job(JOB, result)


def test_systemd_is_asked_for_a_scope_that_holds_this_process_alone(
    systemd: Callable[..., Manager], own: Path, tmp_path: Path
) -> None:
    manager = systemd(start)
    scopes.enter(manager.path, own, tmp_path)
    name, mode, properties, _ = manager.asked["StartTransientUnit"]
    asked = dict(properties)
    assert re.fullmatch(rf"mcp-code-interpreter-{os.getpid()}-\d+\.scope", name)
    assert (mode, asked["PIDs"], asked["Delegate"]) == ("fail", ("au", [os.getpid()]), ("b", True))
    assert asked.get("Slice") == (("s", "user-1000.slice") if os.geteuid() == 0 else None)


def refuse(manager: Manager, message: Message) -> None:
    manager.send(jeepney.new_error(message, "org.freedesktop.DBus.Error.AccessDenied", "s", ("not for you",)))


def fail(manager: Manager, message: Message) -> None:
    start(manager, message, result="failed")


def say_nothing(_manager: Manager, _message: Message) -> None:
    """As one that hangs."""


def leave_it(manager: Manager, message: Message) -> None:
    manager.reply(message, "o", (JOB,))
    manager.end_job(JOB, "done")


def hang_up(manager: Manager, _message: Message) -> None:
    manager._client.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (refuse, "systemd refuses one: .*not for you"),
        (fail, "systemd could not start one: failed"),
        (say_nothing, r"systemd does not answer within 0\.3 s"),
        (leave_it, "left this process where it was"),
        (hang_up, "Connection reset"),
    ],
)
def test_what_systemd_does_not_give_is_said(
    answer: Answer,
    said: str,
    systemd: Callable[..., Manager],
    own: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scopes, "ANSWER_S", 0.3)
    manager = systemd(answer)
    with pytest.raises(OSError, match=said):
        scopes.enter(manager.path, own, tmp_path)


def test_a_bus_that_lets_nobody_in_gives_none(systemd: Callable[..., Manager], own: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="systemd's bus lets nobody in"):
        scopes.enter(systemd(start, b"REJECTED ANONYMOUS\r\n").path, own, tmp_path)


def test_without_systemd_there_is_none(own: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        scopes.enter(str(tmp_path / "no bus"), own, tmp_path)


@pytest.mark.parametrize(
    ("group", "file", "value", "reason"),
    [
        (SESSION, "memory.max", "max\n", ""),
        (DESKTOP, "cpu.max", "max 100000\n", ""),
        (DESKTOP.replace(".scope", "@1.service"), "", "", ""),
        ("/system.slice/mcp.service", "", "", "this is no session and no program of a desktop"),
        ("/", "", "", "this is no session and no program of a desktop"),
        (SESSION, "memory.max", "1073741824\n", "session-7.scope is limited by memory.max"),
        (DESKTOP, "memory.high", "0\n", "app-gnome-code-4711.scope is limited by memory.high"),
        (DESKTOP, "cpu.max", "50000 100000\n", "app-gnome-code-4711.scope is limited by cpu.max"),
        (DESKTOP, "cpuset.cpus", "\n", ""),
        (DESKTOP, "cpuset.cpus", "0-1\n", "app-gnome-code-4711.scope is limited by cpuset.cpus"),
        (DESKTOP, "io.max", "", ""),
        (DESKTOP, "io.max", "8:0 rbps=1048576\n", "app-gnome-code-4711.scope is limited by io.max"),
    ],
)
def test_whoever_is_limited_or_a_service_does_not_leave(
    group: str, file: str, value: str, reason: str, tmp_path: Path
) -> None:
    place = tmp_path / group.lstrip("/")
    place.mkdir(parents=True, exist_ok=True)
    if file:
        (place / file).write_text(value)
    assert scopes.why_not(group, tmp_path) == reason


def test_where_memory_is_not_limited_by_version_2_nothing_is_asked_for(tmp_path: Path, controllers: Path) -> None:
    controllers.write_text("hugetlb\n")
    assert scopes.why_not(SESSION, tmp_path) == "version 2 has no memory controller here"
    controllers.unlink()
    assert scopes.why_not(SESSION, tmp_path) == "version 2 has no memory controller here"


def test_limits_of_slices_count_but_for_those_that_hold_wherever_it_goes(tmp_path: Path) -> None:
    for ceiling, reason in (
        ("user.slice/user-1000.slice", ""),
        ("user.slice/user-1000.slice/user@1000.service", ""),
        ("user.slice/user-1000.slice/user@1000.service/app.slice", "app.slice is limited by memory.max"),
    ):
        place = tmp_path / ceiling
        place.mkdir(parents=True, exist_ok=True)
        (place / "memory.max").write_text("4096\n")
        assert scopes.why_not(DESKTOP, tmp_path) == reason


def test_the_slice_of_a_group_is_the_innermost() -> None:
    assert scopes.slice_of(SESSION) == "user-1000.slice"
    assert scopes.slice_of(DESKTOP) == "app.slice"
    assert scopes.slice_of("/") == ""
