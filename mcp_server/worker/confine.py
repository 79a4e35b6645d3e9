"""The last step before a worker runs foreign code: the process gives up whatever it does not need, for good.

A plan is plain data, made by the host:

    {"rlimits":  {"DATA": int, "NPROC": int, "NOFILE": int, "FSIZE": int, "CPU": int, "STACK": int},
     "landlock": {"write": [path, …], "read": [path, …]} | None,
     "seccomp":  "room" | "standard" | None}

`rlimits` are names of RLIMIT_… with bytes, seconds or counts; each becomes the hard limit too. RLIMIT_AS is refused:
it counts address space that is never touched, and so breaks numpy, threads and mmap. `landlock` is for a process that
shares the host's mount namespace. `seccomp` names a program in `seccomp/`; both programs refuse to change the tag of
`tags`, which is put on before. Keys that are not named here are left alone.

What no plan can leave out: no new privileges, no capabilities, no core dumps, no real-time priority. The process is
made not dumpable, so that no other of its uid looks into it; but under Landlock, which keeps every other context from
that by itself: there the server has the same uid and must still be able to measure memory.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import resource
import stat
import sys
from typing import Any, Callable, Dict, Iterable, Tuple

from . import linux

NEEDED_LANDLOCK_ABI = 6
"""The first that holds signals and abstract Unix sockets (Linux 6.12)."""

# linux/landlock.h
EXECUTE = 1 << 0
WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3
MAKE_CHAR = 1 << 6
MAKE_BLOCK = 1 << 11
TRUNCATE = 1 << 14
IOCTL_DEV = 1 << 15
EVERY_FILE_ACCESS = (1 << 16) - 1
EVERY_TCP_ACCESS = 1 << 0 | 1 << 1
EVERY_SCOPE = 1 << 0 | 1 << 1

READ_OF_PROC = (
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/kernel/random",
    "/proc/sys/vm/overcommit_memory",
    "/proc/uptime",
    "/proc/version",
)
"""What "/proc" among the paths to read stands for: the whole of it shows the command lines of all of the host."""

# The kernel's default of fs.nr_open.
HIGHEST_FD = 1 << 20

READ = EXECUTE | READ_FILE | READ_DIR
WRITE = EVERY_FILE_ACCESS & ~(MAKE_CHAR | MAKE_BLOCK | IOCTL_DEV)
OF_PLAIN_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE

# linux/securebits.h: each bit and its lock, but for SECBIT_KEEP_CAPS (1 << 4), which is locked while off. Root then is
# a user like any other.
SECUREBITS = 0xEF

# fs/coredump.c: where core_pattern is a pipe, a limit of 0 still starts the helper, on the host as root; 1 does not.
NO_CORE = 1

# proc(5): the highest.
OOM_SCORE = "1000"

CPU_GRACE_S = 2
"""SIGXCPU comes at the limit; code that handles it is killed so much later."""


class SealFailed(OSError):
    """A layer could not be put on; its name begins the text. The process must not run foreign code."""

    def __init__(self, layer: str, error: BaseException) -> None:
        super().__init__(getattr(error, "errno", None) or errno.EINVAL, "%s: %s" % (layer, _text(error)))
        self.layer = layer


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else "%s: %s" % (error.strerror, error.filename)
    return str(error)


def seal(plan: Dict[str, Any], kept: Tuple[int, ...] = ()) -> None:
    """Put every layer of the plan on the calling process, which has one thread. Raises SealFailed.

    Nothing of it can be taken off again. Half done is not usable: on an error the process has to end. Where
    capabilities are `kept` it is not done before `give_up`.
    """
    program = b""

    def read() -> None:
        nonlocal program
        if plan["seccomp"] is not None:
            program = read_program(plan["seccomp"])

    layers: Tuple[Tuple[str, Callable[[], None]], ...] = (
        ("seccomp", read),  # while the file can still be seen
        ("oom_score_adj", die_first_of_memory),
        ("rlimits", lambda: set_limits(plan["rlimits"])),
        ("no_new_privs", linux.set_no_new_privileges),
        ("landlock", lambda: restrict_files(plan["landlock"])),
        ("capabilities", lambda: drop_capabilities(kept)),
        ("dumpable", lambda: linux.set_dumpable(plan["landlock"] is not None)),
        ("seccomp", lambda: filter_system_calls(program)),
    )
    for layer, put_on in layers:
        try:
            put_on()
        except Exception as error:
            raise SealFailed(layer, error) from error


def become(uid: int) -> None:
    """Be this user, and group, for good. Needs CAP_SETUID and CAP_SETGID. Raises OSError."""
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def give_up(kept: Tuple[int, ...] = ()) -> None:
    """After a seal: let go of the capabilities that it kept, but for these. Raises OSError."""
    linux.limit_capabilities(kept)
    linux.set_dumpable(False)  # a change of uid since then has set it to what the machine's administrator chose


def die_first_of_memory() -> None:
    """Where the whole machine runs out of memory, the kernel ends contexts before the server or anything else.

    Code that execs can take this back where the server is no root; it is no promise, but order among the innocent.
    Nothing is done where a parent has done it: to write the file, a process has to be dumpable for a moment, in which
    those who share its user and its processes could reach into it.
    """
    fd = os.open("/proc/self/oom_score_adj", os.O_RDONLY | os.O_CLOEXEC)
    try:
        score = os.read(fd, 16)
    finally:
        os.close(fd)
    if score.strip() == OOM_SCORE.encode():
        return
    linux.set_dumpable(True)  # a change of uid has turned it off, and with it the right to write the file
    linux.write_file("/proc/self/oom_score_adj", OOM_SCORE)


def set_limits(limits: Dict[str, int]) -> None:
    """Soft and hard limits alike; none is raised above the hard limit that stands."""
    if "AS" in limits:
        raise ValueError("RLIMIT_AS breaks numpy, threads and mmap: limit DATA")
    for name, value in limits.items():
        grace = CPU_GRACE_S if name == "CPU" else 0
        _lower(getattr(resource, "RLIMIT_" + name), value, value + grace)
    _lower(resource.RLIMIT_CORE, NO_CORE, NO_CORE)
    _lower(resource.RLIMIT_RTPRIO, 0, 0)
    _lower(resource.RLIMIT_NICE, 0, 0)


def _lower(which: int, soft: int, hard: int) -> None:
    standing = resource.getrlimit(which)[1]
    if standing != resource.RLIM_INFINITY:
        hard = min(hard, standing)
    resource.setrlimit(which, (min(soft, hard), hard))


def restrict_files(rules: Any) -> None:
    """Landlock: only the named paths, no TCP, no signal and no abstract socket out of this process's descendants.

    A path to read that does not exist allows nothing and is passed over; a path to write must exist. "/proc" to read
    means READ_OF_PROC; programs that the process starts do not see themselves there, since the rule is of this
    process's directory. Not held, as the kernel has no rule for it: UDP, sockets by path, modes, owners and times of
    files, stat, extended attributes; the `standard` seccomp program holds these.
    """
    if rules is None:
        return
    abi = linux.landlock_abi()
    if abi < NEEDED_LANDLOCK_ABI:
        raise OSError(errno.EOPNOTSUPP, "ABI %d, and %d is needed" % (abi, NEEDED_LANDLOCK_ABI))
    ruleset = linux.landlock_create_ruleset(EVERY_FILE_ACCESS, EVERY_TCP_ACCESS, EVERY_SCOPE)
    try:
        _allow(ruleset, rules["write"], READ | WRITE)
        for path in rules["read"]:
            if path == "/proc":
                _keep_own_proc()
            _allow(ruleset, filter(os.path.exists, READ_OF_PROC if path == "/proc" else (path,)), READ)
        linux.landlock_restrict_self(ruleset, _quiet(abi))
    finally:
        os.close(ruleset)


def _keep_own_proc() -> None:
    """Hold /proc/self open, high up, but below the worker's own descriptors.

    A rule is of an inode, and the kernel makes procfs a new one after it has dropped the old for want of memory: the
    process would lose sight of itself.
    """
    fd = os.open("/proc/self", os.O_PATH | os.O_CLOEXEC)
    high = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], HIGHEST_FD) - 16
    fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, max(high, 0))
    os.close(fd)


def _quiet(abi: int) -> int:
    """Denials are not logged, where that can be said: foreign code would fill the operator's audit log with them."""
    if abi < 7:
        return 0
    return linux.LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF | linux.LANDLOCK_RESTRICT_SELF_LOG_SUBDOMAINS_OFF


