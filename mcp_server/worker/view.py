"""The files that a cell can see: the system and the interpreter, read-only, on an otherwise empty root.

Mounts are taken first, as detached copies, and put together afterwards: so that what covers a path (the scratch root
lies on /tmp) hides no source, and so that sources can be taken while privileges still reach them.
"""

from __future__ import annotations

import glob
import os
from typing import Dict, Iterable, List, Tuple

from . import linux

WORKER_DIR = "/.worker"
"""Where the worker's code lies inside."""

SANDBOXES_DIR = "/.sandboxes"
"""Where the cell mounts sandboxes' files; rooms do not see it."""

OUTPUTS_DIR = "/.outputs"
"""Where the cell keeps the complete outputs of runs, written by the host; rooms see their own at /outputs."""

WORKSPACE_DIR = "/.workspace"
"""Where the cell keeps the user's directory that stands in for each sandbox's own."""

SYSTEM_DIRS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")

ETC_FILES = (
    "/etc/alternatives",
    "/etc/ca-certificates.conf",
    "/etc/fonts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    "/etc/python3*",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
)
"""What programs need and nothing that is secret: no keys, no host names, no users."""

OWN_FILES = {
    "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "/etc/resolv.conf": "",
}

OWN_LINKS = {
    # Each room writes its own: the user of a sandbox has a uid that is known late.
    "/etc/passwd": "/run/passwd",
    "/etc/group": "/run/group",
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
}

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")

WORK = "/work"
"""Where a room shows its sandbox's files."""

RELOCATED_DIR = "/.python"
"""Before the path of an interpreter that lies below /work outside, where nothing but the sandbox's files can be."""

OWN_MOUNTS = (SANDBOXES_DIR, OUTPUTS_DIR, WORKSPACE_DIR)

EMPTY_DIRS = ("/proc", "/tmp", "/run", WORK, "/outputs", "/dev/shm", "/home", *OWN_MOUNTS)  # noqa: S108

PREFIX_PARTS = ("bin", "lib", "lib32", "lib64", "libexec", "include", "share", "ssl", "etc", "pyvenv.cfg", "conda-meta")
"""Of an interpreter's prefix, which may be somebody's home, only what an interpreter's installation consists of."""

READ_ONLY = linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOSUID

Taken = List[Tuple[str, int]]
"""Where each mount shall be, and the detached mount."""


def interpreter_paths(python: str) -> List[str]:
    """Files and directories that an interpreter needs, found by reading, not by running it outside of the cell."""
    prefixes = {os.path.dirname(os.path.dirname(os.path.realpath(python)))}
    venv = os.path.dirname(os.path.dirname(os.path.abspath(python)))
    settings = _venv_settings(venv)
    if settings:
        prefixes.add(venv)
        home = os.path.normpath(settings.get("home", ""))
        if os.path.isabs(home):
            prefixes.add(os.path.dirname(home))
    parts = [os.path.join(prefix, part) for prefix in sorted(prefixes) for part in PREFIX_PARTS]
    return [path for path in parts if os.path.exists(path)]


def readable_paths(python: str, worker_dir: str) -> List[str]:
    """What a worker that shares the host's files may read under Landlock: the system, and nothing of the user's."""
    names = [*OWN_FILES, "/etc/passwd", "/etc/group", "/proc", "/sys/devices/system/cpu", *DEVICES]
    return [*SYSTEM_DIRS, *_etc_files(), *names, worker_dir, *interpreter_paths(python)]


def inside(path: str) -> str:
    """Where a path of the interpreter's outside is found inside."""
    return RELOCATED_DIR + path if path.startswith(WORK + "/") else path


def search_path(path: str) -> str:
    """A PATH of outside as it is inside."""
    return ":".join(inside(part) for part in path.split(":"))


