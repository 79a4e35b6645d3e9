"""Finds out by doing what this machine lets a process do. Each trial runs in a child that is thrown away.

The host starts this as a process of its own, so that nothing of the server is forked. One JSON object comes out on
stdout: name of the trial → {"works": bool, "error": str, "detail": str}. An error is the kernel's own text, after the
name of the call that it refused.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from typing import Any, Callable, Dict, List, NoReturn

from . import bubble, confine, linux

TRIAL_TIMEOUT_S = 3
"""A mount or a program that hangs must not hold the start of the server; each of these takes milliseconds."""

MAPPED_IDS = 65536

SOME_DIRECTORY = "/tmp"  # noqa: S108  (only ever mounted over, in a namespace of the trial's own)

OF_A_BUBBLE = (
    *("--proc", "/proc", "--size", "4096", "--tmpfs", SOME_DIRECTORY),
    *("--uid", "1000", "--gid", "1000", *bubble.HOLDING),
)
"""As a cell is built, so that a bwrap that lacks an option is known."""

OF_A_CELL = linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS | linux.CLONE_NEWCGROUP


def main(argument: str) -> NoReturn:
    """The entry. The argument is a JSON object: `bubblewrap` (path or ""), `first_id` of the ids to map."""
    wanted = json.loads(argument)
    json.dump({name: attempt(trial) for name, trial in _trials(wanted).items()}, sys.stdout)
    sys.stdout.flush()
    os._exit(0)


def _trials(wanted: Dict[str, Any]) -> Dict[str, Callable[[], str]]:
    bubblewrap: str = wanted["bubblewrap"]
    trials: Dict[str, Callable[[], str]] = {
        "user_namespace": try_user_namespace,
        "mounts": try_mounts,
        "pid_namespace": try_pid_namespace,
        "network_namespace": try_network_namespace,
        "rooms": try_rooms,
        "seccomp": try_seccomp,
        "landlock": try_landlock,
        "capabilities": try_capabilities,
        "pidfd": try_pidfd,
        "bubblewrap": lambda: try_bubblewrap(bubblewrap),
        "bubblewrap_capabilities": lambda: try_bubblewrap_capabilities(bubblewrap),
    }
    if os.geteuid() == 0:
        trials["id_range"] = lambda: try_id_range(wanted["first_id"])
    return trials


def attempt(trial: Callable[[], str]) -> Dict[str, Any]:
    """Run a trial in a child of its own; what it returns is the detail, what it raises the error."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        linux.die_with_parent(signal.SIGKILL)
        os.setsid()
        os.write(writer, json.dumps(_outcome(trial)).encode())
        os._exit(0)
    os.close(writer)
    answered, _, _ = select.select([reader], [], [], TRIAL_TIMEOUT_S)
    text = os.read(reader, 65536) if answered else b""
    os.close(reader)
    if not answered:
        os.killpg(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if text:
        result: Dict[str, Any] = json.loads(text)
        return result
    how = "did not end in %d s" % TRIAL_TIMEOUT_S if not answered else "ended with wait status %d" % status
    return {"works": False, "error": "the trial " + how, "detail": ""}


def _outcome(trial: Callable[[], str]) -> Dict[str, Any]:
    try:
        return {"works": True, "error": "", "detail": trial()}
    except OSError as error:
        return {"works": False, "error": error.strerror or str(error), "detail": ""}


def _in_child(step: Callable[[], str]) -> str:
    """Run a step in a forked child, which is PID 1 where a PID namespace was just unshared."""
    result = attempt(step)
    if not result["works"]:
        raise OSError(0, result["error"])
    detail: str = result["detail"]
    return detail


def _become_root_of_namespaces(more: int) -> None:
    """A new user namespace in which the caller's own uid is 0, and others owned by it."""
    uid, gid = os.geteuid(), os.getegid()
    linux.unshare(linux.CLONE_NEWUSER)
    linux.write_file("/proc/self/setgroups", "deny")
    linux.write_file("/proc/self/uid_map", "0 %d 1" % uid)
    linux.write_file("/proc/self/gid_map", "0 %d 1" % gid)
    if more:
        linux.unshare(more)


def _own_mounts() -> None:
    linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)


def _fresh_proc() -> None:
    linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    if os.readlink("/proc/self") != str(os.getpid()):
        raise OSError(0, "mount proc: it shows the processes of another namespace")


def try_user_namespace() -> str:
    """With capabilities inside: a namespace whose capabilities were taken away is of no use."""
    _become_root_of_namespaces(linux.CLONE_NEWUTS)
    try:
        socket.sethostname("trial")
    except PermissionError as error:
        raise OSError(error.errno, "sethostname: %s: the namespace gives no capabilities" % error.strerror) from None
    return ""


