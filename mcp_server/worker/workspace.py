"""A directory of the user's that code works on, as a mount for the cell."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any, Dict

from . import linux


def take(workspace: Dict[str, Any], sandbox_id: int) -> int:
    """The directory as a detached mount, without set-user-id programs and devices. Raises OSError.

    Where the server is root and contexts have ids of their own, `sandbox_id` is the one that shall own there what the
    directory's owner owns: its files are then seen, and made, as that one's. 0 leaves owners as they are.
    """
    path = workspace["path"]
    tree = linux.open_tree(path)
    attributes = linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV
    if workspace["read_only"]:
        attributes |= linux.MOUNT_ATTR_RDONLY
    linux.mount_setattr("", attributes, dir_fd=tree)
    if sandbox_id:
        _show_as_owned_by(tree, path, sandbox_id)
    return tree


def _show_as_owned_by(tree: int, path: str, sandbox_id: int) -> None:
    owner = os.stat(path)
    maps = {"uid_map": "%d %d 1" % (owner.st_uid, sandbox_id), "gid_map": "%d %d 1" % (owner.st_gid, sandbox_id)}
    namespace = _user_namespace(maps)
    try:
        linux.mount_setattr("", linux.MOUNT_ATTR_IDMAP, recursive=False, dir_fd=tree, userns_fd=namespace)
    except OSError as error:
        text = "the file system of %s cannot map owners (%s); run the server as their owner" % (path, error.strerror)
        raise OSError(error.errno, text) from error
    finally:
        os.close(namespace)


def _user_namespace(maps: Dict[str, str]) -> int:
    """A descriptor of a new user namespace with these id maps; no process is in it."""
    said, saying = socket.socketpair()
    with said, saying:
        pid = os.fork()
        if pid == 0:
            try:
                linux.unshare(linux.CLONE_NEWUSER)
                saying.send(b"!")
                signal.pause()
            finally:
                os._exit(1)
        saying.close()
        try:
            if not said.recv(1):
                raise OSError(0, "a user namespace for the owner of the workspace could not be made")
            for name, text in maps.items():
                linux.write_file("/proc/%d/%s" % (pid, name), text)
            return os.open("/proc/%d/ns/user" % pid, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
