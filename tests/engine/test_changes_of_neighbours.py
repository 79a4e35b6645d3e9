"""Two contexts of a sandbox share its files: what a run of one has made is not told again of a later run of the other,
though the kernel's stamps, which move every few milliseconds, do not tell the two apart."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import cast

import pytest

from mcp_server.engine import files
from mcp_server.engine.files import LocalFiles, SandboxFiles
from mcp_server.sandbox.cell import Cell
from mcp_server.sandbox.changes import moment_ns


class Place:
    """What the files of a sandbox ask of a cell."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def open_work(self, _sandbox: str) -> int:
        return os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)

    def open_outputs(self, _sandbox: str, _name: str) -> int:
        return os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)

    def outputs_dir(self, _sandbox: str, _name: str) -> str:
        return "/outputs"

    def work_dir(self, _sandbox: str) -> str:
        return "/work"


async def told(context: LocalFiles) -> list[str]:
    changes, _ = await context.changes(1.0)
    return [change.path for change in changes]


def test_a_file_is_told_once_of_the_run_that_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began_ns = moment_ns()
    monkeypatch.setattr(files, "moment_ns", lambda: began_ns)

    async def scene() -> None:
        sandbox = SandboxFiles(cast("Cell", Place(tmp_path)), "sandbox", 1 << 20)
        one, other = sandbox.of_context("ctx_1", "one"), sandbox.of_context("ctx_2", "other")
        await one.begin(1)
        (tmp_path / "made").write_text("1")
        assert await told(one) == ["/work/made"]
        await other.begin(1)
        assert await told(other) == []
        await other.begin(2)
        (tmp_path / "more").write_text("2")
        assert await told(other) == ["/work/more"]
        await one.begin(2)
        assert await told(one) == []
        sandbox.close()

    asyncio.run(scene())


def test_a_file_that_is_stamped_in_a_moment_to_come_is_told_once_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel does since Linux 6.13: its stamps are finer than the clock that stands still between two ticks."""
    moments = iter(range(moment_ns() - 60_000_000_000, moment_ns(), 4_000_000))
    monkeypatch.setattr(files, "moment_ns", lambda: next(moments))

    async def scene() -> None:
        sandbox = SandboxFiles(cast("Cell", Place(tmp_path)), "sandbox", 1 << 20)
        one, other = sandbox.of_context("ctx_1", "one"), sandbox.of_context("ctx_2", "other")
        await one.begin(1)
        (tmp_path / "made").write_text("1")
        assert await told(one) == ["/work/made"]
        for run in range(2, 5):
            for context in (one, other):
                await context.begin(run)
                assert await told(context) == []
        sandbox.close()

    asyncio.run(scene())


def test_what_an_earlier_run_of_the_moment_made_is_changed_and_not_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began_ns = moment_ns()
    monkeypatch.setattr(files, "moment_ns", lambda: began_ns)

    async def scene() -> None:
        sandbox = SandboxFiles(cast("Cell", Place(tmp_path)), "sandbox", 1 << 20)
        context = sandbox.of_context("ctx_1", "one")
        kinds = []
        for run in (1, 2):
            await context.begin(run)
            path = tmp_path / "made"
            path.write_text(str(run))
            while path.stat().st_ctime_ns < began_ns + run * 20_000_000:  # a stamp of its own, some ticks later
                path.chmod(0o600)
            changes, _ = await context.changes(1.0)
            kinds += [change.kind for change in changes]
        assert kinds == ["new", "changed"]
        sandbox.close()

    asyncio.run(scene())


def test_runs_side_by_side_are_both_told_of_what_came_meanwhile(tmp_path: Path) -> None:
    async def scene() -> None:
        sandbox = SandboxFiles(cast("Cell", Place(tmp_path)), "sandbox", 1 << 20)
        one, other = sandbox.of_context("ctx_1", "one"), sandbox.of_context("ctx_2", "other")
        await one.begin(1)
        await other.begin(1)
        (tmp_path / "made").write_text("1")
        assert await told(one) == await told(other) == ["/work/made"]
        sandbox.close()

    asyncio.run(scene())