def try_mounts() -> str:
    """A read-only view of the system on a tmpfs, entered by pivot_root, the old root gone."""
    _become_root_of_namespaces(linux.CLONE_NEWNS)
    _own_mounts()
    linux.mount("tmpfs", SOME_DIRECTORY, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV)
    os.chdir(SOME_DIRECTORY)
    os.mkdir("usr")
    os.mkdir("old")
    linux.mount("/usr", "usr", None, linux.MS_BIND | linux.MS_REC)
    linux.mount_setattr("usr", linux.MOUNT_ATTR_RDONLY)
    linux.pivot_root(".", "old")
    linux.unmount("/old")
    os.chdir("/")
    if sorted(os.listdir("/")) != ["old", "usr"] or os.listdir("/old"):
        raise OSError(0, "pivot_root: the old root can still be seen")
    if os.access("/usr", os.W_OK):
        raise OSError(0, "mount_setattr: the view can be written")
    return ""


def try_pid_namespace() -> str:
    _become_root_of_namespaces(linux.CLONE_NEWNS | linux.CLONE_NEWPID)

    def inside() -> str:
        _own_mounts()
        _fresh_proc()
        return ""

    return _in_child(inside)


def try_network_namespace() -> str:
    """A loopback of its own that carries TCP."""
    _become_root_of_namespaces(linux.CLONE_NEWNET)
    linux.loopback_up()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        return ""


def try_rooms() -> str:
    """A room in a cell: every namespace a second time, and at last a user namespace without power over the others."""
    _become_root_of_namespaces(OF_A_CELL | linux.CLONE_NEWNET)

    def cell() -> str:
        _own_mounts()
        _fresh_proc()
        linux.unshare(OF_A_CELL | linux.CLONE_NEWNET)
        return _in_child(room)

    def room() -> str:
        linux.mount("tmpfs", SOME_DIRECTORY, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=4k")
        _fresh_proc()
        linux.loopback_up()
        _become_root_of_namespaces(0)
        try:
            linux.unmount(SOME_DIRECTORY)
        except PermissionError:
            return ""
        raise OSError(0, "unshare: the room can undo its own mounts")

    return _in_child(cell)


def try_id_range(first_id: int) -> str:
    """Root maps a range of ids that nobody uses, so that what is inside is nobody outside."""
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        linux.die_with_parent(signal.SIGKILL)
        try:
            linux.unshare(linux.CLONE_NEWUSER)
            os.write(ready[1], b"+")
            os.read(go[0], 1)
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    os.close(ready[1])
    try:
        if os.read(ready[0], 1):
            line = "0 %d %d" % (first_id, MAPPED_IDS)
            linux.write_file("/proc/%d/uid_map" % pid, line)
            linux.write_file("/proc/%d/gid_map" % pid, line)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    os.write(go[1], b"+")
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise OSError(status, "mapped ids cannot be taken on: %s" % os.strerror(status))
    return "%d ids from %d" % (MAPPED_IDS, first_id)


def try_seccomp() -> str:
    """Each program for this machine loads and holds."""
    for name in ("room", "standard"):
        program = confine.read_program(name)

        def held(program: bytes = program) -> str:
            linux.set_no_new_privileges()
            linux.load_seccomp_filter(program)
            try:
                linux.unshare(linux.CLONE_NEWUSER)
            except PermissionError:
                return ""
            raise OSError(0, "seccomp: the program is loaded but does not hold")

        _in_child(held)
    return os.uname().machine


def try_landlock() -> str:
    """Files and signals are held; the version says what else is."""
    linux.set_no_new_privileges()
    confine.restrict_files({"write": [], "read": ["/usr"]})
    os.listdir("/usr")
    for forbidden in (lambda: os.listdir("/"), lambda: os.kill(os.getppid(), 0)):
        try:
            forbidden()
        except PermissionError:
            continue
        raise OSError(0, "landlock: the rules are on but do not hold")
    return "ABI %d" % linux.landlock_abi()


def try_capabilities() -> str:
    linux.set_no_new_privileges()
    confine.drop_capabilities()
    return ""


def try_pidfd() -> str:
    os.close(os.pidfd_open(os.getpid()))
    return ""


def try_bubblewrap(path: str) -> str:
    """A cell as it is built, in which bwrap itself is what runs: it needs nothing but its libraries."""
    said = _run_bubblewrap([path, "--ro-bind", "/", "/", *OF_A_BUBBLE, path, "--version"])
    if os.geteuid() == 0:
        raise OSError(0, "bwrap: " + bubble.NOT_FOR_ROOT)
    return said.strip()


def try_bubblewrap_capabilities(path: str) -> str:
    """What runs inside tells by its effective capabilities whether rooms could be built there."""
    view = ("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--unshare-all", "--die-with-parent")
    options = ("--uid", "0", "--gid", "0", "--cap-add", "ALL")
    inside = (sys.executable, "-I", "-S", "-c", "print(open('/proc/self/status').read())")
    said = _run_bubblewrap([path, *view, *options, *inside])
    line = next(line for line in said.splitlines() if line.startswith("CapEff:"))
    if int(line.split()[1], 16) == 0:
        raise OSError(0, "bwrap: it ran, but without the capabilities asked for")
    return ""


def _run_bubblewrap(command: List[str]) -> str:
    if not command[0]:
        raise OSError(0, "bwrap is not on the PATH")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(0, "bwrap: " + (done.stderr.strip() or "exit code %d" % done.returncode)[-300:])
    return done.stdout
