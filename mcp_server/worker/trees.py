"""Removing directories that user code filled: any depth, any permissions, links never followed."""

from __future__ import annotations

import os


def remove(path: str) -> None:
    """Remove the directory and all below it, as its owner. Nobody may be changing it meanwhile.

    Deep trees are taken apart from the top: the children of each directory move up to the root before it is removed,
    so that neither recursion nor open descriptors grow with depth. A missing directory passes.
    """
    try:
        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fchmod(root, 0o700)
        moved = 0
        waiting = _remove_files(root)
        while waiting:
            name = waiting.pop()
            child = _open_for_removal(name, root)
            try:
                for grandchild in _remove_files(child):
                    moved += 1
                    unique = ".removing-%d" % moved
                    # Renaming a directory to another parent rewrites its "..": it must be writable.
                    os.chmod(grandchild, 0o700, dir_fd=child)
                    os.rename(grandchild, unique, src_dir_fd=child, dst_dir_fd=root)
                    waiting.append(unique)
            finally:
                os.close(child)
            os.rmdir(name, dir_fd=root)
    finally:
        os.close(root)
    os.rmdir(path)


def _open_for_removal(name: str, parent: int) -> int:
    os.chmod(name, 0o700, dir_fd=parent)
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


def _remove_files(directory: int) -> "list[str]":
    """Remove everything in it but directories; returns their names."""
    directories = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=directory)
    return directories
