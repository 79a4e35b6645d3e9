"""The host's end of the socket to a zygote: packets with descriptors, never blocking the loop."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from mcp_server.worker import frames


class Channel:
    """Sends packets in order, and hands each received one, with its descriptors, to `on_packet`.

    `on_packet` owns the descriptors. `on_end` is called once, when the peer is gone or broke the wire's rules.
    """

    def __init__(
        self, sock: socket.socket, on_packet: Callable[[dict[str, Any], list[int]], None], on_end: Callable[[str], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._on_packet = on_packet
        self._on_end = on_end
        self._outbox: deque[tuple[bytes, Sequence[int]]] = deque()
        sock.setblocking(False)
        self._loop.add_reader(sock, self._receive)

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send now or as soon as there is room. The descriptors must stay open until the message is answered."""
        self._outbox.append((frames.encode_packet(message), fds))
        if len(self._outbox) == 1:
            self._flush()

    @property
    def closed(self) -> bool:
        return self._sock.fileno() == -1

    def finish(self) -> None:
        """Hand on what a peer that is gone had still sent, then close."""
        while not self.closed and self._receive():
            pass
        self.close()

    def close(self) -> None:
        if not self.closed:
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()

    def _flush(self) -> None:
        while self._outbox:
            packet, fds = self._outbox[0]
            try:
                socket.send_fds(self._sock, [packet], fds)
            except BlockingIOError:
                self._loop.add_writer(self._sock, self._flush)
                return
            except OSError as error:
                self._end(f"sending to it failed: {error.strerror}")
                return
            self._outbox.popleft()
        self._loop.remove_writer(self._sock)

    def _receive(self) -> bool:
        """Take one packet, if there is one. False where there is none, or no more."""
        try:
            packet, fds, _, _ = socket.recv_fds(
                self._sock, frames.MAX_PACKET_BYTES, frames.MAX_PACKET_FDS, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True  # said once, where the peer ended before it read everything; what it had sent comes after
        if not packet:
            self._end("it closed its connection")
            return False
        try:
            message = frames.decode_packet(packet)
        except frames.FrameError as error:
            for fd in fds:
                os.close(fd)
            self._end(f"it sent what is no packet ({error})")
            return False
        self._on_packet(message, fds)
        return True

    def _end(self, why: str) -> None:
        self.close()
        self._on_end(why)
