"""Answers each message on stdin's socket with as many bytes: the far end of a bare round trip.

python echo.py
"""

from __future__ import annotations

import socket

with socket.socket(fileno=0) as host:
    while data := host.recv(65536):
        host.sendall(data)
