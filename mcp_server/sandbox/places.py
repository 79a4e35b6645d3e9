"""Where, in one cell, the outputs of contexts go: a directory for each, which its code reads and the host alone writes.

A worker that waits for a sandbox has one in its room already; given to a context, it is renamed to what that is called.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress

from mcp_server.sandbox.files import make_directory


class OutputPlaces:
    """Below a directory of the cell's, once the zygote has given it. Where there are `rooms`, workers wait in them.

    Every method but `close` raises OSError.
    """

    def __init__(self, *, rooms: bool) -> None:
        self._rooms = rooms
        self._fd: int | None = None
        self._sandboxes: set[str] = set()

    @property
    def are_there(self) -> bool:
        return self._fd is not None

    def take(self, directory_fd: int) -> None:
        """Begin. Root of a container may lack what making it ours needs: then it is closed, as no file can be made."""
        try:
            os.close(make_directory(directory_fd, "trial"))
            os.rmdir("trial", dir_fd=directory_fd)
        except OSError:
            os.close(directory_fd)
            raise
        self._fd = directory_fd

    def open(self, sandbox: str, name: str) -> int:
        """The directory of a context by that name, made if it is not there; the caller closes it."""
        if self._fd is None:
            raise OSError(errno.ENOTSUP, "this cell cannot store outputs")
        sandbox_fd = make_directory(self._fd, sandbox)
        try:
            return make_directory(sandbox_fd, name)
        finally:
            os.close(sandbox_fd)

    def make_spare(self, worker_id: int) -> str:
        """One that a worker's room can have already: its name; empty where there is none."""
        if self._fd is None or not self._rooms:
            return ""
        os.mkdir(_spare(worker_id), 0o755, dir_fd=self._fd)
        return _spare(worker_id)

    def drop_spare(self, worker_id: int) -> None:
        """Where it was not given away."""
        if self._fd is not None:
            with suppress(FileNotFoundError):
                os.rmdir(_spare(worker_id), dir_fd=self._fd)

    def give(self, worker_id: int, sandbox: str, name: str) -> bool:
        """See to the directory of a context that a worker is given to. Whether the worker's room has it already."""
        if not name or self._fd is None:
            return False
        if self._rooms and self._move(self._fd, worker_id, sandbox, name):
            return True
        os.close(self.open(sandbox, name))
        return False

    def remove(self, sandbox: str) -> None:
        """Those of a whole sandbox."""
        if self._rooms and self._fd is not None:  # elsewhere the zygote removes them with the sandbox
            self._sandboxes.discard(sandbox)
            with suppress(FileNotFoundError):
                shutil.rmtree(sandbox, dir_fd=self._fd)

    def close(self) -> None:
        """Idempotent."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _move(self, fd: int, worker_id: int, sandbox: str, name: str) -> bool:
        """Where the context had a worker before, its outputs stay: False."""
        if sandbox not in self._sandboxes:
            with suppress(FileExistsError):
                os.mkdir(sandbox, 0o755, dir_fd=fd)
            self._sandboxes.add(sandbox)
        try:
            os.rename(_spare(worker_id), f"{sandbox}/{name}", src_dir_fd=fd, dst_dir_fd=fd)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return False
        return True


def _spare(worker_id: int) -> str:
    return f"w{worker_id}"
