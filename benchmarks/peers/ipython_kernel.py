"""An ipykernel through jupyter_client: until it is ready, what `1+1` takes, and what it holds.

    python ipython_kernel.py STARTS RUNS

prints a JSON object: seconds of each start, seconds of each run in the last kernel, and that one's own memory in bytes.
"""

from __future__ import annotations

import json
import sys
import time

from jupyter_client.manager import KernelManager


def main() -> None:
    starts, runs = int(sys.argv[1]), int(sys.argv[2])
    ready: list[float] = []
    run: list[float] = []
    own_bytes = 0
    for number in range(starts):
        began = time.perf_counter()
        manager = KernelManager()
        manager.start_kernel()
        client = manager.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        ready.append(time.perf_counter() - began)
        if number == starts - 1:
            own_bytes = own_memory(manager.provisioner.pid)  # type: ignore[union-attr]  # the local provisioner has one
            for _ in range(runs):
                began = time.perf_counter()
                client.execute("1+1", reply=True, timeout=60)
                run.append(time.perf_counter() - began)
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    print(json.dumps({"ready_s": ready, "run_s": run, "own_bytes": own_bytes}))


def own_memory(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as lines:
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


main()
