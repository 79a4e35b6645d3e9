"""System calls that the standard library lacks, bound through ctypes. No policy lives here.

Every function raises OSError with the kernel's errno and a text that begins with the call's name, so that a failure
says by itself what was refused. Numbers are of the kernel's uapi headers; those from 424 on are the same on every
architecture, and older calls go through the C library, so that no table per machine is needed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import os
import socket
import struct
from typing import Any, Iterable, Optional, Tuple, Union

Path = Union[str, bytes]

# sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# sys/mount.h
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_NOSYMFOLLOW = 256
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MNT_DETACH = 2

# linux/mount.h
MOUNT_ATTR_RDONLY = 1
MOUNT_ATTR_NOSUID = 2
MOUNT_ATTR_NODEV = 4
MOUNT_ATTR_NOEXEC = 8
MOUNT_ATTR_IDMAP = 0x00100000
OPEN_TREE_CLONE = 1
MOVE_MOUNT_F_EMPTY_PATH = 0x04

# linux/fcntl.h
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

# linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
SECCOMP_MODE_FILTER = 2

# asm-generic/unistd.h
_NR_OPEN_TREE = 428
_NR_MOVE_MOUNT = 429
_NR_CLOSE_RANGE = 436
_NR_MOUNT_SETATTR = 442
_NR_LANDLOCK_CREATE_RULESET = 444
_NR_LANDLOCK_ADD_RULE = 445
_NR_LANDLOCK_RESTRICT_SELF = 446

LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_RULE_PATH_BENEATH = 1
LANDLOCK_RULE_NET_PORT = 2
LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF = 1
LANDLOCK_RESTRICT_SELF_LOG_SUBDOMAINS_OFF = 4

# linux/capability.h
CAP_SETGID = 6
CAP_SETUID = 7

_CAPABILITY_VERSION_3 = 0x20080522
_LAST_FD = 0xFFFFFFFF

# linux/sockios.h, linux/if.h
_SIOCSIFFLAGS = 0x8914
_IFF_UP_RUNNING = 0x1 | 0x40

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_capset = _libc.capset  # looked for here, once: else in each worker, which copies ten pages for it


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


class _FilterProgram(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


class _LandlockRuleset(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("handled_access_fs", "handled_access_net", "scoped")]


class _LandlockPathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"  # the only one for packed structures, and from Python 3.14 on to be named
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


class _LandlockNetPort(ctypes.Structure):
    _fields_ = [("allowed_access", ctypes.c_uint64), ("port", ctypes.c_uint64)]


def checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, "%s: %s" % (what, os.strerror(number)))
    return result


def _raw(path: Optional[Path]) -> Optional[bytes]:
    return None if path is None else os.fsencode(path)


def _syscall(what: str, number: int, *arguments: Any) -> int:
    """All integers are passed at full register width: the C library's `syscall` is variadic."""
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return checked(_libc.syscall(ctypes.c_long(number), *wide), what)


# Namespaces


def unshare(flags: int) -> None:
    _forget_bounding_set(flags)
    checked(_libc.unshare(ctypes.c_int(flags)), "unshare(0x%x)" % flags)


def setns(fd: int, flags: int) -> None:
    """Join namespaces: `fd` is one of /proc/PID/ns, or a pidfd with any set of CLONE_NEW flags (Linux 5.8)."""
    _forget_bounding_set(flags)
    checked(_libc.setns(ctypes.c_int(fd), ctypes.c_int(flags)), "setns(0x%x)" % flags)


def _forget_bounding_set(flags: int) -> None:
    global _bounding_set_is_empty
    if not flags or flags & CLONE_NEWUSER:  # no flags: of any kind
        _bounding_set_is_empty = False


def write_file(path: str, text: str) -> None:
    """One write(2), as the kernel's control files want it."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode("ascii"))
    except OSError as error:
        raise OSError(error.errno, "write %s: %s" % (path, error.strerror)) from None
    finally:
        os.close(fd)


def loopback_up() -> None:
    """Bring `lo` up in the current network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("16sH14s", b"lo", _IFF_UP_RUNNING, b"")
        try:
            fcntl.ioctl(probe, _SIOCSIFFLAGS, request)
        except OSError as error:
            raise OSError(error.errno, "ioctl SIOCSIFFLAGS lo: %s" % error.strerror) from None


