"""Complete outputs on file: when they are written, what a quota leaves of them, and what goes first."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.model import StoredOutput, Stream
from mcp_server.sandbox.outputs import SPILL_BYTES, TAIL_BYTES, OutputQuota, RunOutputs

MIB = 1024 * 1024


@pytest.fixture
def context_fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def outputs(context_fd: int, number: int, quota: OutputQuota) -> RunOutputs:
    return RunOutputs(lambda: os.dup(context_fd), number, "/outputs", "run://ctx_x", quota)


def test_a_small_output_is_written_only_when_somebody_is_told_of_it(context_fd: int, tmp_path: Path) -> None:
    run = outputs(context_fd, 3, OutputQuota(MIB))
    run.take(Stream.STDOUT, b"hello\n")
    run.finish()
    assert list(tmp_path.iterdir()) == []
    told = run.keep(Stream.STDOUT)
    assert told == StoredOutput("run://ctx_x/3/stdout", "/outputs/run-3/stdout", complete=True)
    assert (tmp_path / "run-3/stdout").read_bytes() == b"hello\n"
    assert not (tmp_path / "run-3/stderr").exists()


def test_a_large_output_is_written_as_it_comes(context_fd: int, tmp_path: Path) -> None:
    run = outputs(context_fd, 1, OutputQuota(MIB))
    run.take(Stream.STDERR, b"x" * (SPILL_BYTES + 1))
    assert (tmp_path / "run-1/stderr").stat().st_size == SPILL_BYTES + 1
    run.take(Stream.STDERR, b"y")
    run.finish()
    run.close()
    assert (tmp_path / "run-1/stderr").read_bytes().endswith(b"xy")


def test_an_output_over_the_quota_keeps_head_and_tail_and_says_what_is_missing(context_fd: int, tmp_path: Path) -> None:
    lines = [b"%07d\n" % number for number in range(500_000)]
    run = outputs(context_fd, 1, OutputQuota(2 * MIB))
    for start in range(0, len(lines), 1000):
        run.take(Stream.STDOUT, b"".join(lines[start : start + 1000]))
    run.finish()
    told = run.keep(Stream.STDOUT)
    assert told is not None
    assert not told.complete
    stored = (tmp_path / "run-1/stdout").read_bytes()
    assert stored.startswith(b"".join(lines[: MIB // 8]))
    assert stored.endswith(b"".join(lines[-TAIL_BYTES // 8 :]))
    (gap,) = [line for line in stored.splitlines() if b"not stored" in line]
    missing = sum(map(len, lines)) - (len(stored) - len(gap) - 2)
    assert gap == f"[{missing:,} bytes ({missing // 8:,} lines) are not stored]".encode()


def test_the_oldest_runs_make_room_for_newer_ones_and_are_not_named_again(context_fd: int, tmp_path: Path) -> None:
    quota = OutputQuota(4 * MIB)
    runs = [outputs(context_fd, number, quota) for number in range(1, 5)]
    for run in runs:
        run.take(Stream.STDOUT, b"x" * (3 * MIB // 2))
        run.finish()
        run.close()
    assert [path.parent.name for path in sorted(tmp_path.glob("*/*"))] == ["run-3", "run-4"]
    assert runs[0].keep(Stream.STDOUT) is None
    assert runs[3].keep(Stream.STDOUT) is not None
    assert quota.used_bytes == 3 * MIB


def test_removing_gives_the_room_back_and_takes_nothing_more(context_fd: int, tmp_path: Path) -> None:
    quota = OutputQuota(MIB)
    run = outputs(context_fd, 1, quota)
    run.take(Stream.STDOUT, b"x" * (SPILL_BYTES * 2))
    run.remove()
    run.remove()
    run.take(Stream.STDOUT, b"more")
    assert run.keep(Stream.STDOUT) is None
    assert quota == OutputQuota(MIB)
    assert list(tmp_path.glob("*/*")) == []


def test_a_closed_run_holds_no_descriptor(context_fd: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    run = outputs(context_fd, 1, OutputQuota(MIB))
    run.take(Stream.STDOUT, b"x" * (SPILL_BYTES * 2))
    run.keep(Stream.STDERR)
    run.finish()
    run.close()
    assert len(os.listdir("/proc/self/fd")) == before


@given(st.lists(st.binary(max_size=40_000), max_size=12))
def test_any_pieces_below_the_quota_are_stored_as_they_came(pieces: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            run = outputs(fd, 1, OutputQuota(8 * MIB))
            for piece in pieces:
                run.take(Stream.STDOUT, piece)
            run.finish()
            run.keep(Stream.STDOUT)
            run.close()
            assert Path(directory, "run-1/stdout").read_bytes() == b"".join(pieces)
        finally:
            os.close(fd)
