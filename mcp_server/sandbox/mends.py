"""What to do about a layer that does not work here: exact commands and settings. Pure.

Which mend is right depends on the machine around: a container's runtime, AppArmor, a distribution's own switch. These
facts choose between texts; whether a layer works was found by trying it, not from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Facts that choose a mend. ``userns_*`` are sysctls; None where the kernel has no such switch."""

    root: bool = False
    container: bool = False
    kernel: str = ""
    python: str = "/usr/bin/python3"
    userns_clone: int | None = None
    userns_apparmor: int | None = None
    userns_most: int | None = None


_APPARMOR = """\
Allow this interpreter user namespaces by an AppArmor profile (or all programs: `sysctl -w \
kernel.apparmor_restrict_unprivileged_userns=0`). As root: write to /etc/apparmor.d/mcp-code-interpreter
    abi <abi/4.0>,
    include <tunables/global>
    profile mcp-code-interpreter {python} flags=(unconfined) {{
      userns,
    }}
and run `apparmor_parser -r /etc/apparmor.d/mcp-code-interpreter`."""

_CONTAINER_NAMESPACES = (
    "Start the container with `--security-opt seccomp=unconfined --security-opt apparmor=unconfined "
    "--security-opt systempaths=unconfined` (Kubernetes: seccompProfile Unconfined, procMount Unmasked)."
)

_KERNEL_NAMESPACES = "Use a kernel built with CONFIG_USER_NS, CONFIG_PID_NS, CONFIG_NET_NS and CONFIG_IPC_NS."

_LANDLOCK = (
    "Use Linux 6.12 or newer (Landlock ABI 6), built with CONFIG_SECURITY_LANDLOCK and started with `landlock` in "
    "the boot parameter `lsm=`."
)

_BUBBLEWRAP = "Install it: `apt-get install bubblewrap` (Debian, Ubuntu), `dnf install bubblewrap` (Fedora)."

_CGROUP = (
    "Let the server make memory groups: start it with `systemd-run --user --scope -p Delegate=yes` before its command, "
    "or as root in a group of its own. Until then a watchdog measures memory, which holds against accidents only."
)

_CONTAINER_MEMORY = (
    "Limit what the server is in as a whole: a container by `--memory 8g`, say; in a unit with `Delegate=yes` the "
    "kernel limits each context. Here a watchdog measures each, which holds against accidents only."
)

_OLD_KERNEL = "Use Linux {needed} or newer (this is {kernel}), and no filter that refuses the call."

_UNITS_FILTERS = " In a unit of systemd's, RestrictSUIDSGID and DynamicUser are such a filter."

_FIXED: Mapping[str, str] = {
    "seccomp": "Use a kernel with CONFIG_SECCOMP_FILTER, on x86_64 or aarch64, and a 64-bit interpreter.",
    "capabilities": "Remove what keeps this process from giving up capabilities: a filter on capset or prctl.",
    "bubblewrap_capabilities": "Nothing needs it; where namespaces work at all, bwrap is not used.",
}


def mend(layer: str, error: str, around: Surroundings) -> str:
    """What makes `layer` work, given the error that it failed with."""
    if layer in ("user_namespace", "mounts", "pid_namespace", "network_namespace", "rooms"):
        return _mend_namespaces(around)
    if layer == "id_range":
        return (
            _CONTAINER_NAMESPACES
            if around.container
            else "Give root the capabilities SETUID, SETGID and SETFCAP, or start the server as an ordinary user."
        )
    if layer == "landlock":
        return f"{_LANDLOCK} This is Linux {around.kernel}."
    if layer == "bubblewrap":
        if "nknown option" in error:
            return "Use bubblewrap 0.8 or newer."
        if "what root started" in error:
            return "Start the server as an ordinary user."
        return _BUBBLEWRAP if "not on the PATH" in error else _mend_namespaces(around)
    if layer in ("pidfd", "openat2"):
        needed = {"pidfd": "5.3", "openat2": "5.6"}[layer]
        return _OLD_KERNEL.format(needed=needed, kernel=around.kernel) + (_UNITS_FILTERS if layer == "openat2" else "")
    if layer == "memory_group":
        return _CONTAINER_MEMORY if around.container else _CGROUP
    return _FIXED[layer]


def _mend_namespaces(around: Surroundings) -> str:
    if around.userns_most == 0:
        return "Allow user namespaces: `sysctl -w user.max_user_namespaces=15000`."
    if around.userns_clone == 0 and not around.root:
        return "Allow user namespaces: `sysctl -w kernel.unprivileged_userns_clone=1`."
    if around.container:
        return _CONTAINER_NAMESPACES
    if around.userns_apparmor:
        return _APPARMOR.format(python=around.python)
    return _KERNEL_NAMESPACES
