"""Where sandboxes' files lie when the cell has no view of files of its own, and what an earlier crash left there.

state_dir/                 of this user alone
  cell-XXXXXXXX/           one per living cell
    lock                   held (flock) by the cell's zygote for as long as it lives; says the cell's first tag
    s1/ s2/ …              the sandboxes' files
  gone-cell-XXXXXXXX/      what is being removed, held (flock) by who does it: it may be killed half way
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from typing import Callable, Optional

from . import tags, trees

_CELL_PREFIX = "cell-"
_GONE_PREFIX = "gone-"
_LOCK = "lock"


def make_cell_dir(path: str, first_tag: int) -> int:
    """Make a cell's directory; returns the descriptor of its lock, which is held until that is closed.

    Raises OSError, PermissionError also where the state directory is another user's or open to others.
    """
    state_dir = os.path.dirname(path)
    os.makedirs(state_dir, mode=0o700, exist_ok=True)
    _require_private(state_dir)
    os.mkdir(path, 0o700)
    lock = os.open(os.path.join(path, _LOCK), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.write(lock, b"%d" % first_tag)
    return lock


def remove_cell_dir(path: str) -> None:
    """Remove a cell's directory, of which nobody has need any more. A missing one passes."""
    gone = os.path.join(os.path.dirname(path), _GONE_PREFIX + os.path.basename(path))
    try:
        os.rename(path, gone)
    except FileNotFoundError:
        return
    _remove_alone(gone, fcntl.LOCK_EX)


def clear_stale(state_dir: str, tags_per_cell: int, reap: Callable[[], object]) -> None:
    """End and remove what cells left whose zygote did not live to do so itself."""
    try:
        names = os.listdir(state_dir)
    except FileNotFoundError:
        return
    for name in names:
        path = os.path.join(state_dir, name)
        if name.startswith(_GONE_PREFIX):
            with contextlib.suppress(BlockingIOError):  # somebody is at it
                _remove_alone(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif name.startswith(_CELL_PREFIX):
            lock = _stale_lock(path)
            if lock is not None:
                try:
                    _clear_cell(path, lock, tags_per_cell, reap)
                finally:
                    os.close(lock)


def _require_private(state_dir: str) -> None:
    found = os.stat(state_dir)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError("%s must be owned by uid %d and have mode 0700" % (state_dir, os.geteuid()))


def _stale_lock(path: str) -> Optional[int]:
    """The lock of a cell that no zygote holds, taken; None for one that is alive or being made."""
    try:
        lock = os.open(os.path.join(path, _LOCK), os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _clear_cell(path: str, lock: int, tags_per_cell: int, reap: Callable[[], object]) -> None:
    text = os.read(lock, 32)
    if not text.isdigit():
        return  # it is being made: its maker will take the lock next, and then write
    first = int(text)
    tags.kill(lambda tag: first <= tag < first + tags_per_cell, reap)
    remove_cell_dir(path)


def _remove_alone(path: str, lock: int) -> None:
    """Two must not take a tree apart at once; who comes second finds it gone."""
    try:
        held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(held, lock)
        trees.remove(path)
    finally:
        os.close(held)
