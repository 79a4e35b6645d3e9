"""A warm process that draws a figure: what matplotlib itself takes, with nothing around it.

    python matplotlib_figure.py CODE

Runs the code, which leaves a figure open, and saves that as a PNG trimmed to what is on it; answers `ready` on stdin's
socket when it has done so twice, then does it again for each byte that comes, and answers one.
"""

from __future__ import annotations

import io
import socket
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt


def draw(code: str) -> None:
    exec(code, {})
    plt.gcf().savefig(io.BytesIO(), format="png", bbox_inches="tight")
    plt.close("all")


def main(code: str) -> None:
    draw(code)
    draw(code)
    with socket.socket(fileno=0) as host:
        host.sendall(b"r")
        while host.recv(1):
            draw(code)
            host.sendall(b"d")


mpl.use("Agg")
main(sys.argv[1])
