"""The inner end of the sockets that carry packets (`frames`, last section)."""

from __future__ import annotations

import os
import socket
from typing import Any, Dict, List, NoReturn, Optional, Sequence, Tuple

from . import frames


def receive(sock: socket.socket) -> Tuple[Optional[Dict[str, Any]], List[int]]:
    """The next message and its descriptors, which are the caller's; None at the end of the connection."""
    try:
        packet, fds, _, _ = socket.recv_fds(
            sock, frames.MAX_PACKET_BYTES, frames.MAX_PACKET_FDS, socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError:
        return None, []
    return (frames.decode_packet(packet), fds) if packet else (None, fds)


def send(sock: socket.socket, message: Dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Raises OSError where the peer is gone."""
    socket.send_fds(sock, [frames.encode_packet(message)], fds)


def refuse(sock: socket.socket, text: str) -> NoReturn:
    """Tell the host why there will be no cell, and end."""
    send(sock, {"op": "failed", "worker": None, "text": text})
    os._exit(1)
