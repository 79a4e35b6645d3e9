"""The first process of a room: the smallest program that stays until it is killed.

It has nothing to do. Signals from inside do not reach the first process of a PID namespace that has no handlers, and
what is orphaned there the kernel reaps, as SIGCHLD is ignored. A Python that waits would hold two megabytes for that, a
thousand times over; so it becomes a program of some twenty bytes, made here, which keeps what Python has given up for
it: capabilities, new privileges, system calls.

The program's file can be run and not read, not even by its owner: so the kernel lets nobody of the same user look into
the process, as for any program that may hide something (`would_dump` in fs/exec.c).
"""

from __future__ import annotations

import errno
import os
import signal
import struct
from typing import NoReturn

from . import linux

# for (;;) pause();  where there is no such call: ppoll(NULL, 0, NULL, NULL, 0)
_PAUSE = {
    "x86_64": (
        62,  # EM_X86_64
        b"\xb8\x22\x00\x00\x00"  # mov eax, 34 (pause)
        b"\x0f\x05"  # syscall
        b"\xeb\xf7",  # jmp to the beginning
    ),
    "aarch64": (
        183,  # EM_AARCH64
        struct.pack(
            "<8I",
            *(0xD2800000 | register for register in range(5)),  # movz x0…x4, #0
            0xD2800928,  # movz x8, #73 (ppoll)
            0xD4000001,  # svc #0
            0x17FFFFF9,  # b to the beginning
        ),
    ),
}

_BASE = 0x400000
_HEADERS_BYTES = 64 + 56


def program(place: str) -> int:
    """A descriptor of the program, for `become`. `place` is a directory to mount on for a moment. Raises OSError.

    Its file is on a file system that is mounted nowhere: it could be in memory without one, but for administrators who
    forbid programs there (vm.memfd_noexec).
    """
    machine = os.uname().machine
    if machine not in _PAUSE:
        raise OSError(errno.ENOEXEC, "there is no program to hold a room on %s" % machine)
    linux.mount("tmpfs", place, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=64k,nr_inodes=8,mode=0700")
    try:
        path = os.path.join(place, "room")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o111)
        os.write(fd, image(*_PAUSE[machine]))
        os.close(fd)
        return os.open(path, os.O_PATH | os.O_CLOEXEC)
    finally:
        linux.unmount(place)


def become(program_fd: int) -> NoReturn:
    """Run it in place of this process. Raises OSError."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.execve(program_fd, ["room"], {})  # noqa: S606  (no shell is wanted)


def image(machine: int, code: bytes) -> bytes:
    """An ELF file: its header, one segment that is the whole file, the code."""
    size = _HEADERS_BYTES + len(code)
    # e_ident, e_type EXEC, e_machine, e_version, e_entry, e_phoff, e_shoff, e_flags, sizes and counts of headers
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, machine, 1, _BASE + _HEADERS_BYTES, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    # p_type LOAD, p_flags read and execute, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x10000)
    return header + segment + code
