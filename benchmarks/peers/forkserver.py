"""`multiprocessing`'s forkserver with the modules preloaded: from `start()` to the first word of the child.

    python forkserver.py MODULES COUNT

prints a JSON list of seconds.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from multiprocessing.connection import Connection


def main() -> None:
    modules, count = list(filter(None, sys.argv[1].split(","))), int(sys.argv[2])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(modules)
    took = []
    for _ in range(count + 1):
        ours, theirs = context.Pipe()
        began = time.perf_counter()
        process = context.Process(target=Connection.send_bytes, args=(theirs, b"c"))
        process.start()
        ours.recv_bytes()
        took.append(time.perf_counter() - began)
        process.join()
    print(json.dumps(took[1:]))  # the first one waited for the server's imports


if __name__ == "__main__":
    main()
