"""The shipped seccomp programs decide as the policy says: each number, and each edge of the arguments that count.

The programs are run by a small machine for classic BPF, so that what ships is judged, not what a compiler would make.
"""

from __future__ import annotations

import csv
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from enum import IntEnum
from itertools import product
from pathlib import Path

import pytest

from mcp_server.sandbox import syscalls
from mcp_server.sandbox.syscalls import ALLOW, CONDITIONAL, EPERM, POLICIES, UNKNOWN, Rule, decide

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "mcp_server" / "worker" / "seccomp"
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
FOREIGN = {"i386": 0x40000003, "arm": 0x40000028, "riscv64": 0xC00000F3}
X32 = 0x40000000
NO_ARGUMENTS = (0,) * 6
PAIRS = list(product(ARCHITECTURES, POLICIES))


class Op(IntEnum):
    """The instructions of linux/bpf_common.h that the programs use."""

    JUMP = 0x05
    RETURN = 0x06
    EQUAL = 0x15
    LOAD = 0x20
    NOT_BELOW = 0x35
    AND = 0x54


def numbers(machine: str) -> dict[str, int]:
    with (ROOT / "tools" / "syscall_numbers.tsv").open(newline="") as file:
        file.readline()
        return {row["name"]: int(row[machine]) for row in csv.DictReader(file, delimiter="\t") if row[machine] != "-"}


def run(program: bytes, architecture: int, number: int, arguments: Sequence[int] = NO_ARGUMENTS) -> int:
    """What the program returns for a call. Raises on anything that the kernel's checker would not load."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *arguments)
    instructions = list(struct.iter_unpack("<HBBI", program))
    accumulator, at = 0, 0
    while True:
        code, if_true, if_false, operand = instructions[at]
        at += 1
        match code:
            case Op.LOAD:
                assert operand % 4 == 0
                (accumulator,) = struct.unpack_from("<I", data, operand)
            case Op.AND:
                accumulator &= operand
            case Op.JUMP:
                at += operand
            case Op.EQUAL:
                at += if_true if accumulator == operand else if_false
            case Op.NOT_BELOW:
                at += if_true if accumulator >= operand else if_false
            case Op.RETURN:
                return int(operand)
            case _:
                raise AssertionError(f"instruction {code:#x} at {at - 1}")


def shipped(machine: str, name: str) -> bytes:
    return (PROGRAMS / f"{name}.{machine}.bpf").read_bytes()


def edges(rule: Rule) -> Iterator[tuple[int, ...]]:
    """Every combination of values around those that the rule's checks name, with high words empty and full."""
    interesting: list[set[int]] = [{0} for _ in range(6)]
    for clause in rule.clauses:
        for check in clause.checks:
            bits = {1 << bit for bit in range(32) if check.mask != syscalls.WORD and check.mask >> bit & 1}
            near = {check.value, check.value + 1, max(check.value - 1, 0), check.value | 0x800, 0xFFFFFFFF} | bits
            interesting[check.argument] |= near | {value | 1 << 32 for value in (check.value, 0)}
    return product(*interesting)


@pytest.mark.parametrize(("machine", "name"), PAIRS)
def test_every_system_call_number_is_decided_as_the_policy_says(machine: str, name: str) -> None:
    program = shipped(machine, name)
    rules = {number: POLICIES[name][call] for call, number in numbers(machine).items()}
    unknown = Rule((), UNKNOWN)
    for number in (*range(1024), 4095, X32 - 1, 0xFFFFFFFF):
        for arguments in (NO_ARGUMENTS, (0xFFFFFFFFFFFFFFFF,) * 6):
            expected = decide(rules.get(number, unknown), arguments)
            assert run(program, ARCHITECTURES[machine], number, arguments) == expected, number


