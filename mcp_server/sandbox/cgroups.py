"""Control groups that limit the memory and the number of processes of one context, version 2 or 1.

Groups are made below the server's own. In version 2 a group that has processes cannot hand controllers down, so a
server that is alone in a group given to it (`Delegate=yes`) first moves into a leaf of that group.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from mcp_server.sandbox import processes

PREFIX = "mcp-code-interpreter-"

_LEAF = "mcp-code-interpreter-server"

_EVENTS_BYTES = 4096
"""A few short lines; the kernel writes at most a page."""


@dataclass(frozen=True, slots=True)
class Parent:
    """Where groups can be made: a directory per controller, one for both in version 2. ``pids`` empty: none."""

    version: int
    memory: str
    pids: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """The group of one context."""

    parent: Parent
    name: str

    def attach(self, pid: int) -> None:
        """Move a process in; what it forks from now on is in as well. Raises OSError."""
        for directory in self.directories():
            _write(os.path.join(directory, "cgroup.procs"), str(pid))

    def doors(self) -> tuple[int, ...]:
        """Descriptors to which a process of one thread writes ``0`` to move itself in; the caller closes them.

        Empty in version 2. For a process that moves itself the kernel need not stop all others from forking and ending,
        which takes milliseconds; only version 1 lets it. Raises OSError.
        """
        if self.parent.version == 2:
            return ()
        with ExitStack() as undoing:
            opened = []
            for directory in self.directories():
                opened.append(os.open(os.path.join(directory, "tasks"), os.O_WRONLY | os.O_CLOEXEC))
                undoing.callback(os.close, opened[-1])
            undoing.pop_all()
            return tuple(opened)

    def remove(self) -> bool:
        """Remove the group. False where processes in it are still dying: ask again later."""
        for directory in self.directories():
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                continue
            except OSError:
                return False
        return True

    def directories(self) -> Iterable[str]:
        for parent in dict.fromkeys((self.parent.memory, self.parent.pids)):
            if parent:
                yield os.path.join(parent, self.name)


class KillCount:
    """How often the kernel has killed a process of a group for memory. Its file stays open: it is read at each run."""

    __slots__ = ("_fd",)

    def __init__(self, version: int, directory: str) -> None:
        events = "memory.events" if version == 2 else "memory.oom_control"
        self._fd = os.open(os.path.join(directory, events), os.O_RDONLY | os.O_CLOEXEC)

    @classmethod
    def of(cls, group: Group) -> KillCount:
        return cls(group.parent.version, os.path.join(group.parent.memory, group.name))

    @classmethod
    def of_this_process(cls) -> KillCount:
        """Of the group that this process is in, which what it starts is in too. Raises OSError where there is none."""
        refused = OSError()
        for version, places, groups in _hierarchies():
            try:
                return cls(version, _directory(places, groups, "" if version == 2 else "memory"))
            except OSError as error:  # version 2 may be there without counting memory
                refused = error
        raise refused

    def now(self) -> int:
        _, _, after = os.pread(self._fd, _EVENTS_BYTES, 0).partition(b"oom_kill ")
        return int(after.split(maxsplit=1)[0]) if after else 0

    def close(self) -> None:
        os.close(self._fd)


def make(parent: Parent, name: str, memory_bytes: int, process_count: int) -> Group:
    """A new, empty group with its ceilings; 0 processes means no ceiling. Raises OSError, leaving nothing behind."""
    group = Group(parent, f"{PREFIX}{os.getpid()}-{processes.start_time(os.getpid())}-{name}")
    try:
        for directory in group.directories():
            os.mkdir(directory)
        memory = os.path.join(parent.memory, group.name)
        if parent.version == 2:
            _write(os.path.join(memory, "memory.max"), str(memory_bytes))
            _write_if_there(os.path.join(memory, "memory.swap.max"), "0")
        else:
            _write(os.path.join(memory, "memory.limit_in_bytes"), str(memory_bytes))
            _write_if_there(os.path.join(memory, "memory.memsw.limit_in_bytes"), str(memory_bytes))
        if parent.pids and process_count:
            _write(os.path.join(parent.pids, group.name, "pids.max"), str(process_count))
    except OSError:
        group.remove()
        raise
    return group


def find_parent(own: str = "/proc/self/cgroup", mounts: str = "/proc/self/mountinfo") -> Parent:
    """Where a group with a memory ceiling can be made, found by making one. Raises OSError with the kernel's reason."""
    refused = OSError()
    for version, places, groups in _hierarchies(own, mounts):
        try:
            return _try_parent(version, places, groups)
        except OSError as error:
            refused = error
    raise refused


