"""The inner end of the sockets that carry packets (`frames`, last section)."""

from __future__ import annotations

import os
import socket
import struct
from typing import Any, Dict, List, NoReturn, Optional, Sequence, Tuple

from . import frames

# What `socket.send_fds` and `recv_fds` do, which import an array and cost each worker pages.
_SOCKETS = int(socket.SOL_SOCKET)
_RIGHTS = int(socket.SCM_RIGHTS)
_CLOSE_ON_EXEC = int(socket.MSG_CMSG_CLOEXEC)
_ROOM_FOR_FDS = socket.CMSG_SPACE(4 * frames.MAX_PACKET_FDS)


def receive(sock: socket.socket) -> Tuple[Optional[Dict[str, Any]], List[int]]:
    """The next message and its descriptors, which are the caller's; None at the end of the connection."""
    try:
        packet, ancillary, _, _ = sock.recvmsg(frames.MAX_PACKET_BYTES, _ROOM_FOR_FDS, _CLOSE_ON_EXEC)
    except ConnectionResetError:
        return None, []
    fds: List[int] = []
    for _, _, data in ancillary:  # of one kind, as no other was asked for
        fds += struct.unpack_from("=%di" % (len(data) // 4), data)
    return (frames.decode_packet(packet), fds) if packet else (None, fds)


def send(sock: socket.socket, message: Dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Raises OSError where the peer is gone."""
    rights = [(_SOCKETS, _RIGHTS, struct.pack("=%di" % len(fds), *fds))] if fds else []
    sock.sendmsg([frames.encode_packet(message)], rights)


def refuse(sock: socket.socket, text: str) -> NoReturn:
    """Tell the host why there will be no cell, and end."""
    send(sock, {"op": "failed", "worker": None, "text": text})
    os._exit(1)