# Mounts


def mount(
    source: Optional[Path], target: Path, kind: Optional[str] = None, flags: int = 0, options: Optional[str] = None
) -> None:
    result = _libc.mount(_raw(source), _raw(target), _raw(kind), ctypes.c_ulong(flags), _raw(options))
    checked(result, "mount %s on %s" % (kind or os.fsdecode(source or b""), os.fsdecode(target)))


def unmount(target: Path, flags: int = MNT_DETACH) -> None:
    checked(_libc.umount2(_raw(target), ctypes.c_int(flags)), "umount2 %s" % os.fsdecode(target))


def pivot_root(new_root: Path, put_old: Path) -> None:
    checked(_libc.pivot_root(_raw(new_root), _raw(put_old)), "pivot_root %s" % os.fsdecode(new_root))


def open_tree(path: Path, dir_fd: int = AT_FDCWD, recursive: bool = True) -> int:
    """A detached copy of the mount at `path`, as a close-on-exec descriptor that `move_mount` attaches.

    An empty path copies `dir_fd` itself.
    """
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC
    if recursive:
        flags |= AT_RECURSIVE
    if not path:
        flags |= AT_EMPTY_PATH
    return _syscall("open_tree %s" % os.fsdecode(path), _NR_OPEN_TREE, dir_fd, _raw(path), flags)


def move_mount(tree_fd: int, target: Path) -> None:
    """Attach what `open_tree` gave at `target`."""
    what = "move_mount to %s" % os.fsdecode(target)
    _syscall(what, _NR_MOVE_MOUNT, tree_fd, b"", AT_FDCWD, _raw(target), MOVE_MOUNT_F_EMPTY_PATH)


def mount_setattr(
    target: Path, attributes: int, recursive: bool = True, dir_fd: int = AT_FDCWD, userns_fd: int = 0
) -> None:
    """Set MOUNT_ATTR_… flags on a mount, and on all below it (Linux 5.12). An empty path means `dir_fd` itself.

    With MOUNT_ATTR_IDMAP the mount is seen through the id maps of the user namespace `userns_fd`; where the file
    system knows no such mounts that is EINVAL.
    """
    change = _MountAttr(attributes, 0, 0, userns_fd)
    flags = (AT_RECURSIVE if recursive else 0) | (0 if target else AT_EMPTY_PATH)
    what = "mount_setattr %s" % os.fsdecode(target)
    size = ctypes.sizeof(change)
    _syscall(what, _NR_MOUNT_SETATTR, dir_fd, _raw(target), flags, ctypes.byref(change), size)


# The process itself


_ZEROS = (ctypes.c_ulong(0),) * 4


def prctl(option: int, *arguments: int) -> int:
    wide = map(ctypes.c_ulong, arguments)
    return checked(_libc.prctl(ctypes.c_int(option), *wide, *_ZEROS[len(arguments) :]), "prctl(%d)" % option)


def die_with_parent(signal_number: int) -> None:
    """Send this signal to the caller when the *thread* that made it ends. A uid change clears it: arm it again."""
    prctl(PR_SET_PDEATHSIG, signal_number)


def set_dumpable(dumpable: bool) -> None:
    prctl(PR_SET_DUMPABLE, int(dumpable))