@pytest.mark.parametrize(("machine", "name"), PAIRS)
def test_calls_whose_arguments_decide_are_right_at_every_edge(machine: str, name: str) -> None:
    program, known = shipped(machine, name), numbers(machine)
    tried = 0
    for call, rule in POLICIES[name].items():
        if call in known and rule.clauses:
            for arguments in edges(rule):
                tried += 1
                decision = run(program, ARCHITECTURES[machine], known[call], arguments)
                assert decision == decide(rule, arguments), (call, arguments)
    assert tried > 400


@pytest.mark.parametrize(("machine", "name"), PAIRS)
def test_no_call_of_another_architecture_or_of_x32_is_known(machine: str, name: str) -> None:
    program = shipped(machine, name)
    others = [value for value in (*FOREIGN.values(), *ARCHITECTURES.values()) if value != ARCHITECTURES[machine]]
    for number in range(512):
        assert run(program, ARCHITECTURES[machine], X32 | number) == UNKNOWN
        for other in others:
            assert run(program, other, number) == UNKNOWN


def test_every_known_system_call_stands_in_exactly_one_place_of_the_policy() -> None:
    names = [row for machine in ARCHITECTURES for row in numbers(machine)]
    groups = (
        *syscalls.ALLOWED,
        *syscalls.BY_NAMESPACE,
        syscalls.MODES_AND_TIMES,
        *syscalls.REFUSED,
        *syscalls.ABSENT,
    )
    placed = [*(name for group in groups for name in group.names.split()), *CONDITIONAL]
    assert sorted(placed) == sorted(set(names))
    assert all(set(policy) == set(names) for policy in POLICIES.values())
    assert set(syscalls.STANDARD_CONDITIONAL) <= set(CONDITIONAL)


def test_the_standard_program_allows_nothing_that_the_room_program_refuses() -> None:
    for call, room in POLICIES["room"].items():
        standard = POLICIES["standard"][call]
        for arguments in (*edges(room), *edges(standard)):
            if decide(standard, arguments) == ALLOW:
                assert decide(room, arguments) == ALLOW, (call, arguments)


PROMISES = [
    ("clone", (0x01200011,), ALLOW, "fork as the C library makes it"),
    ("clone", (0x003D0F00,), ALLOW, "a thread"),
    ("clone", (0x10000011,), EPERM, "a user namespace"),
    ("clone", (0x1_10000011,), EPERM, "a user namespace behind bits that the kernel ignores"),
    ("clone3", (), syscalls.ENOSYS, "flags that no filter sees"),
    ("unshare", (0x200,), ALLOW, "an own table of files"),
    ("unshare", (0x10000000,), EPERM, "a user namespace"),
    ("unshare", (0x80,), EPERM, "a time namespace"),
    ("setns", (), EPERM, "joining a namespace"),
    ("socket", (1, 1, 0), ALLOW, "a Unix socket"),
    ("socket", (2, 0x80801, 6), ALLOW, "TCP, close-on-exec and non-blocking"),
    ("socket", (10, 2, 17), ALLOW, "UDP over IPv6"),
    ("socket", (2, 3, 0), EPERM, "a raw socket"),
    ("socket", (2, 2, 1), EPERM, "a ping socket"),
    ("socket", (16, 3, 0), ALLOW, "the route netlink"),
    ("socket", (16, 3, 12), syscalls.EAFNOSUPPORT, "the netfilter netlink"),
    ("socket", (17, 3, 0), syscalls.EAFNOSUPPORT, "a packet socket"),
    ("socket", (38, 5, 0), syscalls.EAFNOSUPPORT, "a crypto socket"),
    ("socket", (40, 1, 0), syscalls.EAFNOSUPPORT, "a vsock"),
    ("prlimit64", (0, 7, 0x7FFF0000, 0), ALLOW, "an own limit"),
    ("prlimit64", (1234, 7, 0, 0x7FFF0000), ALLOW, "asking for a limit"),
    ("prlimit64", (1234, 7, 0x7FFF0000, 0), EPERM, "another process's limit"),
    ("prlimit64", (0, 15, 0x7FFF0000, 0), EPERM, "the tag"),
    ("prlimit64", (0, 0x1_0000000F, 0x7FFF0000, 0), EPERM, "the tag behind bits that the kernel ignores"),
    ("prlimit64", (0, 15, 0x1_00000000, 0), EPERM, "the tag from an address whose low word is zero"),
    ("prlimit64", (0, 15, 0, 0x7FFF0000), ALLOW, "reading the tag"),
    ("setrlimit", (15,), EPERM, "the tag, by the older call"),
    ("setrlimit", (7,), ALLOW, "an own limit, by the older call"),
    ("personality", (0xFFFFFFFF,), ALLOW, "asking for the personality"),
    ("personality", (0x0040000,), EPERM, "addresses that can be guessed"),
    ("ioctl", (0, 0x5401), ALLOW, "asking whether it is a terminal"),
    ("ioctl", (0, 0x5412), EPERM, "typing into a terminal"),
    ("ioctl", (0, 0xFFFFFFFF_00005412), EPERM, "typing into a terminal, sign-extended"),
]


