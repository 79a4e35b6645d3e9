"""Builds a cell and starts the zygote in it. Runs on the server's own interpreter, before anything foreign is started.

Two orders of the same steps. Real root assembles the view while it can still reach every source (an interpreter may lie
under somebody's home of mode 0700), then gives itself up for a range of unused uids. Everyone else enters a user
namespace first, which makes them root of nothing but their own files.

The process that builds stays, asleep, as the parent of the cell's first process: the server's death kills it, and its
death kills the cell.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
from typing import Any, Dict, NoReturn, Tuple

from . import linux, packets, view, workspace

ROOT = "/tmp"  # noqa: S108  (only a place to mount on, in a mount namespace of our own)

UID_RANGE = 65536

_CAP_SYS_ADMIN = 21

_OTHER_NAMESPACES = (
    linux.CLONE_NEWPID | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS | linux.CLONE_NEWCGROUP
)


def main(control_fd: str) -> NoReturn:
    """The entry of the process that the host started; it ends the process."""
    control = socket.socket(fileno=int(control_fd))
    plan, _ = packets.receive(control)
    if plan is None:
        os._exit(0)
    try:
        linux.die_with_parent(signal.SIGKILL)
        enter_namespaces(plan, control)
        pid = os.fork()
        if pid == 0:
            _become_zygote(control, plan)
    except OSError as error:
        packets.refuse(control, "The sandbox cannot be built: %s" % error)
    control.close()
    _, status = os.waitpid(pid, 0)
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


def enter_namespaces(plan: Dict[str, Any], control: socket.socket) -> None:
    """Leave the host's namespaces. Only the next child is in the new PID namespace, as its first process."""
    first_uid = plan["first_uid"]
    if first_uid:
        os.setgroups([])
    if first_uid and _has_capability(_CAP_SYS_ADMIN):
        linux.unshare(linux.CLONE_NEWNS)
        linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)
        own_mounts = _assemble(plan, control, _take(plan, first_uid + plan["workspace_uid"]))
        _enter_user_namespace(first_uid)
        _become_root_inside()
        # What a more privileged namespace mounted cannot become a root directory; a copy of it can.
        view.attach(linux.open_tree(ROOT), ROOT)
    else:
        _enter_user_namespace(first_uid)
        if first_uid and plan["workspace"] is not None:
            raise OSError(errno.EPERM, "a workspace needs CAP_SYS_ADMIN where the server is root")
        taken = _take(plan, 0)  # while still the user whose files they are
        _become_root_inside()
        own_mounts = _assemble(plan, control, taken)
    for path, tree in own_mounts.items():
        view.attach(tree, ROOT + path)
    linux.unshare(_OTHER_NAMESPACES)


def _take(plan: Dict[str, Any], workspace_id: int) -> Tuple[view.Taken, Dict[str, int]]:
    """What the view consists of, and the mounts that the cell must be able to unmount in its rooms; all detached."""
    mounts = {}
    if plan["workspace"] is not None:
        mounts[view.WORKSPACE_DIR] = workspace.take(plan["workspace"], workspace_id)
    return view.take(plan["python"], plan["worker_dir"]), mounts


def _assemble(plan: Dict[str, Any], control: socket.socket, taken: Tuple[view.Taken, Dict[str, int]]) -> Dict[str, int]:
    """Put the view together; returns the mounts that are still detached."""
    system, mounts = taken
    view.assemble(ROOT, system)
    mounts[view.OUTPUTS_DIR] = _make_outputs(plan["outputs_bytes"], control)
    return mounts


def _make_outputs(size_bytes: int, control: socket.socket) -> int:
    """A tmpfs for the host to write to, which gets a descriptor of it; returns the mount, detached.

    Made while still root where that is so: the host's root may make no files on a tmpfs of a user namespace's.
    """
    place = ROOT + view.OUTPUTS_DIR
    flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    linux.mount("tmpfs", place, "tmpfs", flags, "size=%d,nr_inodes=64k,mode=0755" % size_bytes)
    directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    packets.send(control, {"op": "outputs"}, [directory])
    os.close(directory)
    tree = linux.open_tree(place)
    linux.unmount(place)
    return tree


def _enter_user_namespace(first_uid: int) -> None:
    """New user and mount namespaces, with all capabilities there; a range of uids where `first_uid` is given."""
    uid, gid = os.geteuid(), os.getegid()
    tell, told = socket.socketpair()
    helper = _fork_map_writer(told, first_uid) if first_uid else 0
    linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
    linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)
    if helper:
        tell.send(b"!")
        _, status = os.waitpid(helper, 0)
        if status:
            raise OSError(os.WEXITSTATUS(status), "write uid_map: %s" % os.strerror(os.WEXITSTATUS(status)))
    else:
        linux.write_file("/proc/self/setgroups", "deny")
        linux.write_file("/proc/self/uid_map", "0 %d 1" % uid)
        linux.write_file("/proc/self/gid_map", "0 %d 1" % gid)
    tell.close()
    told.close()


def _become_root_inside() -> None:
    """The uid of whoever entered has no meaning inside where a range is mapped."""
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    linux.die_with_parent(signal.SIGKILL)  # the change of uid cleared it


def _fork_map_writer(told: socket.socket, first_uid: int) -> int:
    """Only a process outside of a user namespace may map more than one uid into it. It exits with the errno."""
    builder = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 0
    try:
        linux.die_with_parent(signal.SIGKILL)
        told.recv(1)
        for name in ("uid_map", "gid_map"):
            linux.write_file("/proc/%d/%s" % (builder, name), "0 %d %d" % (first_uid, UID_RANGE))
    except OSError as error:
        code = error.errno or 1
    os._exit(code)


def _become_zygote(control: socket.socket, plan: Dict[str, Any]) -> NoReturn:
    try:
        linux.die_with_parent(signal.SIGKILL)
        linux.mount(
            "proc", ROOT + "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
        )  # before the old one is let go: the kernel wants a whole /proc to be in sight
        view.enter(ROOT)
        socket.sethostname("sandbox")
        os.set_inheritable(control.fileno(), True)
        python = view.inside(plan["python"])
        environment = {**plan["environment"], "PATH": view.search_path(plan["environment"].get("PATH", ""))}
        os.execve(python, [python, *plan["command"][1:]], environment)  # noqa: S606  (no shell is wanted)
    except OSError as error:
        packets.refuse(control, "The sandbox cannot be entered: %s" % error)


def _has_capability(number: int) -> bool:
    with open("/proc/self/status", encoding="ascii") as lines:
        effective = next(line.split()[1] for line in lines if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> number & 1)