def _allow(ruleset: int, paths: Iterable[str], access: int) -> None:
    for path in paths:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            plain = not stat.S_ISDIR(os.fstat(fd).st_mode)
            linux.landlock_allow_path(ruleset, fd, access & OF_PLAIN_FILES if plain else access)
        finally:
            os.close(fd)


def drop_capabilities(kept: Tuple[int, ...] = ()) -> None:
    """Every set emptied; root's special treatment by execve and setuid ended.

    The securebits and the bounding set need CAP_SETPCAP. A process that lacks it cannot gain by execve what it does not
    have, since no_new_privs is on.
    """
    try:  # noqa: SIM105  (each worker goes this way, and what the library has for it costs pages)
        linux.prctl(linux.PR_SET_SECUREBITS, SECUREBITS)
    except PermissionError:
        pass
    linux.drop_capabilities(kept)


def filter_system_calls(program: bytes) -> None:
    """Load a program; an empty one is none."""
    if program:
        linux.load_seccomp_filter(program)


@functools.lru_cache(maxsize=None)
def read_program(name: str) -> bytes:
    """The program as shipped. The zygote calls this once, so that a worker finds it in memory."""
    machine = os.uname().machine if sys.maxsize > 2**32 else "a 32-bit interpreter"
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "seccomp", "%s.%s.bpf" % (name, machine))
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "no program %r for %s" % (name, machine)) from None
