"""An imitation of a locked-down container: runs a command with what such a runtime leaves to it.

    python lockdown.py root|user|bwrap COMMAND…

No new namespaces, no mounts, no keys, no bpf (a seccomp program that answers EPERM, and ENOSYS to clone3), and of the
capabilities only those that container runtimes keep by default. `user` gives up root as well. `bwrap` is a user too,
but keeps all that bubblewrap needs: only the calls by which this server, and not bwrap, puts its mounts together are
refused. What it stands for, AppArmor that lets bwrap alone have capabilities in a user namespace, cannot be imitated.
"""

from __future__ import annotations

import csv
import ctypes
import os
import struct
import sys
from pathlib import Path

NUMBERS = Path(__file__).resolve().parents[2] / "tools" / "syscall_numbers.tsv"

REFUSED = (
    "unshare setns mount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr "
    "bpf perf_event_open keyctl add_key request_key userfaultfd io_uring_setup kexec_load init_module finit_module "
    "quotactl"
)
REFUSED_BESIDE_BWRAP = "open_tree move_mount mount_setattr"
NEW_NAMESPACES = 0x7E020000
EPERM, ENOSYS, ALLOW = 0x00050001, 0x00050026, 0x7FFF0000

# chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw mknod audit_write setfcap
KEPT_CAPABILITIES = (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 27, 29, 31)
LAST_CAPABILITY = 63

PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 22, 24, 38
SECCOMP_MODE_FILTER = 2
CAPABILITY_VERSION_3 = 0x20080522
SOME_USER = 65534

libc = ctypes.CDLL(None, use_errno=True)


def numbers() -> dict[str, int]:
    with NUMBERS.open(newline="") as file:
        file.readline()
        rows = csv.DictReader(file, delimiter="\t")
        return {row["name"]: int(row[os.uname().machine]) for row in rows if row[os.uname().machine] != "-"}


def program(refused: str, namespaces: bool) -> bytes:
    """Classic BPF: load the number, then for each refused one `if equal, return EPERM`."""
    known = numbers()
    code = [(0x20, 0, 0, 0)]
    for name in refused.split():
        code += [(0x15, 0, 1, known[name]), (0x06, 0, 0, EPERM)]
    if not namespaces:
        code += [(0x15, 0, 1, known["clone3"]), (0x06, 0, 0, ENOSYS)]
        code += [(0x15, 0, 3, known["clone"]), (0x20, 0, 0, 16), (0x45, 0, 1, NEW_NAMESPACES), (0x06, 0, 0, EPERM)]
    code += [(0x06, 0, 0, ALLOW)]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def checked(result: int, what: str) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), what)


def lock_down(mode: str) -> None:
    if mode == "root":
        for capability in range(LAST_CAPABILITY + 1):
            if capability not in KEPT_CAPABILITIES and libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
                break
        low = sum(1 << capability for capability in KEPT_CAPABILITIES)
        header = struct.pack("Ii", CAPABILITY_VERSION_3, 0)
        checked(libc.capset(header, struct.pack("6I", low, low, 0, 0, 0, 0)), "capset")
    elif os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(SOME_USER, SOME_USER, SOME_USER)
        os.setresuid(SOME_USER, SOME_USER, SOME_USER)
    checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    text = program(REFUSED_BESIDE_BWRAP if mode == "bwrap" else REFUSED, namespaces=mode == "bwrap")
    buffer = ctypes.create_string_buffer(text, len(text))
    handle = struct.pack("HxxxxxxP", len(text) // 8, ctypes.addressof(buffer))
    checked(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(handle), 0, 0), "seccomp")


if __name__ == "__main__":
    lock_down(sys.argv[1])
    os.execvp(sys.argv[2], sys.argv[2:])
