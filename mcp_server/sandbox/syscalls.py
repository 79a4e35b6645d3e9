"""Which system calls the code in a sandbox may make: the policy that the seccomp programs carry out. Pure data.

Two programs exist for each machine. ROOM is for code in namespaces of its own, where what a call reaches is already
its own. STANDARD is for code that shares the host's namespaces and, mostly, the server's uid; there a call that neither
Landlock nor a file's permissions can hold has to be refused here.

A list of what is allowed decides. What it does not name was either judged and refused (EPERM: "you may not"), or is
absent (ENOSYS: "this kernel does not have it"), as is any call that is newer than this file; libraries know how to go
on without such a call. Every name of `tools/syscall_numbers.tsv` stands in exactly one place below; a test holds that.

The list began from what container runtimes allow by default. Where it is stricter, the reason stands beside the name.
`tools/generate_seccomp.py` compiles it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

ALLOW = 0x7FFF0000
"""SECCOMP_RET_ALLOW of linux/seccomp.h."""


def refuse(error: int) -> int:
    """The verdict that makes a call fail with `error`, or do nothing and succeed where `error` is 0."""
    return 0x00050000 | error  # SECCOMP_RET_ERRNO


EPERM = refuse(errno.EPERM)
ENOSYS = refuse(errno.ENOSYS)
EAFNOSUPPORT = refuse(errno.EAFNOSUPPORT)
PRETEND = refuse(0)

WORD = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Check:
    """Holds where `(word & mask) == value`, of the low word of an argument, or of its high one.

    The kernel reads an `int` from the low word alone, so a check of an int must not look at the high one: with it, a
    caller would pass by setting a bit that the kernel ignores.
    """

    argument: int
    value: int
    mask: int = WORD
    high: bool = False


@dataclass(frozen=True, slots=True)
class Clause:
    """A verdict for the calls for which all checks hold."""

    checks: tuple[Check, ...]
    verdict: int


@dataclass(frozen=True, slots=True)
class Rule:
    """The first clause that holds decides; `otherwise` where none does."""

    clauses: tuple[Clause, ...]
    otherwise: int


@dataclass(frozen=True, slots=True)
class Group:
    """System calls that share a reason."""

    reason: str
    names: str


ALLOWED = (
    Group(
        "Reading and writing what is open already.",
        "close close_range copy_file_range dup dup2 dup3 fadvise64 fallocate fcntl fdatasync flock fstat fstatfs fsync "
        "ftruncate lseek pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readv sendfile splice sync "
        "sync_file_range syncfs tee vmsplice write writev cachestat",
    ),
    Group(
        "Finding and opening files: the mount namespace, Landlock and permissions say which.",
        "access chdir faccessat faccessat2 fchdir getcwd getdents getdents64 link linkat lstat mkdir mkdirat "
        "newfstatat readlink readlinkat rename renameat renameat2 rmdir stat statfs "
        "statx symlink symlinkat truncate umask unlink unlinkat",
    ),
    Group(
        "Reading extended attributes.",
        "fgetxattr flistxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr",
    ),
    Group(
        "Waiting for events.",
        "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd "
        "eventfd2 inotify_rm_watch poll ppoll pselect6 select signalfd signalfd4",
    ),
    Group(
        "The older asynchronous file I/O, which works on open files alone.",
        "io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit",
    ),
    Group("Pipes and memory files.", "memfd_create memfd_secret pipe pipe2"),
    Group(
        "Memory of the process itself.",
        "brk madvise map_shadow_stack membarrier mincore mlock mlock2 mlockall mmap mprotect mremap mseal msync "
        "munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages",
    ),
    Group(
        "Making, ending and awaiting processes. `clone` stands among the conditional calls.",
        "execve execveat exit exit_group fork pidfd_open vfork wait4 waitid",
    ),
    Group(
        "Signals. The PID namespace says whom they reach, or in the standard tier Landlock's signal scope.",
        "kill pause pidfd_send_signal restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo "
        "rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sigaltstack tgkill tkill",
    ),
    Group(
        "Threads and locks.",
        "arch_prctl futex futex_requeue futex_wait futex_waitv futex_wake get_robust_list get_thread_area gettid rseq "
        "set_robust_list set_thread_area set_tid_address",
    ),
    Group(
        "Clocks and timers; none of these sets a clock.",
        "alarm clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep setitimer time "
        "timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime "
        "timerfd_settime times",
    ),
    Group(
        "Who and where the process is. Identities can only be given up: capabilities are gone, no_new_privs is set.",
        "capget capset getcpu getegid geteuid getgid getgroups getpgid getpgrp getpid getppid getresgid getresuid "
        "getsid getuid setfsgid setfsuid setgid setgroups setpgid setregid setresgid setresuid setreuid setsid setuid "
        "sysinfo uname",
    ),
    Group(
        "Reading limits, use and scheduling; `getrandom`; `prctl`, whose dangerous options need capabilities.",
        "getpriority getrandom getrlimit getrusage ioprio_get prctl sched_get_priority_max sched_get_priority_min "
        "sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_yield",
    ),
    Group(
        "Confining oneself further.",
        "landlock_add_rule landlock_create_ruleset landlock_restrict_self lsm_get_self_attr lsm_list_modules seccomp",
    ),
    Group(
        "Sockets that exist already; which can be made is the rule of `socket`.",
        "accept accept4 getpeername getsockname getsockopt recvfrom recvmmsg recvmsg sendmmsg sendmsg sendto "
        "setsockopt shutdown",
    ),
    Group("Called by the kernel's own trampoline where the host traces a library.", "uprobe uretprobe"),
)

BY_NAMESPACE = (
    Group(
        "Binding and connecting: in a room, within its own network namespace or to socket files that it can see. The "
        "standard tier cannot tell the host's sockets from others, so it has none to bind or connect.",
        "bind connect listen",
    ),
    Group(
        "POSIX message queues: a room has an IPC namespace. Elsewhere these are the host's.",
        "mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink",
    ),
    Group(
        "Changing attributes and watching files: Landlock holds neither, so elsewhere it would reach any file that the "
        "server's user owns or may read. Watchers are few for each user, and a room has its own count of them.",
        "fremovexattr fsetxattr inotify_add_watch inotify_init inotify_init1 lremovexattr lsetxattr removexattr "
        "removexattrat setxattr setxattrat",
    ),
)
"""Allowed in a room, EPERM in the standard tier."""

MODES_AND_TIMES = Group(
    "Changing modes, owners and times: Landlock does not hold it. In the standard tier the call does nothing and "
    "succeeds: refusing it would break every copy, unpacking and install, and one's own files need no modes.",
    "chmod chown fchmod fchmodat fchmodat2 fchown fchownat futimesat lchown utime utimensat utimes",
)
"""Allowed in a room, without effect in the standard tier."""

REFUSED = (
    Group(
        "Joining namespaces, and all that changes what is mounted or where the root is.",
        "chroot fsconfig fsmount fsopen fspick listmount mount mount_setattr move_mount open_tree open_tree_attr "
        "pivot_root setns statmount umount2",
    ),
    Group(
        "Looking into or acting on other processes: a context must not reach its siblings.",
        "kcmp pidfd_getfd process_madvise process_mrelease process_vm_readv process_vm_writev ptrace",
    ),
    Group("The kernel's key rings, which no namespace holds apart.", "add_key keyctl request_key"),
    Group(
        "Parts of the kernel with a long record of holes, which no ordinary program needs.",
        "bpf io_uring_enter io_uring_register io_uring_setup perf_event_open userfaultfd",
    ),
    Group(
        "Files by handle go past every directory; watching a whole mount sees other people's files.",
        "fanotify_init fanotify_mark name_to_handle_at open_by_handle_at",
    ),
    Group(
        "Administering the machine.",
        "acct adjtimex clock_adjtime clock_settime delete_module finit_module init_module kexec_file_load kexec_load "
        "lsm_set_self_attr quotactl quotactl_fd reboot setdomainname sethostname settimeofday swapoff swapon syslog "
        "vhangup",
    ),
    Group("Ports of the machine, and segments of 16-bit code.", "ioperm iopl modify_ldt"),
    Group(
        "Placing memory on nodes, partly of other processes.",
        "get_mempolicy mbind migrate_pages move_pages set_mempolicy set_mempolicy_home_node",
    ),
)
"""EPERM in both."""

ABSENT = (
    Group(
        "Gone from the kernel or never there; kept so that each known number has been judged.",
        "_sysctl afs_syscall create_module get_kernel_syms getpmsg lookup_dcookie nfsservctl putpmsg query_module "
        "security sysfs tuxcall uselib ustat vserver",
    ),
    Group(
        "Its flags lie in memory, where no filter sees them. The C library then uses clone, whose flags are checked.",
        "clone3",
    ),
    Group(
        "System V shared memory, semaphores and queues outlive their processes, and without a memory cgroup nothing "
        "counts what they hold: one call takes gigabytes. To a program this is a kernel built without them.",
        "msgctl msgget msgrcv msgsnd semctl semget semop semtimedop shmat shmctl shmdt shmget",
    ),
    Group(
        "Its mode lies in memory, where no filter sees it, and could make a set-user-id program. Programs use openat.",
        "openat2",
    ),
    Group("New calls; they wait until programs need them.", "file_getattr file_setattr listns rseq_slice_yield"),
)
"""ENOSYS in both."""

# linux/stat.h: set-user-id and set-group-id.
SET_ID = 0o6000

# linux/sched.h. In `clone` the lowest byte is the exit signal, so CLONE_NEWTIME (0x80) exists for `unshare` alone.
NEW_NAMESPACES = 0x7E020000
NEW_TIME_NAMESPACE = 0x00000080

# sys/socket.h, linux/netlink.h, netinet/in.h
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_TYPE_MASK = 1, 2, 5, 0xF
NETLINK_ROUTE = 0
INTERNET_PROTOCOLS = (0, 6, 17)
"""The default of the type, TCP, UDP."""

# asm-generic/ioctls.h: type into a terminal, paste on a console, take over the console's output.
TERMINAL_REQUESTS = (0x5412, 0x541C, 0x541D)

# linux/personality.h: Linux, 32-bit, either with an old version number, and the question which is on.
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)

# asm-generic/resource.h
RLIMIT_RTTIME = 15

# linux/ioprio.h, sys/resource.h: one process, and its group; a user's every process stands last and is left out.
PRIO_PROCESS, PRIO_PGRP = 0, 1
IOPRIO_WHO_PROCESS, IOPRIO_WHO_PGRP = 1, 2


def _all(checks: Iterable[Check], verdict: int = ALLOW) -> Clause:
    return Clause(tuple(checks), verdict)


def _only(*clauses: Clause, otherwise: int = EPERM) -> Rule:
    return Rule(clauses, otherwise)


def _inet() -> Iterable[Clause]:
    """TCP and UDP; raw, packet, ICMP, SCTP and other sockets of the family are refused."""
    for family in (AF_INET, AF_INET6):
        for kind in (SOCK_STREAM, SOCK_DGRAM):
            for protocol in INTERNET_PROTOCOLS:
                yield _all((Check(0, family), Check(1, kind, SOCK_TYPE_MASK), Check(2, protocol)))
        yield _all((Check(0, family),), EPERM)


def _without_set_id(mode_argument: int) -> Rule:
    """A set-user-id program left in a workspace would run as its owner, once somebody starts it on the host."""
    return _only(_all((Check(mode_argument, 0, SET_ID),)))


CONDITIONAL: Mapping[str, Rule] = {
    # Their mode counts only where a file is made; the C library passes 0 elsewhere.
    "open": _without_set_id(2),
    "openat": _without_set_id(3),
    "creat": _without_set_id(1),
    "mknod": _without_set_id(1),
    "mknodat": _without_set_id(2),
    # New namespaces would give capabilities inside them, and with these most of the kernel's recent holes.
    "clone": _only(_all((Check(0, 0, NEW_NAMESPACES),))),
    "unshare": _only(_all((Check(0, 0, NEW_NAMESPACES | NEW_TIME_NAMESPACE),))),
    "ioctl": _only(*(_all((Check(1, request),), EPERM) for request in TERMINAL_REQUESTS), otherwise=ALLOW),
    "personality": _only(*(_all((Check(0, value),)) for value in PERSONALITIES)),
    # The hard limit of RLIMIT_RTTIME is the tag by which a context's processes are found: nobody inside may set it.
    "setrlimit": _only(_all((Check(0, RLIMIT_RTTIME),), EPERM), otherwise=ALLOW),
    # Reading (no new limit given) is free. Setting is for the caller alone, named by pid 0: a fixed filter cannot know
    # the caller's own number, so that is refused as well. The C library and Python pass 0.
    "prlimit64": _only(
        _all((Check(2, 0), Check(2, 0, high=True))),
        _all((Check(1, RLIMIT_RTTIME),), EPERM),
        _all((Check(0, 0),)),
    ),
    # Netlink answers getifaddrs and if_nameindex; its other protocols, vsock, packet and the rest do not exist here.
    "socket": _only(
        _all((Check(0, AF_UNIX),)),
        *_inet(),
        _all((Check(0, AF_NETLINK), Check(2, NETLINK_ROUTE))),
        otherwise=EAFNOSUPPORT,
    ),
    "socketpair": _only(_all((Check(0, AF_UNIX),)), otherwise=EAFNOSUPPORT),
    "sched_setaffinity": Rule((), ALLOW),
    "sched_setattr": Rule((), ALLOW),
    "sched_setparam": Rule((), ALLOW),
    "sched_setscheduler": Rule((), ALLOW),
    "setpriority": Rule((), ALLOW),
    "ioprio_set": Rule((), ALLOW),
}
"""Calls whose arguments decide, as they hold in a room: its PID namespace bounds whom scheduling calls can name."""

ROOM_CONDITIONAL: Mapping[str, Rule] = {
    "chmod": _without_set_id(1),
    "fchmod": _without_set_id(1),
    "fchmodat": _without_set_id(2),
    "fchmodat2": _without_set_id(2),
}
"""Where a room differs from MODES_AND_TIMES being allowed."""

_SELF = _only(_all((Check(0, 0),)))

STANDARD_CONDITIONAL: Mapping[str, Rule] = {
    # No loopback of one's own exists without a network namespace, and Landlock cannot tell the host's loopback from
    # the world; it does not hold UDP or socket files at all. So there are no sockets but pairs.
    "socket": Rule((), EAFNOSUPPORT),
    # A pair of datagram sockets could still send to any socket file by its path.
    "socketpair": _only(
        *(_all((Check(0, AF_UNIX), Check(1, kind, SOCK_TYPE_MASK))) for kind in (SOCK_STREAM, SOCK_SEQPACKET)),
        otherwise=EAFNOSUPPORT,
    ),
    # The server has the same uid: without these it could be slowed to death. Pid 0, the caller, is what programs pass.
    "sched_setaffinity": _SELF,
    "sched_setattr": _SELF,
    "sched_setparam": _SELF,
    "sched_setscheduler": _SELF,
    "setpriority": _only(_all((Check(0, PRIO_PROCESS), Check(1, 0))), _all((Check(0, PRIO_PGRP), Check(1, 0)))),
    "ioprio_set": _only(
        _all((Check(0, IOPRIO_WHO_PROCESS), Check(1, 0))), _all((Check(0, IOPRIO_WHO_PGRP), Check(1, 0)))
    ),
}
"""Where the standard tier differs from CONDITIONAL."""


def _named(groups: Iterable[Group], verdict: int) -> dict[str, Rule]:
    return {name: Rule((), verdict) for group in groups for name in group.names.split()}


def _policy(*parts: Mapping[str, Rule]) -> Mapping[str, Rule]:
    return {name: rule for part in parts for name, rule in part.items()}


_BOTH = _policy(_named(ALLOWED, ALLOW), _named(REFUSED, EPERM), _named(ABSENT, ENOSYS), CONDITIONAL)

POLICIES: Mapping[str, Mapping[str, Rule]] = {
    "room": _policy(_BOTH, _named((*BY_NAMESPACE, MODES_AND_TIMES), ALLOW), ROOM_CONDITIONAL),
    "standard": _policy(_BOTH, _named(BY_NAMESPACE, EPERM), _named((MODES_AND_TIMES,), PRETEND), STANDARD_CONDITIONAL),
}
"""Program name → system call → rule."""

UNKNOWN = ENOSYS
"""For numbers that no policy names, for x32, and for every call of a foreign architecture."""


def decide(rule: Rule, arguments: Sequence[int]) -> int:
    """The verdict on a call with these six 64-bit arguments."""
    for clause in rule.clauses:
        if all(_holds(check, arguments[check.argument]) for check in clause.checks):
            return clause.verdict
    return rule.otherwise


def _holds(check: Check, argument: int) -> bool:
    word = (argument >> 32 if check.high else argument) & WORD
    return word & check.mask == check.value
