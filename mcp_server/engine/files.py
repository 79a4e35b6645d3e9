"""The files of one context on this machine: what its runs printed, and what they wrote."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import BinaryIO
from urllib.parse import quote

from mcp_server.errors import InvalidArgument
from mcp_server.model import FileChange, OutputPage, ResourceLink, Stream
from mcp_server.sandbox.cell import Cell
from mcp_server.sandbox.changes import Changes, Usage, find_changes, is_unchanged, moment_ns, usage
from mcp_server.sandbox.files import FileRefused, read_whole_file, regular_file
from mcp_server.sandbox.outputs import OutputQuota, RunOutputs
from mcp_server.shielding import shielded

TINY_RUN_S = 0.05
FEW_ENTRIES = 64
"""A run that short, which left the file system as full as it was, is not asked for its files, unless they are few."""

MANY_ENTRIES = 500
"""Beyond this, and where nobody has looked yet, a look is made in a thread, so that it holds nobody up."""

MAX_PAGE_LINES = 10_000
MAX_PAGE_BYTES = 1024 * 1024
"""Of one page of a stored output."""

_READ_BYTES = 256 * 1024


class SandboxFiles:
    """What the contexts of a sandbox share while their cell lives: the room for outputs, and their work directory."""

    def __init__(self, cell: Cell, sandbox_id: str, quota_bytes: int) -> None:
        self.cell = cell
        self._sandbox_id = sandbox_id
        self._quota = OutputQuota(quota_bytes)
        self._told = _Told()
        self._work_fd: asyncio.Task[int] | None = None

    def of_context(self, context_id: str, name: str) -> LocalFiles:
        """The files of the context that was spawned by that name."""
        return LocalFiles(
            context_id,
            lambda: self.cell.open_outputs(self._sandbox_id, name),
            self.cell.outputs_dir(self._sandbox_id, name),
            self._open_work,
            self.cell.work_dir(self._sandbox_id),
            self._quota,
            self._told,
        )

    def close(self) -> None:
        """Let go of the work directory. Idempotent."""
        opened, self._work_fd = self._work_fd, None
        if opened is not None:
            opened.add_done_callback(_close_result)

    async def _open_work(self) -> int:
        opening = self._work_fd
        if opening is not None and opening.done() and opening.exception() is None:
            return opening.result()
        if opening is None or opening.done():
            opening = self._work_fd = asyncio.get_running_loop().create_task(self.cell.open_work(self._sandbox_id))
        return await shielded(opening)


def _close_result(opened: asyncio.Task[int]) -> None:
    if not opened.cancelled() and opened.exception() is None:
        os.close(opened.result())


class _Told:
    """The changes that runs of a sandbox found and a later run could take for its own, by their stamps.

    A moment holds several runs; and since Linux 6.13 a file may be stamped ahead of the moment in which it is changed,
    in one that is still to come.
    """

    def __init__(self) -> None:
        self._stamps: frozenset[tuple[str, int]] = frozenset()

    def add(self, stamps: frozenset[tuple[str, int]]) -> None:
        self._stamps |= stamps

    def since(self, since_ns: int) -> frozenset[tuple[str, int]]:
        """Those that a run finds which begins at that moment. Of what is before it, no later run finds any."""
        self._stamps = frozenset(stamp for stamp in self._stamps if stamp[1] >= since_ns)
        return self._stamps


class LocalFiles:
    """See `engine.base.ContextFiles`.

    `open_outputs` opens the directory of the context's outputs, which its code calls `outputs_path`; `work_fd` gives
    the sandbox's work directory, which its code calls `work_path`.
    """

    def __init__(
        self,
        context_id: str,
        open_outputs: Callable[[], int],
        outputs_path: str,
        work_fd: Callable[[], Awaitable[int]],
        work_path: str,
        quota: OutputQuota,
        told_of_sandbox: _Told,
    ) -> None:
        self._context_id = context_id
        self._open_outputs = open_outputs
        self._outputs_path = outputs_path
        self._work_fd = work_fd
        self._work_path = work_path
        self._quota = quota
        self._runs: list[RunOutputs] = []
        self._since_ns = 0
        self._usage: Usage | None = None
        self._told = Changes()
        self._told_of_sandbox = told_of_sandbox
        self._told_before: frozenset[tuple[str, int]] = frozenset()
        self._looked = False

    async def begin(self, run: int) -> RunOutputs:
        work_fd = await self._work_fd()
        self._usage = usage(work_fd) if self._told.entries > FEW_ENTRIES else None
        self._since_ns = moment_ns()
        self._told_before = self._told_of_sandbox.since(self._since_ns) | self._told.stamps
        outputs = RunOutputs(self._open_outputs, run, self._outputs_path, f"run://{self._context_id}", self._quota)
        self._runs = [kept for kept in self._runs if kept.stored]
        self._runs.append(outputs)
        return outputs

    async def changes(self, elapsed_s: float) -> tuple[Sequence[FileChange], str]:
        work_fd = await self._work_fd()
        entries = self._told.entries
        if entries <= FEW_ENTRIES:
            untouched = is_unchanged(work_fd, self._told.places)
        else:
            untouched = elapsed_s < TINY_RUN_S and usage(work_fd) == self._usage
        if untouched:
            return (), ""
        look = (work_fd, self._since_ns, self._work_path + "/", self._told_before)
        if self._looked and entries <= MANY_ENTRIES:
            found = find_changes(*look)
        else:
            found = await asyncio.to_thread(find_changes, *look)
        self._told, self._looked = found, True
        self._told_of_sandbox.add(found.stamps)
        return found.files, found.incomplete

    async def read_output(self, run: int, stream: Stream, offset: int, limit: int) -> OutputPage:
        if offset < 0 or not 1 <= limit <= MAX_PAGE_LINES:
            raise InvalidArgument(f"offset must be 0 or more and limit from 1 to {MAX_PAGE_LINES:,}; both count lines.")
        return await asyncio.to_thread(self._read_page, f"run-{run}/{stream.value}", offset, limit)

    async def read_shown(self, run: int, name: str, limit_bytes: int) -> bytes:
        return await asyncio.to_thread(self._read_shown, f"run-{run}/{name}", limit_bytes)

    def link(self, change: FileChange) -> ResourceLink:
        beneath = change.path.removeprefix(self._work_path + "/")
        uri = f"work://{self._context_id}/{quote(beneath, errors='surrogateescape')}"
        return ResourceLink(uri, beneath, change.mime or "application/octet-stream", change.size_bytes)

    async def read_file(self, path: str, limit_bytes: int) -> bytes:
        return await asyncio.to_thread(read_whole_file, await self._work_fd(), path, limit_bytes)

    def remove(self) -> None:
        """Take away all stored outputs: the context is gone."""
        for outputs in self._runs:
            outputs.remove()
        self._runs.clear()

    def _read_shown(self, path: str, limit_bytes: int) -> bytes:
        directory_fd = self._open_outputs()
        try:
            return read_whole_file(directory_fd, path, limit_bytes)
        finally:
            os.close(directory_fd)

    def _read_page(self, path: str, offset: int, limit: int) -> OutputPage:
        directory_fd = self._open_outputs()
        try:
            with regular_file(directory_fd, path) as (fd, _):
                return read_lines(fd, offset, limit)
        except FileRefused as error:
            raise FileRefused(
                path, f"{error.reason}; outputs are stored where a report left some of them out, until newer ones come"
            ) from error
        finally:
            os.close(directory_fd)


def read_lines(fd: int, offset: int, limit: int) -> OutputPage:
    """Lines of a file of any size. A page over `MAX_PAGE_BYTES` ends early; a single line that long is cut."""
    with open(fd, "rb", closefd=False) as file:
        for _ in range(offset):
            if not _skip_line(file):
                return OutputPage("", offset, 0, more=False)
        lines: list[bytes] = []
        room = MAX_PAGE_BYTES
        while len(lines) < limit and room > 0:
            line = file.readline(room)
            if not line:
                break
            room -= len(line)
            if room == 0 and lines and not line.endswith(b"\n"):
                break  # it begins the next page
            lines.append(line)
        more = bool(file.read(1)) or room == 0
    return OutputPage(b"".join(lines).decode("utf-8", "replace"), offset, len(lines), more)


def _skip_line(file: BinaryIO) -> bool:
    """Whether there was one."""
    while piece := file.readline(_READ_BYTES):
        if piece.endswith(b"\n"):
            return True
    return False