def set_no_new_privileges() -> None:
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def set_child_subreaper() -> None:
    """Orphaned descendants come to this process, which must reap them. Not inherited by fork."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def set_process_name(name: str) -> None:
    """The name that ps shows, at most 15 bytes."""
    text = ctypes.create_string_buffer(name.encode("ascii")[:15])
    prctl(PR_SET_NAME, ctypes.addressof(text))


_bounding_set_is_empty = False
"""What a fork inherits, and nothing but a new user namespace fills again."""


def drop_bounding_set() -> None:
    """No execve can give a capability any more. Does nothing without CAP_SETPCAP, which a change of uid takes away."""
    global _bounding_set_is_empty
    if _bounding_set_is_empty:
        return
    capability = 0
    while _libc.prctl(ctypes.c_int(PR_CAPBSET_DROP), ctypes.c_ulong(capability), 0, 0, 0) == 0:
        capability += 1
    _bounding_set_is_empty = capability > 0 and ctypes.get_errno() == errno.EINVAL


def drop_capabilities(kept: Tuple[int, ...] = ()) -> None:
    """Empty the bounding set (where permitted), then the ambient, effective, permitted and inheritable sets.

    Those that are `kept`, which must be below 32, stay effective and permitted.
    """
    drop_bounding_set()
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    limit_capabilities(kept)


@functools.lru_cache(maxsize=None)
def capability_sets(kept: Tuple[int, ...] = ()) -> Tuple[bytes, bytes]:
    """The arguments of capset that give up all capabilities but these, which must be below 32.

    The zygote calls this once, so that a worker finds them made.
    """
    mask = sum(1 << number for number in kept)
    return struct.pack("Ii", _CAPABILITY_VERSION_3, 0), struct.pack("6I", mask, mask, 0, 0, 0, 0)


def limit_capabilities(kept: Tuple[int, ...] = ()) -> None:
    """Have no effective and permitted capabilities but these, which must be below 32, and no inheritable ones."""
    checked(_capset(*capability_sets(kept)), "capset")


def close_all_fds_but(kept: Iterable[int]) -> None:
    """Close every descriptor of the process that is not in `kept`."""
    low = 0
    for fd in sorted(set(kept)):
        if fd > low:
            _close_range(low, fd - 1)
        low = fd + 1
    _close_range(low, _LAST_FD)


def _close_range(first: int, last: int) -> None:
    number = ctypes.c_long(_NR_CLOSE_RANGE)
    result = _libc.syscall(number, ctypes.c_long(first), ctypes.c_long(last), ctypes.c_long(0))
    checked(result, "close_range")


# Seccomp and Landlock


def load_seccomp_filter(program: bytes) -> None:
    """Load a classic BPF program (instructions of 8 bytes each). The caller has set no_new_privs."""
    handle = _FilterProgram(len(program) // 8, program)
    result = _libc.prctl(ctypes.c_int(PR_SET_SECCOMP), ctypes.c_ulong(SECCOMP_MODE_FILTER), ctypes.byref(handle), 0, 0)
    checked(result, "prctl PR_SET_SECCOMP")


def landlock_abi() -> int:
    """The Landlock version of this kernel. Raises OSError: ENOSYS not built in, EOPNOTSUPP turned off at boot."""
    return _syscall("landlock_create_ruleset", _NR_LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_VERSION)


def landlock_create_ruleset(filesystem: int, network: int = 0, scoped: int = 0) -> int:
    """A ruleset that handles these access rights, as a descriptor. Sized so that older versions take it."""
    ruleset = _LandlockRuleset(filesystem, network, scoped)
    size = 24 if scoped else 16 if network else 8
    return _syscall("landlock_create_ruleset", _NR_LANDLOCK_CREATE_RULESET, ctypes.byref(ruleset), size, 0)


def landlock_allow_path(ruleset_fd: int, path_fd: int, access: int) -> None:
    """Allow `access` beneath an O_PATH descriptor. For a plain file only rights of files may be given (EINVAL)."""
    rule = _LandlockPathBeneath(access, path_fd)
    _syscall(
        "landlock_add_rule path", _NR_LANDLOCK_ADD_RULE, ruleset_fd, LANDLOCK_RULE_PATH_BENEATH, ctypes.byref(rule), 0
    )


def landlock_allow_port(ruleset_fd: int, port: int, access: int) -> None:
    rule = _LandlockNetPort(access, port)
    _syscall("landlock_add_rule port", _NR_LANDLOCK_ADD_RULE, ruleset_fd, LANDLOCK_RULE_NET_PORT, ctypes.byref(rule), 0)


def landlock_restrict_self(ruleset_fd: int, flags: int = 0) -> None:
    """Enforce the ruleset on this thread and its future children. The caller has set no_new_privs.

    Flags exist from ABI 7 on.
    """
    _syscall("landlock_restrict_self", _NR_LANDLOCK_RESTRICT_SELF, ruleset_fd, flags)
