"""What foreign code tries, and what must become of it: one table of attacks and accidents, one of what must work.

Each row's code runs in a fresh context. It prints one word, which is compared; `want` maps a tier to the word where
tiers differ, and a difference is a gap: `gap` is how `sandbox.probe.GAPS` names it. The code finds these names:

    F            facts of the host that an attacker could guess or learn: pids, ports, paths (see `hostile_host.Host`)
    NR           numbers of system calls
    attempt(f)   prints "refused" where f() raises OSError, else "done"
    call(name, *arguments)    a raw system call; raises OSError
    errno_of(f)  prints the name of the errno that f() raises, else "done"

Beside the word, the host checks after every row that it was not reached: see `hostile_host.Host.damage`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from textwrap import dedent

STRONG, CELL, STANDARD = "strong", "strong-cell", "standard"


@dataclass(frozen=True, slots=True)
class Action:
    """`layer` is what keeps the promise. `status` and `state` are of the run's outcome.

    `watched` are these where the watchdog bounds a context, which can only end it; where the kernel does by a cgroup, a
    call fails or a child dies, and the context lives.
    """

    name: str
    layer: str
    code: str
    word: str = "refused"
    want: dict[str, str] = field(default_factory=dict)
    status: str = "ok"
    state: str = "kept"
    timeout_s: float = 20.0
    gap: str = ""
    watched: tuple[str, str] | None = None

    def wanted(self, tier: str) -> str:
        return self.want.get(tier, self.word)


def _row(
    name: str,
    layer: str,
    code: str,
    word: str = "refused",
    *,
    standard: str = "",
    cell: str = "",
    gap: str = "",
    trial: str = "attempt",
) -> Action:
    """A row whose code is an expression tried by `trial`, unless it is a block of its own."""
    text = dedent(code).strip() if "\n" in code else f"{trial}(lambda: {code})"
    want = {tier: differing for tier, differing in ((CELL, cell), (STANDARD, standard)) if differing}
    return Action(name, layer, text, word, want, gap=gap)


def _denied(name: str, layer: str, code: str, error: str = "EPERM") -> Action:
    """A row whose word is the errno, where only the right one shows that the right layer said no."""
    return _row(name, layer, code, error, trial="errno_of")


MODES = "Changing modes, owners and times"
PROCESSES = "too many processes end the context"
DISK = "not limited in number or in total size"
SOCKETS = "no network at all"

FILES = (
    _row("read a secret of the user's", "mounts, Landlock", "open(F['secret_file']).read()"),
    _row("list the user's home", "mounts, Landlock", "os.listdir(F['home'])"),
    _row(
        "see that a file of the user's exists",
        "mounts",
        "os.stat(F['secret_file'])",
        standard="done",
        gap="Names, sizes and times",
    ),
    _row(
        "change the mode of a file of the user's",
        "mounts, seccomp",
        "os.chmod(F['secret_file'], 0)",
        standard="done",
        gap=MODES,
    ),
    _row(
        "change the times of a file of the user's",
        "mounts, seccomp",
        "os.utime(F['secret_file'])",
        standard="done",
        gap=MODES,
    ),
    _row(
        "give away a file of the user's",
        "mounts, seccomp",
        "os.chown(F['secret_file'], 1, 1)",
        standard="done",
        gap=MODES,
    ),
    _row(
        "set an attribute of a file of the user's", "mounts, seccomp", "os.setxattr(F['secret_file'], 'user.x', b'x')"
    ),
    _row("write a file of the user's", "mounts, Landlock", "open(F['secret_file'], 'a')"),
    _row("truncate a file of the user's", "mounts, Landlock", "os.truncate(F['secret_file'], 0)"),
    _row("remove a file of the user's", "mounts, Landlock", "os.unlink(F['secret_file'])"),
    _row("rename a file of the user's", "mounts, Landlock", "os.rename(F['secret_file'], 'mine')"),
    _row("link a file of the user's to here", "mounts, Landlock", "os.link(F['secret_file'], 'mine')"),
    _row(
        "follow a link to a secret",
        "mounts, Landlock",
        """
        os.symlink(F['secret_file'], 'link')
        attempt(lambda: open('link').read())
        """,
    ),
    _row("climb out by ..", "mounts, Landlock", "open('../' * 40 + F['secret_file'].lstrip('/')).read()"),
    _row("read the password hashes", "mounts, Landlock", "open('/etc/shadow').read()"),
    _row("write to the system", "mounts, Landlock", "open('/usr/bin/evil', 'w')"),
    _row("write to its settings", "mounts, Landlock", "open('/etc/evil', 'w')"),
    _row("write to the root", "mounts, Landlock", "open('/evil', 'w')"),
    _row("change the standard library", "mounts, Landlock", "open(os.__file__, 'a')"),
    _row("write where the host stores outputs", "mounts, Landlock", "open(F['outputs'] + '/evil', 'w')"),
    _row("open a disk", "mounts, Landlock", "open(F['disk'], 'rb')"),
    _row("open the kernel's memory", "mounts, Landlock", "open('/dev/mem', 'rb')"),
    _row("open the kernel's log", "mounts, Landlock", "open('/dev/kmsg', 'rb')"),
    _row("make a device", "capabilities", "os.mknod('disk', 0o060666, os.makedev(8, 0))"),
    _row("run a command on the host by core_pattern", "mounts", "open('/proc/sys/kernel/core_pattern', 'w')"),
    _row("press the magic key", "mounts", "open('/proc/sysrq-trigger', 'w')"),
    _row("reach for a release agent", "mounts, Landlock", "os.listdir('/sys/fs/cgroup')"),
    _denied("ask for a file's handle", "seccomp", "call('name_to_handle_at', -100, b'.', 0, 0, 0)"),
    _denied("open by handle", "seccomp", "call('open_by_handle_at', -100, 0, 0)"),
    _denied("watch a whole mount", "seccomp", "call('fanotify_init', 0, 0)"),
)

OTHERS = (
    _row("read the server's environment", "pid namespace, Landlock", "open(f'/proc/{F[\"server\"]}/environ').read()"),
    _row("read the server's memory", "pid namespace, Landlock", "open(f'/proc/{F[\"server\"]}/mem', 'rb')"),
    _row("look through the server's descriptors", "pid namespace, Landlock", "os.listdir(f'/proc/{F[\"server\"]}/fd')"),
    _row(
        "look for secrets in every environment",
        "pid namespace, Landlock",
        """
        import glob
        found = ''
        for path in [*glob.glob('/proc/[0-9]*/environ'), '/proc/1/environ', f'/proc/{os.getppid()}/environ']:
            try:
                found += open(path, errors='replace').read()
            except OSError:
                pass
        print('found' if 'SERVER_SECRET' in found else 'nothing')
        """,
        "nothing",
    ),
    _row(
        "see other processes",
        "pid namespace, Landlock",
        """
        try:
            print('seen' if str(F['server']) in os.listdir('/proc') else 'unseen')
        except PermissionError:
            print('unseen')
        """,
        "unseen",
    ),
    _row("enter by the first process's root", "pid namespace, Landlock", "os.listdir('/proc/1/root/')"),
    _row("read the parent's memory", "pid namespace, Landlock", "open(f'/proc/{os.getppid() or 1}/mem', 'rb')"),
    _row("signal the server", "pid namespace, Landlock", "os.kill(F['server'], 0)"),
    _row("stop a process of the user's", "pid namespace, Landlock", "os.kill(F['decoy'], 19)"),
    _row(
        "signal everything at once",
        "pid namespace, Landlock",
        """
        import signal
        try:
            os.kill(-1, signal.SIGCONT)
        except OSError:
            pass
        print('tried')
        """,
        "tried",
    ),
    _row("lower the server's limits", "pid namespace, seccomp", "limit_of(F['server'])"),
    _row("slow the server down", "pid namespace, seccomp", "os.setpriority(os.PRIO_PROCESS, F['server'], 19)"),
    _row(
        "slow all of the user's processes down",
        "pid namespace, seccomp",
        """
        try:
            os.setpriority(os.PRIO_USER, 0, 19)
        except OSError:
            pass
        print('tried')
        """,
        "tried",
    ),
    _row("bind the server to one processor", "pid namespace, seccomp", "os.sched_setaffinity(F['server'], {0})"),
    _row("make the server die first of memory", "pid namespace", "open(f'/proc/{F[\"server\"]}/oom_score_adj', 'w')"),
    _denied("trace the server", "seccomp", "call('ptrace', 16, F['server'], 0, 0)"),
    _denied("be traced", "seccomp", "call('ptrace', 0, 0, 0, 0)"),
    _denied("read memory across processes", "seccomp", "call('process_vm_readv', F['server'], 0, 0, 0, 0, 0)"),
    _denied("write memory across processes", "seccomp", "call('process_vm_writev', F['server'], 0, 0, 0, 0, 0)"),
    _denied("take a descriptor out of a process", "seccomp", "call('pidfd_getfd', 0, 0, 0)"),
    _denied("compare processes", "seccomp", "call('kcmp', os.getpid(), os.getpid(), 0, 0, 0)"),
    _row("read a sibling's file", "mounts, Landlock", "open(F['sibling_file']).read()"),
    _row("signal a sibling", "pid namespace, Landlock", "os.kill(F['sibling'], 0)"),
    _row("read a sibling's memory", "pid namespace, Landlock", "open(f'/proc/{F[\"sibling\"]}/mem', 'rb')"),
    _row("read a sibling's limits", "pid namespace, Landlock", "open(f'/proc/{F[\"sibling\"]}/limits').read()"),
    _row(
        "find a descriptor that leads out",
        "descriptors closed",
        """
        kinds = {os.readlink(f'/proc/self/fd/{fd}').split(':')[0] for fd in os.listdir('/proc/self/fd')
                 if os.path.lexists(f'/proc/self/fd/{fd}')}
        own = {'pipe', 'socket', '/dev/null', 'anon_inode', f'/proc/{os.getpid()}'}
        print(*sorted(kinds - own), 'nothing')
        """,
        "nothing",
    ),
)

PRIVILEGES = (
    _denied("make a user namespace", "seccomp", "call('unshare', 0x10000000)"),
    _denied("make a network namespace", "seccomp", "call('unshare', 0x40000000)"),
    _denied("clone into a user namespace", "seccomp", "call('clone', 0x10000011, 0, 0, 0, 0)"),
    _denied("clone with flags that cannot be checked", "seccomp", "call('clone3', 0, 0)", "ENOSYS"),
    _denied("join a namespace", "seccomp", "call('setns', 0, 0)"),
    _denied("mount", "seccomp", "call('mount', b'x', b'/tmp', b'tmpfs', 0, 0)"),
    _denied("unmount", "seccomp", "call('umount2', b'/proc', 2)"),
    _denied("change the root", "seccomp", "os.chroot('.')"),
    _denied("pivot the root", "seccomp", "call('pivot_root', b'.', b'.')"),
    _denied("open a mount tree", "seccomp", "call('open_tree', -100, b'/', 1)"),
    _denied("take capabilities back", "capabilities", "take_capabilities()"),
    _row(
        "become root and look again",
        "no_new_privs, capabilities",
        """
        try:
            os.setuid(0)
        except OSError:
            pass
        attempt(lambda: open('/etc/shadow').read())
        """,
    ),
    _row(
        "run a setuid program",
        "no_new_privs",
        """
        import subprocess
        done = subprocess.run(['su', '-c', 'cat /etc/shadow'], capture_output=True, stdin=subprocess.DEVNULL)
        print('refused' if done.returncode and not done.stdout else 'done')
        """,
    ),
    _row(
        "make a set-user-id program of a file",
        "seccomp",
        "(open('program', 'w').close(), os.chmod('program', 0o4755))",
        "EPERM",
        standard="done",
        gap=MODES,
        trial="errno_of",
    ),
    _row(
        "make a set-group-id program of a file",
        "seccomp",
        "(open('program', 'w').close(), os.chmod('program', 0o2755))",
        "EPERM",
        standard="done",
        gap=MODES,
        trial="errno_of",
    ),
    _denied("create a set-user-id program", "seccomp", "os.open('program', os.O_CREAT | os.O_WRONLY, 0o4755)"),
    _denied("make a set-user-id node", "seccomp", "os.mknod('program', 0o104755)"),
    _denied("hide a mode from the filter", "seccomp", "call('openat2', -100, b'x', 0, 0)", "ENOSYS"),
    _denied("use the kernel's keys", "seccomp", "call('keyctl', 0, -3, 0, 0, 0)"),
    _denied("add a key", "seccomp", "call('add_key', b'user', b'x', b'x', 1, -3)"),
    _denied("request a key", "seccomp", "call('request_key', b'user', b'x', 0, -3)"),
    _denied("load a bpf program", "seccomp", "call('bpf', 0, 0, 0)"),
    _denied("count the processor's events", "seccomp", "call('perf_event_open', 0, 0, -1, -1, 0)"),
    _denied("handle page faults", "seccomp", "call('userfaultfd', 1)"),
    _denied("set up io_uring", "seccomp", "call('io_uring_setup', 8, 0)"),
    _denied("load a module", "seccomp", "call('init_module', 0, 0, b'')"),
    _denied("load another kernel", "seccomp", "call('kexec_load', 0, 0, 0, 0)"),
    _denied("reboot, with a wrong key", "seccomp", "call('reboot', 0, 0, 0, 0)"),
    _denied("add swap", "seccomp", "call('swapon', b'/nonexistent', 0)"),
    _denied("turn on accounting", "seccomp", "call('acct', 0)"),
    _denied("set the clock", "seccomp", "call('settimeofday', 0, 0)"),
    _denied("rename the machine", "seccomp", "call('sethostname', b'x', 1)"),
    _denied("read the kernel's log", "seccomp", "call('syslog', 3, 0, 0)"),
    _denied("turn off address randomization", "seccomp", "call('personality', 0x0040000)"),
    _denied("use System V shared memory", "seccomp", "call('shmget', 0, 4096, 0o1600)", "ENOSYS"),
    _denied("make calls of the x32 machine", "seccomp", "libc_call(0x40000000 | 39)", "ENOSYS"),
    _denied("type into a terminal", "seccomp", "__import__('fcntl').ioctl(0, 0x5412, b'x')"),
    _row("open the terminal", "new session", "open('/dev/tty', 'w')"),
    _denied("change the tag by which it is found", "seccomp", "set_tag()"),
    _row("run before everything else", "limits", "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))"),
    _row("raise its priority", "limits", "os.setpriority(os.PRIO_PROCESS, 0, -5)"),
)

NETWORK = (
    _row("connect to the server's port", "net namespace, seccomp", "connect(F['tcp_port'])"),
    _row(
        "send the server a datagram",
        "net namespace, seccomp",
        """
        try:
            socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', F['udp_port']))
        except OSError:
            pass
        print('tried')
        """,
        "tried",
    ),
    _row("connect to a socket file", "mounts, seccomp", "socket.socket(socket.AF_UNIX).connect(F['socket_file'])"),
    _row(
        "send a datagram to a socket file from a pair",
        "mounts, seccomp",
        "socket.socketpair(type=socket.SOCK_DGRAM)[0].sendto(b'x', F['datagram_file'])",
    ),
    _row(
        "connect to an abstract socket",
        "net namespace, seccomp",
        "socket.socket(socket.AF_UNIX).connect('\\0' + F['abstract'])",
    ),
    _row("find a way to the cloud's metadata", "net namespace, seccomp", "route_to('169.254.169.254')"),
    _row("find a way to the world", "net namespace, seccomp", "route_to('192.0.2.1')"),
    _row("find a way to the world by IPv6", "net namespace, seccomp", "route_to('2001:db8::1', socket.AF_INET6)"),
    _row("open a raw socket", "seccomp", "socket.socket(type=socket.SOCK_RAW, proto=1)"),
    _row("open a packet socket", "seccomp", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)"),
    _row("talk to the hypervisor", "seccomp", "socket.socket(40, socket.SOCK_STREAM)"),
    _row("use the kernel's crypto sockets", "seccomp", "socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)"),
    _row("talk to the packet filter", "seccomp", "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)"),
    _row(
        "see the machine's network",
        "net namespace, seccomp",
        """
        try:
            print([name for _, name in socket.if_nameindex()] == ['lo'] and 'unseen' or 'seen')
        except OSError:
            print('unseen')
        """,
        "unseen",
    ),
)


def _bounded(name: str, layer: str, code: str) -> Action:
    """Refused by the kernel: RLIMIT_NPROC in a room, a cgroup elsewhere. The watchdog ends the context instead."""
    return replace(_row(name, layer, code, gap=PROCESSES), watched=("crashed", "reset"))


HELD_BY_STATUS = "observed from outside"

EXHAUSTION = (
    _row(
        "take memory in one process",
        "RLIMIT_DATA",
        """
        try:
            bytearray(1 << 30)
        except MemoryError:
            print('refused')
        """,
    ),
    _bounded(
        "fork without end",
        "RLIMIT_NPROC, cgroup or watchdog",
        """
        import signal
        children = []
        try:
            for _ in range(300):
                pid = os.fork()
                if pid == 0:
                    signal.pause()
                children.append(pid)
            signal.sigtimedwait([], 10)
            print('done')
        except OSError:
            print('refused')
        for pid in children:
            os.kill(pid, 9)
        """,
    ),
    _bounded(
        "start threads without end",
        "RLIMIT_NPROC, cgroup or watchdog",
        """
        import signal, threading
        threading.stack_size(64 << 10)  # so that their number is what counts, not their memory
        end = threading.Event()
        threads = []
        try:
            for _ in range(300):
                threads.append(threading.Thread(target=end.wait))
                threads[-1].start()
            signal.sigtimedwait([], 10)
            print('done')
        except RuntimeError:
            print('refused')
            threads.pop()
        end.set()
        """,
    ),
    Action(
        "take memory over many children",
        "cgroup or watchdog",
        dedent("""
        import signal
        children = []
        for _ in range(12):
            pid = os.fork()
            if pid == 0:
                held = bytearray(48 << 20)
                signal.pause()
            children.append(pid)
        dead, status = os.wait()
        children.remove(dead)
        for pid in children:
            os.kill(pid, 9)
        print('killed' if os.WTERMSIG(status) == 9 else 'done')
        """),
        "killed",
        watched=("out_of_memory", "reset"),
    ),
    Action(
        "take memory that no limit of a process counts",
        "cgroup or watchdog",
        "import mmap\nshared = mmap.mmap(-1, 1 << 30)\nfor at in range(0, 1 << 30, 4096): shared[at] = 1",
        "",
        {},
        "out_of_memory",
        "reset",
    ),
    _row(
        "fill the disk",
        "size of the tmpfs",
        """
        def fill():
            for number in range(6):
                with open(f'fill-{number}', 'wb') as file:
                    file.write(bytes(16 << 20))
        attempt(fill)
        """,
        standard="done",
        gap=DISK,
    ),
    _row(
        "fill the disk with names",
        "inodes of the tmpfs",
        "[open(f'name-{number}', 'w').close() for number in range(3000)]",
        standard="done",
        cell="done",
        gap="not limited in number",
    ),
    _row("write one large file", "RLIMIT_FSIZE", "open('large', 'wb').write(bytes(48 << 20))"),
    _row("make one large empty file", "RLIMIT_FSIZE", "os.truncate(os.open('large', 66), 1 << 40)"),
    _row("fill the memory of /dev/shm", "size of the tmpfs", "open('/dev/shm/large', 'wb').write(bytes(30 << 20))"),
    _row("open files without end", "RLIMIT_NOFILE", "[kept.append(open('/dev/null')) for _ in range(1000)]"),
    _row("take every watcher", "ceilings of the namespace", "[call('inotify_init1', 0) for _ in range(200)]"),
    _row("make pipes without end", "RLIMIT_NOFILE", "[os.pipe() for _ in range(500)]"),
    Action("run for ever", HELD_BY_STATUS, "while True: pass", "", {}, "timeout", "kept", 0.5),
    Action(
        "ignore every signal",
        HELD_BY_STATUS,
        "import signal\nfor n in set(signal.Signals) - {9, 19}: signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
        "",
        {},
        "timeout",
        "reset",
        0.5,
    ),
    Action("stop itself", HELD_BY_STATUS, "os.kill(os.getpid(), 19)", "", {}, "timeout", "reset", 0.5),
    Action("leave at once", HELD_BY_STATUS, "os._exit(7)", "", {}, "crashed", "reset"),
    Action("crash", HELD_BY_STATUS, "ctypes.string_at(0)", "", {}, "crashed", "reset"),
    Action("kill itself", HELD_BY_STATUS, "os.kill(os.getpid(), 9)", "", {}, "crashed", "reset"),
    _row(
        "leave a daemon behind",
        "tags, pid namespace",
        """
        import signal
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for number in set(signal.Signals) - {9, 19}:
                    signal.signal(number, signal.SIG_IGN)
                while True:
                    signal.pause()
            os._exit(0)
        print('left')
        """,
        "left",
    ),
)

HOSTILE = (*FILES, *OTHERS, *PRIVILEGES, *NETWORK, *EXHAUSTION)


def _works(name: str, code: str, *, standard: str = "", gap: str = "") -> Action:
    return _row(name, "what must still work", code, "works", standard=standard, gap=gap)


MUST_WORK = (
    _works(
        "numpy, if installed",
        """
        try:
            import numpy
        except ImportError:
            print('works')
        else:
            print('works' if (numpy.ones((200, 200)) @ numpy.ones((200, 200)))[0, 0] == 200 else 'wrong')
        """,
    ),
    _works(
        "pandas, if installed",
        """
        try:
            import pandas
        except ImportError:
            print('works')
        else:
            print('works' if pandas.DataFrame({'a': [1, 2]}).a.sum() == 3 else 'wrong')
        """,
    ),
    _works(
        "children that share memory and end together",
        """
        import signal
        held = bytearray(60 << 20)
        for _ in range(8):
            children = []
            for _ in range(40):
                pid = os.fork()
                if pid == 0:
                    signal.pause()
                children.append(pid)
            for pid in children:
                os.kill(pid, 9)
            for pid in children:
                os.waitpid(pid, 0)
        print('works')
        """,
    ),
    _works(
        "threads",
        """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(16) as pool:
            print('works' if sum(pool.map(int, range(16))) == 120 else 'wrong')
        """,
    ),
    _works(
        "subprocess and a shell",
        """
        import subprocess
        print(subprocess.run('echo works | cat', shell=True, capture_output=True, text=True, check=True).stdout.strip())
        """,
    ),
    _works(
        "another interpreter",
        """
        import subprocess
        command = [sys.executable, '-c', 'import json; print("works")']
        print(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
        """,
    ),
    _works(
        "a pool of forked processes",
        """
        import multiprocessing
        try:
            with multiprocessing.get_context('fork').Pool(2) as pool:
                print('works' if pool.map(abs, [-1, -2]) == [1, 2] else 'wrong')
        except OSError:
            print('refused')
        """,
        standard="refused",
        gap="locks and pools of multiprocessing",
    ),
    _works(
        "one forked process and a pipe",
        """
        import multiprocessing
        context = multiprocessing.get_context('fork')
        ours, theirs = context.Pipe()
        process = context.Process(target=theirs.send, args=('works',))
        process.start()
        print(ours.recv())
        process.join()
        """,
    ),
    _works(
        "an asyncio server on loopback",
        """
        import asyncio
        async def answer(reader, writer):
            writer.write(await reader.readline())
            writer.close()
        async def main():
            server = await asyncio.start_server(answer, '127.0.0.1', 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b'works\\n')
            print((await reader.readline()).decode().strip())
            writer.close()
            server.close()
        try:
            asyncio.new_event_loop().run_until_complete(main())
        except (OSError, IndexError):  # asyncio passes over addresses for which there are no sockets
            print('refused')
        """,
        standard="refused",
        gap=SOCKETS,
    ),
    _works(
        "being told that there is no network",
        """
        import socket
        hints = next(module for name, module in sys.modules.items() if name.endswith('.hints'))
        try:
            socket.getaddrinfo('example.org', 80)
        except OSError as error:
            said = hints.hint(error)
        try:
            import a_module_that_nobody_has
        except ImportError as error:
            print('works' if 'no network' in said and said in hints.hint(error) else 'untold')
        """,
    ),
    _works(
        "asyncio with a subprocess",
        """
        import asyncio
        async def main():
            process = await asyncio.create_subprocess_exec('echo', 'works', stdout=asyncio.subprocess.PIPE)
            print((await process.communicate())[0].decode().strip())
        asyncio.new_event_loop().run_until_complete(main())
        """,
    ),
    _works(
        "a local socket file",
        """
        server = None
        try:
            server = socket.socket(socket.AF_UNIX)
            server.bind('socket')
            server.listen()
            socket.socket(socket.AF_UNIX).connect('socket')
            print('works')
        except OSError:
            print('refused')
        """,
        standard="refused",
        gap=SOCKETS,
    ),
    _works(
        "sqlite",
        """
        import sqlite3
        with sqlite3.connect('data.db') as db:
            db.execute('pragma journal_mode=wal')
            db.execute('create table t(x)')
            db.execute('insert into t values (?)', ('works',))
            print(db.execute('select x from t').fetchone()[0])
        """,
    ),
    _works(
        "temporary files and directories",
        """
        import tempfile
        with tempfile.TemporaryDirectory() as directory, tempfile.NamedTemporaryFile(dir=directory) as file:
            file.write(b'works')
            file.flush()
            print(open(file.name).read())
        """,
    ),
    _works(
        "large mappings that are never touched",
        """
        import mmap
        with open('sparse', 'wb') as file:
            file.truncate(30 << 20)
        with open('sparse', 'rb') as file:
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        reserved = mmap.mmap(-1, 8 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ)
        print('works' if mapped[-1] == reserved[0] == 0 else 'wrong')
        """,
    ),
    _works(
        "pip --version",
        """
        import importlib.util, subprocess
        if importlib.util.find_spec('pip') is None:
            print('works')
        else:
            done = subprocess.run([sys.executable, '-m', 'pip', '--version'], capture_output=True, text=True)
            print('works' if done.stdout.startswith('pip ') else done.stderr)
        """,
    ),
    _works(
        "reading the standard library",
        """
        import inspect, json
        print('works' if 'def dumps' in inspect.getsource(json) else 'wrong')
        """,
    ),
    _works(
        "time zones",
        """
        import datetime, os, zoneinfo
        if not os.path.isdir('/usr/share/zoneinfo'):
            print('works')
        else:
            zone = zoneinfo.ZoneInfo('Europe/Zurich')
            print('works' if datetime.datetime(2026, 7, 1, tzinfo=zone).utcoffset().seconds == 7200 else 'wrong')
        """,
    ),
    _works(
        "locales and text",
        """
        import locale
        locale.setlocale(locale.LC_ALL, 'C.UTF-8')
        open('naïve ☃.txt', 'w').write('☃')
        print('works' if open('naïve ☃.txt').read() == '☃' else 'wrong')
        """,
    ),
    _works(
        "copies, archives and renames",
        """
        import shutil, tarfile
        open('a', 'w').write('works')
        os.mkdir('d')
        shutil.copy2('a', 'd/b')
        with tarfile.open('t.tar.gz', 'w:gz') as tar:
            tar.add('d')
        os.rename('d', 'e')
        with tarfile.open('t.tar.gz') as tar:
            tar.extractall(filter='data') if hasattr(tarfile, 'data_filter') else tar.extractall()
        print(open('d/b').read())
        """,
    ),
    _works(
        "random numbers, hashes and TLS",
        """
        import hashlib, secrets, ssl
        ssl.create_default_context()
        print('works' if len(secrets.token_bytes(32)) == len(hashlib.sha256().digest()) else 'wrong')
        """,
    ),
    _works(
        "alarms and signals of its own",
        """
        import signal
        signal.signal(signal.SIGALRM, lambda *_: print('works'))
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        signal.pause()
        """,
    ),
    _works(
        "locks of files",
        """
        import fcntl
        with open('lock', 'w') as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            fcntl.lockf(file, fcntl.LOCK_EX)
            os.fsync(file)
        print('works')
        """,
    ),
    _works(
        "asking about itself",
        """
        import getpass, platform, pwd, resource
        os.cpu_count(), os.sched_getaffinity(0), os.getloadavg(), platform.platform(), resource.getrusage(0)
        pwd.getpwuid(os.getuid()), getpass.getuser(), open('/proc/self/status').read(), os.uname()
        print('works' if os.nice(1) >= 1 else 'wrong')
        """,
    ),
    _works(
        "lowering its own limits",
        """
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        print('works')
        """,
    ),
    _works(
        "ctypes callbacks",
        """
        double = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda value: 2 * value)
        print('works' if double(21) == 42 else 'wrong')
        """,
    ),
    _works(
        "a script of its own that is executable",
        """
        import subprocess
        fd = os.open('script', os.O_WRONLY | os.O_CREAT, 0o755)
        os.write(fd, b'#!/bin/sh\\necho works\\n')
        os.close(fd)
        print(subprocess.run(['./script'], capture_output=True, text=True, check=True).stdout.strip())
        """,
    ),
    _works(
        "names of this machine",
        """
        try:
            socket.getaddrinfo('localhost', 80)
            print('works')
        except OSError:
            print('refused')
        """,
    ),
)
