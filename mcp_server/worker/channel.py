"""The worker's end of the control socket: whole frames in, whole frames out."""

from __future__ import annotations

import builtins
import select
import socket
import threading

from .frames import Decoder, Frame
from .interrupts import Interrupts

# User code may delete or replace builtins; what ends a run must not notice.
globals()["__builtins__"] = dict(vars(builtins))

_READ_BYTES = 64 * 1024
"""Above any ordinary request, and small enough that the allocator need not map pages for each read."""


class Channel:
    """One peer, one reader. Any thread may show something while a run is on; after its end frame none may."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._decoder = Decoder()
        self._waiting: list[Frame] = []
        self._interrupts = interrupts
        self._lock = threading.Lock()
        self._is_open = False
        self._delayed = b""
        self._poll = select.poll()

    def open(self, control: socket.socket) -> None:
        """The peer is there; before, nothing can be received or sent."""
        control.setblocking(True)
        self._poll.register(control, select.POLLIN)
        self._socket = control
        self._wait = self._poll.poll
        self._receive = control.recv
        self._send = control.sendall

    def receive(self) -> Frame | None:
        """The next frame, or None at the end of the stream. Raises FrameError for bytes that are no frame."""
        while not self._waiting:
            self._wait()  # a blocking read is woken up when the peer has read, too, and that costs the peer 15 µs
            data = self._receive(_READ_BYTES)
            if not data:
                return None
            self._waiting = self._decoder.feed(data)
        return self._waiting.pop(0)

    def answer(self, data: bytes) -> None:
        """Send a frame that no run owns."""
        self._send(data)

    def begin(self) -> None:
        """From here to `end`, `show` sends."""
        self._is_open = True

    def show(self, data: bytes) -> bool:
        """Send an event of the run, from any thread, whole whatever signals arrive. False where no run is on."""
        with self._interrupts.shield(), self._lock:
            if self._is_open:
                data, self._delayed = self._delayed + data, b""
                self._send(data)
            return self._is_open

    def show_with_next(self, data: bytes) -> None:
        """As `show`, for the run's own thread at its end: the frame leaves together with the one after it."""
        self._delayed += data

    def end(self, data: bytes) -> None:
        """Send the frame that ends the run; nothing follows it."""
        with self._lock:
            self._is_open = False
            data, self._delayed = self._delayed + data, b""
            self._send(data)

    def abandon(self) -> None:
        """In a forked child: the socket belongs to the parent, whose death its peer must see."""
        self._is_open = False
        self._delayed = b""
        self._lock = threading.Lock()
        self._socket.close()
