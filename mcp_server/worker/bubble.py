"""Has bubblewrap build a cell, where that may make namespaces and this server may not have capabilities in its own.

Runs on the server's own interpreter, starts bwrap, and that the zygote as the first process of the cell. Nobody inside
has a capability, so nothing can be mounted there later: the cell is the room of one sandbox, furnished at once. The
outputs of its runs are a directory of the host's, which the cell sees and cannot change.

The process that starts bwrap stays, asleep, until that or the server has ended: then it leaves nothing of either.

Not for root: whoever a user namespace maps to root may still write what the kernel lets root write without any
capability, /proc/sys first of all, and bwrap does not cover that.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
from typing import Any, Dict, List, NoReturn

from . import frames, linux, packets, reaping, statedir, view

HOLDING = (
    *("--unshare-all", "--unshare-user", "--disable-userns", "--as-pid-1"),
    *("--new-session", "--die-with-parent", "--cap-drop", "ALL"),
)
"""What holds a cell. Its first process is the zygote itself: as such it cannot be ended from inside."""

OUTPUTS = "/outputs"

NOT_FOR_ROOT = "in a cell of bwrap's, what root started could change the host's settings"


def main(control_fd: str) -> NoReturn:
    """The entry of the process that the host started; it ends the process."""
    server = os.pidfd_open(os.getppid())
    control = socket.socket(fileno=int(control_fd))
    plan, _ = packets.receive(control)
    if plan is None:
        os._exit(0)
    try:
        os.umask(0o022)
        arguments = _command(plan, control)
        pid = os.fork()
        if pid == 0:
            _become_bubblewrap(arguments, plan, control)
    except OSError as error:
        packets.refuse(control, "The sandbox cannot be built: %s" % error)
    control.close()
    status = _wait_for_either(pid, server)
    statedir.remove_cell_dir(plan["cell_dir"])
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


def _become_bubblewrap(arguments: List[str], plan: Dict[str, Any], control: socket.socket) -> NoReturn:
    try:
        linux.die_with_parent(signal.SIGKILL)
        environment = {**plan["environment"], "PATH": view.search_path(plan["environment"].get("PATH", ""))}
        os.set_inheritable(control.fileno(), True)
        os.execve(arguments[0], arguments, environment)  # noqa: S606  (no shell is wanted)
    except OSError as error:
        packets.refuse(control, "bwrap cannot be executed: %s" % error)


def _wait_for_either(pid: int, server: int) -> int:
    """The wait status of bwrap, which does not outlive the server."""
    child = os.pidfd_open(pid)
    poll = select.poll()
    for pidfd in (child, server):
        poll.register(pidfd, select.POLLIN)
    poll.poll()
    signal.pidfd_send_signal(child, signal.SIGKILL)  # nothing, where it has ended
    return os.waitpid(pid, 0)[1]


def _command(plan: Dict[str, Any], control: socket.socket) -> List[str]:
    if not plan["bubblewrap"]:
        raise OSError(errno.ENOENT, "bwrap is not on the PATH")
    if os.geteuid() == 0:
        raise OSError(errno.EPERM, NOT_FOR_ROOT + ": start the server as an ordinary user")
    files = _view(plan, _make_outputs(plan, control))
    return [plan["bubblewrap"], *HOLDING, *files, "--", view.inside(plan["python"]), *plan["command"][1:]]


def _make_outputs(plan: Dict[str, Any], control: socket.socket) -> str:
    """The cell's directory, locked for as long as this process lives, and in it the one for outputs."""
    cell_dir: str = plan["cell_dir"]
    statedir.clear_stale(os.path.dirname(cell_dir), frames.TAGS_PER_CELL, reaping.reap_children)
    statedir.make_cell_dir(cell_dir, plan["first_tag"])
    outputs = os.path.join(cell_dir, "outputs")
    os.mkdir(outputs)
    directory = os.open(outputs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    packets.send(control, {"op": "outputs"}, [directory])
    os.close(directory)
    return outputs


def _view(plan: Dict[str, Any], outputs: str) -> List[str]:
    """The files of the cell as bwrap's arguments, in their order: what comes later covers what came before."""
    uid = str(plan["workspace_uid"])
    arguments = ["--uid", uid, "--gid", uid, "--hostname", "sandbox", "--chdir", "/", "--proc", "/proc"]
    for path in ("/tmp", "/dev/shm"):  # noqa: S108  (the cell's own)
        arguments += _tmpfs(path, plan["scratch_bytes"], "1777")
    for path in ("/etc", "/home", "/run"):
        arguments += ["--dir", path]
    arguments += _work(plan)
    for path in view.DEVICES:
        arguments += ["--dev-bind", path, path]
    for path, target in view.links().items():
        arguments += ["--symlink", target, path]
    texts = {path: text.encode("ascii") for path, text in view.OWN_FILES.items()}
    for path, text in {**texts, **view.user_files(plan["workspace_uid"])}.items():
        arguments += ["--perms", "0644", "--file", str(_readable(text)), path]
    for path, source in view.sources(plan["python"], plan["worker_dir"]):
        arguments += ["--ro-bind", source, path]
    return [*arguments, "--ro-bind", outputs, OUTPUTS, "--remount-ro", "/"]


def _work(plan: Dict[str, Any]) -> List[str]:
    workspace = plan["workspace"]
    if workspace is None:
        return _tmpfs(view.WORK, plan["disk_bytes"], "0700")
    return ["--ro-bind" if workspace["read_only"] else "--bind", workspace["path"], view.WORK]


def _tmpfs(path: str, size_bytes: int, mode: str) -> List[str]:
    """Without a limit where the size is 0."""
    return ["--perms", mode, *(["--size", str(size_bytes)] if size_bytes else []), "--tmpfs", path]


def _readable(text: bytes) -> int:
    """A descriptor that bwrap, which inherits it, reads the text from."""
    fd = os.memfd_create("text")
    os.write(fd, text)
    os.lseek(fd, 0, os.SEEK_SET)
    os.set_inheritable(fd, True)
    return fd
