"""A warm process that is forked bare: what a context costs with no sandbox, no pipes and no protocol.

    python warm_fork.py MODULES

Imports the modules (separated by commas), answers `ready` on stdin's socket, then forks for each byte that comes; the
child answers one byte and ends.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import sys


def main() -> None:
    for name in filter(None, sys.argv[1].split(",")):
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=0) as host:
        host.sendall(b"r")
        while host.recv(1):
            if os.fork() == 0:
                host.sendall(b"c")
                os._exit(0)


main()
