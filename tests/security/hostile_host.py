"""Runs the tables of `actions` against a real engine, in a process that plays a server with something to lose.

    python -m tests.security.hostile_host TIER < names.json > results.json

It is started as a process of its own so that it can be given less: another user, the rights of a locked-down container.
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import resource
import secrets
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from mcp_server.engine.local import LocalEngine
from mcp_server.model import Chunk, ContextSpec, EngineCapabilities, Outcome, OutputChunk, RunRequest, Stream
from mcp_server.sandbox import processes
from mcp_server.sandbox.cell import Cell
from mcp_server.sandbox.limits import Ceilings
from mcp_server.sandbox.policy import MIB, CellPlan, Limits, Tier
from mcp_server.worker.frames import TAGS_PER_CELL
from tests.security.actions import HOSTILE, MUST_WORK, Action

CEILINGS = Ceilings(memory_bytes=400 * MIB, processes=64)

ROOT = Path(__file__).resolve().parents[2]

LIMITS = Limits(
    data_bytes=640 * MIB,
    file_bytes=32 * MIB,
    open_files=256,
    processes=64,
    disk_bytes=64 * MIB,
    disk_inodes=2000,
    scratch_bytes=16 * MIB,
)

PRELUDE = """
import ctypes, errno, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
kept = []
def tried(f):
    try:
        f()
    except OSError as error:
        return error.errno
def attempt(f):
    print('done' if tried(f) is None else 'refused')
def errno_of(f):
    number = tried(f)
    print('done' if number is None else errno.errorcode.get(number, number))
