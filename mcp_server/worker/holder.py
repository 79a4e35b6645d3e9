"""The first process of a room: eighty bytes of code that make a list of system calls, and stay until they are killed.

What the first process of a PID namespace must do itself is known beforehand, so it needs no Python: that would be a
fork of the nursery, which costs what it touches afterwards, and hold two megabytes for nothing, a thousand times over.
The program is made here, with its list; one list can end by executing another program.

Then it has nothing to do. Signals from inside do not reach the first process of a PID namespace that has no handlers,
and what is orphaned there the kernel reaps, as SIGCHLD is ignored.

Descriptor 0 is where it tells how it went, before its list closes that: `DONE`, or what `explain` reads.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import Callable, Dict, List, NamedTuple, Sequence, Tuple, Union

from . import linux

REPORT_FD = 0

DONE = b"+"

_FAILURE = struct.Struct("=Qq")
"""The address of the step, what its call gave."""

_STEP = struct.Struct("=q5Q")
"""The number of the call (-1 ends the list), its arguments."""

_LIST_END = _STEP.pack(-1, 0, 0, 0, 0, 0)

FIRST, SECOND = 0x400000, 0x800000
"""Where a program lies in memory: a failed step is known by its address."""

_HEADERS_BYTES = 64 + 56
_LIST_OFFSET = 0x200


class Filter(NamedTuple):
    """An argument that is a BPF program, as seccomp takes it."""

    instructions: bytes


class Texts(NamedTuple):
    """An argument that is a list of texts, as execve takes it."""

    texts: Tuple[bytes, ...]


class Step(NamedTuple):
    """A system call, by its name in `_Machine.calls`; of bytes it gets the address. `what` is said where it fails."""

    what: str
    call: str
    arguments: Tuple[Union[int, bytes, Filter, Texts], ...]


class _Machine(NamedTuple):
    """`code` begins with the address of the list in a register; `calls` are the numbers of asm/unistd.h."""

    elf_number: int
    code: Callable[[int], bytes]
    calls: Dict[str, int]


_MACHINES = {
    "x86_64": _Machine(
        62,
        lambda start: (
            b"\xbb"
            + struct.pack("<I", start)  # mov ebx, start
            + b"\x48\x8b\x03"  # next: mov rax, [rbx]
            b"\x48\x85\xc0"  # test rax, rax
            b"\x78\x21"  # js stay
            b"\x48\x8b\x7b\x08"  # mov rdi, [rbx+8]
            b"\x48\x8b\x73\x10"  # mov rsi, [rbx+16]
            b"\x48\x8b\x53\x18"  # mov rdx, [rbx+24]
            b"\x4c\x8b\x53\x20"  # mov r10, [rbx+32]
            b"\x4c\x8b\x43\x28"  # mov r8, [rbx+40]
            b"\x0f\x05"  # syscall
            b"\x48\x85\xc0"  # test rax, rax
            b"\x78\x0f"  # js fail
            b"\x48\x83\xc3\x30"  # add rbx, 48
            b"\xeb\xd7"  # jmp next
            b"\xb8\x22\x00\x00\x00"  # stay: mov eax, 34 (pause)
            b"\x0f\x05"  # syscall
            b"\xeb\xf7"  # jmp stay
            b"\x50"  # fail: push rax
            b"\x53"  # push rbx
            b"\xb8\x01\x00\x00\x00"  # mov eax, 1 (write)
            b"\x31\xff"  # xor edi, edi
            b"\x48\x89\xe6"  # mov rsi, rsp
            b"\xba\x10\x00\x00\x00"  # mov edx, 16
            b"\x0f\x05"  # syscall
            b"\xb8\xe7\x00\x00\x00"  # mov eax, 231 (exit_group)
            b"\xbf\x01\x00\x00\x00"  # mov edi, 1
            b"\x0f\x05"
        ),  # syscall
        {
            "write": 1,
            "close": 3,
            "capset": 126,
            "prctl": 157,
            "mount": 165,
            "openat": 257,
            "unshare": 272,
            "execveat": 322,
        },
    ),
    "aarch64": _Machine(
        183,
        lambda start: struct.pack(
            "<28I",
            0xD2800013 | (start & 0xFFFF) << 5,  # movz x19, #start
            0xF2A00013 | (start >> 16) << 5,  # movk x19, #start, lsl #16
            0xF9400268,  # next: ldr x8, [x19]
            0xB7F80108,  # tbnz x8, #63, stay
            0xA9408660,  # ldp x0, x1, [x19, #8]
            0xA9418E62,  # ldp x2, x3, [x19, #24]
            0xF9401664,  # ldr x4, [x19, #40]
            0xD4000001,  # svc #0
            0xB7F80160,  # tbnz x0, #63, fail
            0x9100C273,  # add x19, x19, #48
            0x17FFFFF8,  # b next
            *(0xD2800000 | register for register in range(5)),  # stay: movz x0…x4, #0
            0xD2800928,  # movz x8, #73 (ppoll)
            0xD4000001,  # svc #0
            0x17FFFFF9,  # b stay
            0xA9BF03F3,  # fail: stp x19, x0, [sp, #-16]!
            0xD2800000,  # movz x0, #0
            0x910003E1,  # mov x1, sp
            0xD2800202,  # movz x2, #16
            0xD2800808,  # movz x8, #64 (write)
            0xD4000001,  # svc #0
            0xD2800020,  # movz x0, #1
            0xD2800BC8,  # movz x8, #94 (exit_group)
            0xD4000001,  # svc #0
        ),
        {
            "openat": 56,
            "close": 57,
            "write": 64,
            "mount": 40,
            "capset": 91,
            "unshare": 97,
            "prctl": 167,
            "execveat": 281,
        },
    ),
}


class Program(NamedTuple):
    """`fd` is to be executed. `start` is `FIRST` or `SECOND`."""

    fd: int
    steps: Sequence[Step]
    start: int


def program(place: str, steps: Sequence[Step], start: int) -> Program:
    """Make one. `place` is a directory to mount on for a moment. Raises OSError.

    Its file is on a file system that is mounted nowhere: it could be in memory without one, but for administrators who
    forbid programs there (vm.memfd_noexec). It can be run and not read, not even by its owner where that has no
    capabilities: so the kernel lets nobody of the same user look into the process, as for any program that may hide
    something (`would_dump` in fs/exec.c).
    """
    machine = os.uname().machine
    if machine not in _MACHINES:
        raise OSError(errno.ENOEXEC, "there is no program to hold a room on %s" % machine)
    linux.mount("tmpfs", place, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=256k,nr_inodes=8,mode=0700")
    try:
        path = os.path.join(place, "room")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o111)
        os.write(fd, image(machine, steps, start))
        os.close(fd)
        return Program(os.open(path, os.O_PATH | os.O_CLOEXEC), steps, start)
    finally:
        linux.unmount(place)


def explain(report: bytes, programs: Sequence[Program]) -> str:
    """What went wrong, from what one of these programs reported; nothing where all went well."""
    if report == DONE:
        return ""
    if len(report) != _FAILURE.size:
        return "its first process was killed"
    address, result = _FAILURE.unpack(report)
    failed = next(program for program in programs if program.start == address & ~0xFFFFF)
    step = failed.steps[(address - failed.start - _LIST_OFFSET) // _STEP.size]
    return "%s: %s" % (step.what, os.strerror(-result))


def image(machine: str, steps: Sequence[Step], start: int) -> bytes:
    """An ELF file: its header, one segment that is the whole file, the code, the list, what that points to."""
    elf_number, code, calls = _MACHINES[machine]
    data = _Data(start + _LIST_OFFSET + (len(steps) + 1) * _STEP.size)
    entries = [
        _STEP.pack(calls[step.call], *(data.place(value) for value in step.arguments), *_zeros(step)) for step in steps
    ]
    body = code(start + _LIST_OFFSET).ljust(_LIST_OFFSET - _HEADERS_BYTES, b"\0")
    body += b"".join(entries) + _LIST_END + b"".join(data.parts)
    size = _HEADERS_BYTES + len(body)
    # e_ident, e_type EXEC, e_machine, e_version, e_entry, e_phoff, e_shoff, e_flags, sizes and counts of headers
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, elf_number, 1, start + _HEADERS_BYTES, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    # p_type LOAD, p_flags read and execute, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, start, start, size, size, 0x10000)
    return header + segment + body


def _zeros(step: Step) -> Tuple[int, ...]:
    return (0,) * (5 - len(step.arguments))


class _Data:
    """What arguments point to, from an address on."""

    def __init__(self, start: int) -> None:
        self.parts: List[bytes] = []
        self._end = start

    def place(self, value: Union[int, bytes, Filter, Texts]) -> int:
        """The number to put into a register."""
        if isinstance(value, int):
            return value & 0xFFFFFFFFFFFFFFFF
        if isinstance(value, Filter):
            count = len(value.instructions) // 8
            value = struct.pack("=H6xQ", count, self.place(value.instructions))  # struct sock_fprog
        if isinstance(value, Texts):
            value = struct.pack("=%dQ" % len(value.texts), *map(self.place, value.texts))  # a zero ends it, see below
        start = self._end
        self.parts.append(value.ljust(len(value) // 8 * 8 + 8, b"\0"))  # a zero ends each: it may be a text
        self._end += len(self.parts[-1])
        return start
