"""The complete outputs of runs, on file: written by the host alone, through a directory descriptor, under a quota.

    <context's directory>/run-N/stdout
    <context's directory>/run-N/stderr

What fits into memory is not written before somebody is told of it (`RunOutputs.keep`). The quota holds for all contexts
of a sandbox together; where it is reached, the oldest runs go first, and a file that is gone is never named again. A
run that exceeds it alone keeps the head and the tail of its output, with a line between them that says what is missing.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mcp_server.model import StoredOutput, Stream
from mcp_server.sandbox.files import create_file, make_directory

SPILL_BYTES = 64 * 1024
"""Per stream: what is held in memory before a file is begun. A pipe holds as much."""

TAIL_BYTES = 256 * 1024
"""Per stream: how much of the end of an output over the quota is held in memory, and stored when the run ends."""


@dataclass(slots=True)
class OutputQuota:
    """What one sandbox may store. A single run may fill it, after everything older has gone."""

    limit_bytes: int
    used_bytes: int = 0
    runs: deque[RunOutputs] = field(default_factory=deque)

    def claim(self, claimant: RunOutputs, size: int) -> None:
        """Account for `size` more bytes, removing the oldest other runs until they fit."""
        self.used_bytes += size
        for run in [run for run in self.runs if run is not claimant]:
            if self.used_bytes <= self.limit_bytes:
                break
            run.remove()


class RunOutputs:
    """The two streams of one run. `open_context` opens its context's directory, which the code inside calls `path`."""

    def __init__(self, open_context: Callable[[], int], number: int, path: str, uri: str, quota: OutputQuota) -> None:
        self._open_context = open_context
        self._name = f"run-{number}"
        self._path = f"{path}/{self._name}"
        self._uri = f"{uri}/{number}"
        self._quota = quota
        self._stored_bytes = 0
        self._removed = False
        self._closed = False
        self._files: dict[Stream, _StreamFile] = {}

    @property
    def stored(self) -> bool:
        """Whether there are files."""
        return self in self._quota.runs

    def take(self, stream: Stream, data: bytes) -> None:
        """The next bytes of a stream. Raises OSError where they cannot be written."""
        if not self._removed:
            self._file(stream).write(data)

    def keep(self, stream: Stream) -> StoredOutput | None:
        """Put a stream on file, now and from now on. Where it is; None where it had to make room for newer runs."""
        file = self._file(stream)
        if self._removed or (file.closed and not file.begun):
            return None
        if not file.closed:
            file.flush()
        name = stream.value
        return StoredOutput(f"{self._uri}/{name}", f"{self._path}/{name}", file.complete)

    def put(self, name: str, data: bytes) -> StoredOutput | None:
        """Store something that the run showed, under a name of its own; None where there is no room for it."""
        if self._removed or self._closed or len(data) > self._quota.limit_bytes // len(Stream):
            return None
        file = _StreamFile(name, len(data), self._open, self._claim)
        file.write(data)
        file.flush()
        file.close()
        return StoredOutput(f"{self._uri}/{name}", f"{self._path}/{name}")

    def finish(self) -> None:
        """The run has ended, and nothing more will be taken. What is in memory can still be kept."""
        for file in self._files.values():
            file.finish()

    def close(self) -> None:
        """Every report has been given: forget what is in memory and hold no descriptor. The files stay. Idempotent."""
        self._closed = True
        for file in self._files.values():
            file.close()

    def remove(self) -> None:
        """Take the files away. Idempotent."""
        if self._removed:
            return
        self._removed = True
        self.close()
        if self.stored:
            self._quota.runs.remove(self)
            with self._directory() as directory_fd:
                for name in os.listdir(directory_fd):
                    os.unlink(name, dir_fd=directory_fd)
        self._quota.used_bytes -= self._stored_bytes

    def _file(self, stream: Stream) -> _StreamFile:
        file = self._files.get(stream)
        if file is None:
            most = self._quota.limit_bytes // len(Stream)
            file = self._files[stream] = _StreamFile(stream.value, most, self._open, self._claim)
            if self._closed:
                file.close()
        return file

    def _open(self, name: str) -> int:
        if not self.stored:
            self._quota.runs.append(self)
        with self._directory() as directory_fd:
            return create_file(directory_fd, name)

    @contextmanager
    def _directory(self) -> Iterator[int]:
        context_fd = self._open_context()
        try:
            directory_fd = make_directory(context_fd, self._name)
        finally:
            os.close(context_fd)
        try:
            yield directory_fd
        finally:
            os.close(directory_fd)

    def _claim(self, size: int) -> None:
        self._stored_bytes += size
        self._quota.claim(self, size)


class _StreamFile:
    """One stream: in memory, then in a file; beyond `most_bytes` its end is held in memory until the run ends."""

    def __init__(
        self, name: str, most_bytes: int, open_file: Callable[[str], int], claim: Callable[[int], None]
    ) -> None:
        self._name = name
        self._room = most_bytes
        self._open = open_file
        self._claim = claim
        self._memory = bytearray()
        self._fd: int | None = None
        self.begun = False
        self.closed = False
        self._tail = bytearray()
        self._missing_bytes = 0
        self._missing_lines = 0

    @property
    def complete(self) -> bool:
        return not self._missing_bytes

    def write(self, data: bytes) -> None:
        if self._fd is None and len(self._memory) + len(data) <= SPILL_BYTES:
            self._memory += data
        else:
            self.flush()
            self._append(data)

    def flush(self) -> None:
        if self._fd is None:
            self._fd = self._open(self._name)
            self.begun = True
        if self._memory:
            held, self._memory = bytes(self._memory), bytearray()
            self._append(held)

    def finish(self) -> None:
        if self._fd is not None:
            if self._missing_bytes:
                told = f"\n[{self._missing_bytes:,} bytes ({self._missing_lines:,} lines) are not stored]\n"
                self._write_all(told.encode())
            self._write_all(self._tail)
            self._tail = bytearray()

    def close(self) -> None:
        self.closed = True
        self._memory.clear()
        self._tail.clear()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _append(self, data: bytes) -> None:
        fits = data[: self._room]
        if fits:
            self._room -= len(fits)
            self._write_all(fits)
        if len(fits) < len(data):
            self._hold(data[len(fits) :])

    def _hold(self, data: bytes) -> None:
        self._tail += data
        over = len(self._tail) - TAIL_BYTES
        if over > TAIL_BYTES or (over > 0 and self._missing_bytes):
            self._missing_bytes += over
            self._missing_lines += self._tail.count(b"\n", 0, over)
            del self._tail[:over]

    def _write_all(self, data: bytes | bytearray) -> None:
        self._claim(len(data))
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd_open(), view) :]

    def _fd_open(self) -> int:
        if self._fd is None:
            raise ValueError("the file of a stream is not open")
        return self._fd