def libc_call(number, *arguments):
    arguments = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    if libc.syscall(ctypes.c_long(number), *arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
def call(name, *arguments):
    libc_call(NR[name], *arguments)
def set_tag():
    call('prlimit64', 0, 15, struct.pack('QQ', 1 << 40, 1 << 40), 0)
def limit_of(pid):
    call('prlimit64', pid, 7, struct.pack('QQ', 3, 3), 0)
def take_capabilities():
    everything = struct.pack('6I', *[0xFFFFFFFF] * 2, 0, *[0x1FF] * 2, 0)
    if libc.capset(struct.pack('Ii', 0x20080522, 0), everything) < 0:
        raise OSError(ctypes.get_errno(), 'capset')
def connect(port):
    socket.create_connection(('127.0.0.1', port), timeout=5)
def route_to(address, family=socket.AF_INET):
    # Connecting a datagram socket looks for a route and sends nothing.
    socket.socket(family, socket.SOCK_DGRAM).connect((address, 9))
"""


@dataclass(frozen=True, slots=True)
class Host:
    """What an attacker is after. Nothing of it may be reached."""

    secret: str
    secret_file: Path
    listeners: dict[str, socket.socket]
    decoy: int
    stopped_decoy: int
    affinity: frozenset[int]
    limits: tuple[int, int]

    @classmethod
    @contextmanager
    def make(cls, home: Path) -> Iterator[Host]:
        secret = secrets.token_hex(16)
        os.environ["SERVER_SECRET"] = secret
        secret_file = home / "secret"
        secret_file.write_text(secret)
        secret_file.chmod(0o640)
        os.utime(secret_file, (1, 1))
        with ExitStack() as stack:
            listeners = {name: stack.enter_context(made) for name, made in _listeners(home).items()}
            decoys = [stack.enter_context(_decoy()) for _ in range(2)]
            os.kill(decoys[1], signal.SIGSTOP)
            os.waitid(os.P_PID, decoys[1], os.WSTOPPED | os.WNOWAIT)
            affinity = frozenset(os.sched_getaffinity(0))
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            yield cls(secret, secret_file, listeners, decoys[0], decoys[1], affinity, limits)

    def facts(self, home: Path) -> dict[str, Any]:
        return {
            "server": os.getpid(),
            "decoy": self.decoy,
            "secret_file": str(self.secret_file),
            "home": str(home),
            "disk": next(
                (name for name in ("/dev/vda", "/dev/sda", "/dev/nvme0n1") if os.path.exists(name)), "/dev/vda"
            ),
            "tcp_port": self.listeners["tcp"].getsockname()[1],
            "udp_port": self.listeners["udp"].getsockname()[1],
            "socket_file": str(home / "socket"),
            "datagram_file": str(home / "datagrams"),
            "abstract": self.listeners["abstract"].getsockname()[1:].decode(),
        }

    def damage(self) -> list[str]:
        """What was reached; empty where all is as it was."""
        status = self.secret_file.lstat()
        found = {
            "the secret file was changed": self.secret_file.read_text() != self.secret,
            "its mode was changed": stat.S_IMODE(status.st_mode) != 0o640,
            "its times were changed": status.st_mtime != 1,
            "its owner was changed": status.st_uid != os.geteuid(),
            "it was linked": status.st_nlink != 1,
            "it has attributes": bool(os.listxattr(self.secret_file)),
            "a process was signalled": _state(self.decoy) != "S",
            "a stopped process was continued": _state(self.stopped_decoy) != "T",
            "a process was slowed": os.getpriority(os.PRIO_PROCESS, self.decoy) != 0,
            "the server was slowed": os.getpriority(os.PRIO_PROCESS, 0) != 0,
            "the server was bound": frozenset(os.sched_getaffinity(0)) != self.affinity,
            "the server was limited": resource.getrlimit(resource.RLIMIT_NOFILE) != self.limits,
            "the system was written": any(map(os.path.exists, ("/evil", "/etc/evil", "/usr/bin/evil"))),
        }
        reached = [f"the {name} socket was reached" for name, listener in self.listeners.items() if _reached(listener)]
        return [what for what, happened in found.items() if happened] + reached


def _listeners(home: Path) -> dict[str, socket.socket]:
    made = {
        "tcp": socket.create_server(("127.0.0.1", 0)),
        "udp": socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "file": socket.socket(socket.AF_UNIX),
        "datagram": socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
        "abstract": socket.socket(socket.AF_UNIX),
    }
    made["udp"].bind(("127.0.0.1", 0))
    made["file"].bind(str(home / "socket"))
    made["datagram"].bind(str(home / "datagrams"))
    made["abstract"].bind("\0mcp-test-" + secrets.token_hex(8))
    for name in ("file", "abstract"):
        made[name].listen()
    for listener in made.values():
        listener.setblocking(False)
    return made


def _reached(listener: socket.socket) -> bool:
    try:
        if listener.type == socket.SOCK_DGRAM:
            listener.recv(16)
        else:
            listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@contextmanager
def _decoy() -> Iterator[int]:
    """A process of the user's that sleeps in a read."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        while _state(process.pid) != "S":
            os.sched_yield()
        try:
            yield process.pid
        finally:
            process.kill()


def _state(pid: int) -> str:
    """As proc(5) has it: S sleeping, T stopped, Z a zombie; X where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return "X"


class Prey:
    """Runs actions, each in a fresh context of one sandbox, beside a sibling in another."""

    def __init__(self, engine: LocalEngine, cells: list[Cell], host: Host, facts: dict[str, Any]) -> None:
        self._engine = engine
        self._cells = cells
        self._host = host
        self._facts = facts
        self._numbers = _numbers()

    async def meet_sibling(self) -> None:
        sibling = await self._engine.create(ContextSpec("sibling"), _ignore)
        code = f"import os\nopen('secret', 'w').write({self._host.secret!r})\nprint(os.path.abspath('secret'))"
        _, output = await self._run(sibling.context_id, code, 20.0)
        self._facts["sibling_file"] = output.strip()
        (self._facts["sibling"],) = self._living()

    async def suffer(self, action: Action) -> dict[str, Any]:
        before = self._living()
        context = await self._engine.create(ContextSpec("prey"), _ignore)
        own = {**self._facts, "outputs": "/outputs" if context.cwd.startswith("/work") else "/"}
        prelude = f"{PRELUDE}\nF = {own!r}\nNR = {self._numbers!r}\n"
        await self._run(context.context_id, prelude, 20.0)
        outcome, output = await self._run(context.context_id, action.code, action.timeout_s)
        after, alive = await self._run(context.context_id, "print('alive')", 20.0)
        await self._engine.delete(context.context_id)
        await self._engine.delete_sandbox("prey")
        return {
            "status": outcome.status,
            "state": outcome.state,
            "error": outcome.error.traceback if outcome.error else outcome.detail,
            "word": output.strip(),
            "usable": after.status == "ok" and alive.strip() == "alive",
            "leaked": self._host.secret in output,
            "damage": self._host.damage(),
            "watchdog": self._engine._memory.name == "watchdog",
            "survivors": sorted(self._living() - before),
        }

    def _living(self) -> set[int]:
        """Pids of everything that contexts of these cells have started and that is not dead."""
        pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
        return {pid for pid in pids if self._are_ours(processes.tag_of(pid) or 0) and _state(pid) not in "ZX"}

    def _are_ours(self, tag: int) -> bool:
        return any(0 <= tag - cell._first_tag < TAGS_PER_CELL for cell in self._cells)

    async def _run(self, context_id: str, code: str, timeout_s: float) -> tuple[Outcome, str]:
        pieces: list[bytes] = []

        def keep(chunk: Chunk) -> None:
            if isinstance(chunk, OutputChunk) and chunk.stream is Stream.STDOUT:
                pieces.append(chunk.data)

        outcome = await self._engine.execute(context_id, RunRequest(1, code, timeout_s), keep)
        return outcome, b"".join(pieces).decode("utf-8", "replace")


def _ignore(_chunk: Chunk) -> None:
    """Output between runs is not what is looked at here."""


def _numbers() -> dict[str, int]:
    with (ROOT / "tools" / "syscall_numbers.tsv").open(newline="") as file:
        file.readline()
        rows = csv.DictReader(file, delimiter="\t")
        return {row["name"]: int(row[os.uname().machine]) for row in rows if row[os.uname().machine] != "-"}


async def attack(tier: str, names: list[str], home: Path) -> dict[str, Any]:
    plan = CellPlan(
        python=sys.executable, state_dir=str(home / "state"), tier=Tier(tier), limits=LIMITS, spare_workers=0
    )
    cells: list[Cell] = []

    def new_cell() -> Cell:
        cells.append(Cell(plan))
        return cells[-1]

    engine = LocalEngine(new_cell, EngineCapabilities("local", tier), interrupt_grace_s=0.2, ceilings=CEILINGS)
    results = {}
    with Host.make(home) as host:
        await engine.start()
        prey = Prey(engine, cells, host, host.facts(home))
        await prey.meet_sibling()
        for action in (*HOSTILE, *MUST_WORK):
            if action.name in names:
                results[action.name] = await prey.suffer(action)
        await engine.close()
    return results


def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is for the results
    names: list[str] = json.load(sys.stdin)
    with tempfile.TemporaryDirectory(prefix="mcp-prey-") as home:
        json.dump(asyncio.run(attack(sys.argv[1], names, Path(home))), sys.stdout)


if __name__ == "__main__":
    main()