def _hierarchies(
    own: str = "/proc/self/cgroup", mounts: str = "/proc/self/mountinfo"
) -> list[tuple[int, dict[str, tuple[str, str]], dict[str, str]]]:
    """Those that may count memory: version, places, our groups. Raises OSError where there is none."""
    with open(own, encoding="utf-8") as file:
        groups = _own_groups(file.read())
    with open(mounts, encoding="utf-8") as file:
        places = _mounted(file.read())
    found = [
        (version, places, groups)
        for version, controller in ((2, ""), (1, "memory"))
        if controller in groups and controller in places
    ]
    if not found:
        raise OSError(errno.ENOENT, "no memory controller is mounted")
    return found


def clear_stale(parent: Parent) -> None:
    """Remove the groups of servers that are gone."""
    for directory in dict.fromkeys((parent.memory, parent.pids)):
        if not directory:
            continue
        for name in filter(_is_stale, os.listdir(directory)):
            with suppress(OSError):
                os.rmdir(os.path.join(directory, name))


def _is_stale(name: str) -> bool:
    """Whether the group was made by a process that is gone."""
    pid, _, rest = name.removeprefix(PREFIX).partition("-")
    started = rest.partition("-")[0]
    ours = name.startswith(PREFIX) and pid.isdigit() and started.isdigit()
    return ours and processes.start_time(int(pid)) != int(started)


def _own_groups(text: str) -> dict[str, str]:
    """Controller → the path of our group in its hierarchy; version 2 stands under the empty name."""
    groups = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), path))
    return groups


def _mounted(text: str) -> dict[str, tuple[str, str]]:
    """Controller → (mount point, path of the hierarchy that is mounted there)."""
    places: dict[str, tuple[str, str]] = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        _, _, _, root, point, *_ = before.split()
        kind, _, options = after.split(maxsplit=2)
        if kind == "cgroup2":
            places.setdefault("", (point, root))
        elif kind == "cgroup":
            for option in options.split(","):
                places.setdefault(option, (point, root))
    return places


def _try_parent(version: int, places: dict[str, tuple[str, str]], groups: dict[str, str]) -> Parent:
    memory = _directory(places, groups, "" if version == 2 else "memory")
    if version == 2:
        if os.path.basename(memory) == _LEAF:  # an earlier call moved us there, or the one that started us
            memory = os.path.dirname(memory)
        _hand_down_controllers(memory)
        parent = Parent(2, memory, memory)
    else:
        pids = _directory(places, groups, "pids") if "pids" in places and "pids" in groups else ""
        parent = Parent(1, memory, pids if pids and os.access(pids, os.W_OK) else "")
    make(parent, "trial", 64 * 1024 * 1024, 8).remove()
    return parent


def _directory(places: dict[str, tuple[str, str]], groups: dict[str, str], controller: str) -> str:
    point, root = places[controller]
    below = os.path.relpath(groups[controller], root)
    # Where the mount shows another part of the hierarchy than the one we are in, its top is what can be had.
    return point if below.startswith("..") or below == "." else os.path.join(point, below)


def _hand_down_controllers(directory: str) -> None:
    """Let groups below have memory and process ceilings. Raises OSError where that cannot be."""
    control = os.path.join(directory, "cgroup.subtree_control")
    with open(control, encoding="ascii") as file:
        if {"memory", "pids"} <= set(file.read().split()):
            return
    try:
        _write(control, "+memory +pids")
    except OSError as error:
        if error.errno != errno.EBUSY or not _alone_in(directory):
            raise
        leaf = os.path.join(directory, _LEAF)
        with suppress(FileExistsError):
            os.mkdir(leaf)
        _write(os.path.join(leaf, "cgroup.procs"), str(os.getpid()))
        _write(control, "+memory +pids")


def _alone_in(directory: str) -> bool:
    with open(os.path.join(directory, "cgroup.procs"), encoding="ascii") as file:
        return file.read().split() == [str(os.getpid())]


def _write(path: str, text: str) -> None:
    """One write(2), as the kernel's control files want it; the error's text names the file."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode("ascii"))
    except OSError as error:
        raise OSError(error.errno, f"write {os.path.basename(path)}: {error.strerror}") from error
    finally:
        os.close(fd)


def _write_if_there(path: str, text: str) -> None:
    """Ceilings of swap exist only where swap is counted."""
    with suppress(FileNotFoundError):
        _write(path, text)
