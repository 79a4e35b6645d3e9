"""Compiles `mcp_server/sandbox/syscalls.py` into the seccomp programs that ship in `mcp_server/worker/seccomp/`.

    python tools/generate_seccomp.py            write the programs
    python tools/generate_seccomp.py --check    exit 1 where a shipped program is not what the policy compiles to

A program is classic BPF over `struct seccomp_data`, in the byte order of both machines (little endian). It finds the
call by bisecting its number; the kernel (5.11 on) runs it once for each number and remembers those that are always
allowed, so that they cost nothing.
"""

from __future__ import annotations

import argparse
import csv
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mcp_server.sandbox.syscalls import POLICIES, UNKNOWN, Check, Clause, Rule  # noqa: E402  the source tree's own

NUMBERS = ROOT / "tools" / "syscall_numbers.tsv"
PROGRAMS = ROOT / "mcp_server" / "worker" / "seccomp"

# linux/audit.h
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

X32_BIT = 0x40000000
"""asm/unistd.h of x86: calls of the x32 ABI share the audit architecture of x86_64 and carry this bit."""

# linux/filter.h, linux/bpf_common.h
LOAD, JUMP, JUMP_EQUAL, JUMP_NOT_BELOW, AND, RETURN = 0x20, 0x05, 0x15, 0x35, 0x54, 0x06

# struct seccomp_data of linux/seccomp.h
NUMBER_OFFSET, ARCHITECTURE_OFFSET, ARGUMENTS_OFFSET = 0, 4, 16

FARTHEST_BRANCH = 255
"""A conditional jump's distance is one byte."""

MOST_INSTRUCTIONS = 4096
"""BPF_MAXINSNS."""


@dataclass(frozen=True, slots=True)
class Instruction:
    code: int
    operand: int
    if_true: int = 0
    if_false: int = 0

    def encode(self) -> bytes:
        return struct.pack("<HBBI", self.code, self.if_true, self.if_false, self.operand)


Code = list[Instruction]


def numbers(machine: str) -> dict[str, int]:
    """System call name → number."""
    with NUMBERS.open(newline="", encoding="ascii") as file:
        file.readline()
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {row["name"]: int(row[machine]) for row in rows if row[machine] != "-"}


def program(machine: str, policy: Mapping[str, Rule]) -> bytes:
    """The program that carries the policy out on a machine."""
    known = numbers(machine)
    rules = {known[name]: rule for name, rule in policy.items() if name in known}
    code = [
        Instruction(LOAD, ARCHITECTURE_OFFSET),
        Instruction(JUMP_EQUAL, MACHINES[machine], 1, 0),
        Instruction(RETURN, UNKNOWN),
        Instruction(LOAD, NUMBER_OFFSET),
        *_bisect(_segments(rules)),
    ]
    if len(code) > MOST_INSTRUCTIONS:
        raise SystemExit(
            f"the program for {machine} has {len(code)} instructions, the kernel takes {MOST_INSTRUCTIONS}"
        )
    return b"".join(instruction.encode() for instruction in code)


def _segments(rules: Mapping[int, Rule]) -> list[tuple[int, Rule]]:
    """(first number, rule) of each run of numbers with one rule; the last run has no end, so x32 lies in it."""
    unknown = Rule((), UNKNOWN)
    segments: list[tuple[int, Rule]] = []
    for number in range(max(rules) + 2):
        rule = rules.get(number, unknown)
        if not segments or segments[-1][1] != rule:
            segments.append((number, rule))
    if segments[-1][1] != unknown or segments[-1][0] >= X32_BIT:
        raise AssertionError("the numbers past the last known call must fall to UNKNOWN")
    return segments


def _bisect(segments: Sequence[tuple[int, Rule]]) -> Code:
    """Code that finds the segment of the loaded number and runs its rule."""
    if len(segments) == 1:
        return _rule(segments[0][1])
    middle = len(segments) // 2
    below, above = _bisect(segments[:middle]), _bisect(segments[middle:])
    first = segments[middle][0]
    if len(below) <= FARTHEST_BRANCH:
        return [Instruction(JUMP_NOT_BELOW, first, len(below), 0), *below, *above]
    return [Instruction(JUMP_NOT_BELOW, first, 0, 1), Instruction(JUMP, len(below)), *below, *above]


def _rule(rule: Rule) -> Code:
    return [
        *(instruction for clause in rule.clauses for instruction in _clause(clause)),
        Instruction(RETURN, rule.otherwise),
    ]


def _clause(clause: Clause) -> Code:
    """Code that returns the verdict where all checks hold and otherwise falls out at the end."""
    code: Code = [Instruction(RETURN, clause.verdict)]
    for check in reversed(clause.checks):
        code = [*_word(check), Instruction(JUMP_EQUAL, check.value, 0, len(code)), *code]
    return code


def _word(check: Check) -> Code:
    load = Instruction(LOAD, ARGUMENTS_OFFSET + 8 * check.argument + 4 * check.high)
    return [load] if check.mask == 0xFFFFFFFF else [load, Instruction(AND, check.mask)]


def main() -> int:
    arguments = argparse.ArgumentParser(description="Compile the system call policy into seccomp programs.")
    arguments.add_argument("--check", action="store_true", help="write nothing; exit 1 where a program is out of date")
    check = arguments.parse_args().check
    stale = 0
    for machine in MACHINES:
        for name, policy in POLICIES.items():
            path = PROGRAMS / f"{name}.{machine}.bpf"
            compiled = program(machine, policy)
            if not check:
                path.write_bytes(compiled)
            elif not path.is_file() or path.read_bytes() != compiled:
                stale += 1
                sys.stderr.write(f"{path.relative_to(ROOT)} is not what the policy compiles to\n")
    return int(stale > 0)


if __name__ == "__main__":
    sys.exit(main())
