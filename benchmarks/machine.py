"""Where figures come from: the machine and the versions of what was measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("mcp", "uvloop", "uvicorn", "websockets", "numpy", "pandas", "matplotlib", "ipykernel")


def describe(tier: str, preload: str) -> Mapping[str, str]:
    """What a reader needs to judge the figures. The load is of the minute in which this is called."""
    user = "root" if os.geteuid() == 0 else "an ordinary user"
    niceness = f" (niceness {os.nice(0)})" if os.nice(0) else ""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": (
            f"{len(os.sched_getaffinity(0))} processors ({_processor()}), {memory:.0f} GiB, "
            f"{platform.system()} {platform.release()} {platform.machine()}, as {user}, sandbox `{tier}`, "
            f"{preload} preloaded, load {os.getloadavg()[0]:.1f}{niceness}"
        ),
        "versions": ", ".join([f"CPython {platform.python_version()}", *map(_version, PACKAGES)]),
    }


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"