@pytest.mark.parametrize(("call", "arguments", "verdict", "what"), PROMISES, ids=[row[3] for row in PROMISES])
def test_the_room_program_keeps_its_promises(call: str, arguments: tuple[int, ...], verdict: int, what: str) -> None:
    full = (*arguments, *NO_ARGUMENTS)[:6]
    for machine, architecture in ARCHITECTURES.items():
        assert run(shipped(machine, "room"), architecture, numbers(machine)[call], full) == verdict


OF_SHARED_HOST = [
    ("socket", (1, 1, 0), syscalls.EAFNOSUPPORT, "a Unix socket"),
    ("socket", (2, 2, 17), syscalls.EAFNOSUPPORT, "UDP"),
    ("socketpair", (1, 0x80001, 0), ALLOW, "a pair of streams"),
    ("socketpair", (1, 2, 0), syscalls.EAFNOSUPPORT, "a pair of datagram sockets"),
    ("socketpair", (1, 3, 0), syscalls.EAFNOSUPPORT, "a raw pair, which the kernel makes one of datagrams"),
    ("setpriority", (0, 0, 5), ALLOW, "own priority"),
    ("setpriority", (0, 77, 5), EPERM, "another's priority"),
    ("setpriority", (2, 0, 5), EPERM, "the priority of all of the user's processes"),
    ("sched_setaffinity", (77,), EPERM, "another's processors"),
    ("ioprio_set", (3, 0, 0), EPERM, "the I/O priority of all of the user's processes"),
    ("inotify_add_watch", (), EPERM, "watching the user's files"),
    ("fchmodat", (), syscalls.PRETEND, "a mode"),
    ("mq_open", (), EPERM, "the host's message queues"),
]


@pytest.mark.parametrize(
    ("call", "arguments", "verdict", "what"), OF_SHARED_HOST, ids=[row[3] for row in OF_SHARED_HOST]
)
def test_the_standard_program_keeps_its_promises(
    call: str, arguments: tuple[int, ...], verdict: int, what: str
) -> None:
    full = (*arguments, *NO_ARGUMENTS)[:6]
    for machine, architecture in ARCHITECTURES.items():
        assert run(shipped(machine, "standard"), architecture, numbers(machine)[call], full) == verdict


def test_the_shipped_programs_are_what_the_policy_compiles_to() -> None:
    command = [sys.executable, str(ROOT / "tools" / "generate_seccomp.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_numbers_agree_with_the_headers_of_this_machine() -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.is_file():
        pytest.skip("the kernel's headers for x86_64 are not installed")
    lines = (line.split() for line in header.read_text().splitlines() if line.startswith("#define __NR_"))
    defined = {words[1].removeprefix("__NR_"): int(words[2]) for words in lines if words[2].isdigit()}
    assert len(defined) > 300
    assert {name: numbers("x86_64").get(name) for name in defined} == defined