def sources(python: str, worker_dir: str) -> List[Tuple[str, str]]:
    """Everything that shall be seen read-only: where inside, and what of outside. Raises OSError."""
    if os.path.realpath(python).startswith(WORK + "/"):
        raise OSError(0, "%s lies below %s, where contexts have their files" % (os.path.realpath(python), WORK))
    seen: List[str] = []
    for path in [*SYSTEM_DIRS, *_etc_files(), *interpreter_paths(python)]:
        if os.path.exists(path) and not (path in SYSTEM_DIRS and os.path.islink(path)) and not _covered(path, seen):
            seen.append(path)
    return [*((inside(path), os.path.realpath(path)) for path in seen), (WORKER_DIR, os.path.realpath(worker_dir))]


def links() -> Dict[str, str]:
    """Symbolic links of the view, and where they lead."""
    return {**{path: os.readlink(path) for path in SYSTEM_DIRS if os.path.islink(path)}, **OWN_LINKS}


def user_files(uid: int) -> Dict[str, bytes]:
    """What lies where OWN_LINKS lead: the users and groups that code finds, itself by its uid."""
    return {
        "/run/passwd": b"root:x:0:0:root:/:/usr/sbin/nologin\nuser:x:%d:%d::/work:/bin/sh\n" % (uid, uid),
        "/run/group": b"root:x:0:\nuser:x:%d:\n" % uid,
    }


def take(python: str, worker_dir: str) -> Taken:
    """Detached copies of everything that shall be seen. Raises OSError."""
    taken = [(path, _read_only(source)) for path, source in sources(python, worker_dir)]
    return [*taken, *((path, linux.open_tree(path)) for path in DEVICES)]


def assemble(root: str, taken: Taken) -> None:
    """Put the view together on a fresh tmpfs at `root`; closes what was taken."""
    linux.mount("tmpfs", root, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=1m,nr_inodes=4k,mode=0755")
    os.umask(0o022)
    for path in EMPTY_DIRS:
        os.makedirs(root + path, exist_ok=True)
    for path, text in OWN_FILES.items():
        _create(root + path, text)
    for path, target in links().items():
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        os.symlink(target, root + path)
    for path, tree in taken:
        attach(tree, root + path)


def attach(tree: int, target: str) -> None:
    """Attach a detached mount where it shall be, making its place; closes it."""
    try:
        if os.path.isdir("/proc/self/fd/%d" % tree):
            os.makedirs(target, exist_ok=True)
        elif not os.path.exists(target):
            _create(target, "")
        linux.move_mount(tree, target)
    finally:
        os.close(tree)


def enter(root: str) -> None:
    """Make `root` the root directory, read-only, and let go of the old one. A new /proc must be in it already."""
    os.chdir(root)
    linux.pivot_root(".", ".")
    linux.unmount(".")
    os.chdir("/")
    linux.mount_setattr("/", READ_ONLY | linux.MOUNT_ATTR_NODEV, recursive=False)


def mounts_beneath(places: Iterable[str]) -> List[str]:
    """Mount points strictly below any of these directories, outer ones first."""
    wanted = tuple(place + "/" for place in places)
    with open("/proc/self/mountinfo", "rb") as lines:
        points = [os.fsdecode(line.split()[4].decode("unicode_escape").encode("latin-1")) for line in lines]
    return sorted(point for point in points if point.startswith(wanted))


def _etc_files() -> List[str]:
    return [path for pattern in ETC_FILES for path in glob.glob(pattern)]


def _venv_settings(venv: str) -> Dict[str, str]:
    try:
        with open(os.path.join(venv, "pyvenv.cfg"), encoding="utf-8") as lines:
            pairs = [line.partition("=") for line in lines]
    except FileNotFoundError:
        return {}
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _covered(path: str, seen: List[str]) -> bool:
    return any(path == other or path.startswith(other + "/") for other in seen)


def _read_only(path: str) -> int:
    tree = linux.open_tree(path)
    linux.mount_setattr("", READ_ONLY | linux.MOUNT_ATTR_NODEV, dir_fd=tree)
    return tree


def _create(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "x", encoding="utf-8") as file:
        file.write(text)
