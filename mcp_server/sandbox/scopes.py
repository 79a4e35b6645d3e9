"""Asks systemd for a control group that is this server's to divide, where it has been given none.

Below a login session or a program of a desktop nobody but systemd may make groups (version 2). It gives a scope away
for the asking (`Delegate`): a group into which it moves this process alone. Starting the server by
`systemd-run --user --scope -p Delegate=yes` does the same, for those who know of it.

It is asked for by nobody whom somebody has limited, since a scope would be a way out, nor by a service, whose unit says
itself what it may do.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from mcp_server.sandbox import cgroups

ANSWER_S = 2.0
"""For all that systemd is asked. It answers within milliseconds; a server that cannot wait starts without."""

_UNLIMITED: Mapping[str, str] = {
    "cpu.max": "max ",
    "cpuset.cpus": "\n",
    "io.max": "",
    "memory.high": "max\n",
    "memory.max": "max\n",
    "memory.swap.max": "max\n",
}
"""Files of a group that may limit it, and how they begin, or what they are, where they do not. Of processes a scope is
given no more than any other (DefaultTasksMax)."""

_LEAVABLE = re.compile(r".+\.scope|app-.+\.service")
"""Sessions, what terminals and desktops start, and what `systemd-run --scope` does."""

_OWNERS = re.compile(r"user-\d+\.slice|user@\d+\.service")
"""Groups that stay above this process wherever systemd moves it: what is set there goes on to hold."""

_MANAGER = "org.freedesktop.systemd1"


def divisible_group() -> cgroups.Parent:
    """Where groups can be made, in a scope of this process's own if nowhere else. Raises OSError with the reason."""
    try:
        return cgroups.find_parent()
    except OSError as error:
        refused = error
    try:
        enter(_bus())
    except OSError as error:
        raise OSError(refused.errno, f"{refused.strerror}; no scope for it: {error.strerror or error}") from error
    return cgroups.find_parent()


def enter(bus: str, own: Path = Path("/proc/self/cgroup"), hierarchy: Path = Path("/sys/fs/cgroup")) -> None:
    """Have systemd, which is asked at the socket `bus`, move this process into a scope that it may divide.

    Raises OSError where it may not be asked, cannot be reached, refuses, or does not answer.
    """
    group = _unified_group(own.read_text(encoding="utf-8"))
    reason = why_not(group, hierarchy)
    if reason:
        raise OSError(errno.EPERM, reason)
    name = f"mcp-code-interpreter-{os.getpid()}-{time.monotonic_ns()}.scope"
    _start_scope(bus, name, slice_of(group) if os.geteuid() == 0 else "")
    if PurePosixPath(_unified_group(own.read_text(encoding="utf-8"))).name != name:
        raise OSError(errno.EPROTO, "systemd has made a scope, and left this process where it was")


def why_not(group: str, hierarchy: Path) -> str:
    """Why this process may not leave its group, as a sentence; empty where it may. Reads the files of the groups."""
    if "memory" not in _read(hierarchy / "cgroup.controllers").split():
        return "version 2 has no memory controller here"
    unit = PurePosixPath(group)
    if not _LEAVABLE.fullmatch(unit.name):
        return "this is no session and no program of a desktop"
    for place in (unit, *unit.parents):
        if _OWNERS.fullmatch(place.name):
            break
        for file, unlimited in _UNLIMITED.items():
            value = _read(hierarchy / place.relative_to("/") / file)
            if value and not (unlimited and value.startswith(unlimited)):
                return f"{place.name} is limited by {file}"
    return ""


def slice_of(group: str) -> str:
    """The innermost slice that a group is in: a scope of the same slice is under the same limits."""
    return next((part for part in reversed(PurePosixPath(group).parts) if part.endswith(".slice")), "")


def _bus() -> str:
    """Of the user's own service manager, or of the system's for root. By path: clients pass few variables on."""
    return "/run/dbus/system_bus_socket" if os.geteuid() == 0 else f"/run/user/{os.geteuid()}/bus"


def _unified_group(text: str) -> str:
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            return path
    raise OSError(errno.ENOENT, "there are no control groups of version 2")


def _read(path: Path) -> str:
    """Empty where the group has no such controller."""
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        return ""


def _start_scope(bus: str, name: str, in_slice: str) -> None:
    """Returns when this process is in it. Raises OSError."""
    # Here alone is it needed, and only where a server starts without a group of its own.
    from jeepney import DBusAddress, DBusErrorResponse, MatchRule, message_bus, new_method_call
    from jeepney.auth import AuthenticationError
    from jeepney.io.blocking import DBusConnection, prep_socket
    from jeepney.wrappers import unwrap_msg

    manager = DBusAddress("/org/freedesktop/systemd1", bus_name=_MANAGER, interface=f"{_MANAGER}.Manager")
    properties: list[tuple[str, tuple[str, Any]]] = [
        ("Description", ("s", "Contexts of mcp-code-interpreter")),
        ("PIDs", ("au", [os.getpid()])),
        ("Delegate", ("b", True)),
        ("CollectMode", ("s", "inactive-or-failed")),
    ]
    if in_slice:
        properties.append(("Slice", ("s", in_slice)))
    start = new_method_call(manager, "StartTransientUnit", "ssa(sv)a(sa(sv))", (name, "fail", properties, []))
    removed = MatchRule(type="signal", interface=manager.interface, member="JobRemoved", path=manager.object_path)
    deadline_s = time.monotonic() + ANSWER_S

    class Connection(DBusConnection):  # type: ignore[misc]  # the library has no types
        """Waits no longer for all of it than it may, its greeting included."""

        def receive(self, *, timeout: float | None = None) -> Any:  # noqa: ARG002  (the library's signature)
            return super().receive(timeout=max(deadline_s - time.monotonic(), 0))

    try:
        with prep_socket(bus, timeout=ANSWER_S) as sock, Connection(sock) as connection:
            unwrap_msg(connection.send_and_get_reply(message_bus.AddMatch(removed)))
            with connection.filter(removed, bufsize=64) as jobs:
                (job,) = unwrap_msg(connection.send_and_get_reply(start))
                path = result = ""
                while path != job:
                    _, path, _, result = connection.recv_until_filtered(jobs).body
    except DBusErrorResponse as error:
        raise OSError(errno.EPERM, f"systemd refuses one: {error}") from None
    except AuthenticationError as error:
        raise OSError(errno.EACCES, f"systemd's bus lets nobody in: {error}") from None
    except TimeoutError:
        raise OSError(errno.ETIMEDOUT, f"systemd does not answer within {ANSWER_S:g} s") from None
    if result != "done":
        raise OSError(errno.EPERM, f"systemd could not start one: {result}")
