"""Files that a run made or changed, found by their times."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mcp_server.model import FileChange
from mcp_server.sandbox import changes
from mcp_server.sandbox.changes import find_changes, is_unchanged, moment_ns, usage


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "old.txt").write_text("old")
    (tmp_path / "sub/edited.csv").write_text("a,b")
    return tmp_path


@pytest.fixture
def work_fd(work: Path) -> Iterator[int]:
    fd = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def later() -> int:
    """A moment that is surely after what has been written so far."""
    written = time.time_ns()
    while moment_ns() <= written:  # the clock of the stamps lags behind the exact one
        time.sleep(0.001)
    return moment_ns()


def test_new_and_changed_files_are_found_with_their_size_and_type(work: Path, work_fd: int) -> None:
    since = later()
    (work / "sub/edited.csv").write_text("a,b\n1,2")
    (work / "plot.png").write_bytes(b"PNG")
    found = find_changes(work_fd, since, "/work/")
    assert found.files == (
        FileChange("/work/plot.png", "new", 3, "image/png"),
        FileChange("/work/sub/edited.csv", "changed", 7, "text/csv"),
    )
    assert not found.incomplete


def test_a_change_is_told_once_though_the_next_run_begins_in_the_same_moment(work: Path, work_fd: int) -> None:
    since = later()
    (work / "first.txt").write_text("1")
    first = find_changes(work_fd, since)
    (work / "second.txt").write_text("2")
    second = find_changes(work_fd, since, told=first.stamps)
    assert [change.path for change in second.files] == ["second.txt"]


def test_nothing_changed_is_nothing_found(work: Path, work_fd: int) -> None:
    assert find_changes(work_fd, later()).files == ()


def test_a_change_that_hides_its_time_is_found(work: Path, work_fd: int) -> None:
    since = later()
    (work / "old.txt").write_text("new")
    os.utime(work / "old.txt", (0, 0))
    assert [change.path for change in find_changes(work_fd, since).files] == ["old.txt"]


def test_links_are_not_followed_and_what_is_no_file_is_not_listed(work: Path, work_fd: int, tmp_path: Path) -> None:
    since = later()
    (work / "link").symlink_to("/etc/passwd")
    (work / "loop").symlink_to(work)
    os.mkfifo(work / "fifo")
    assert find_changes(work_fd, since).files == ()


def test_directories_that_fill_by_themselves_are_passed_over(work: Path, work_fd: int) -> None:
    since = later()
    (work / "__pycache__").mkdir()
    (work / "__pycache__/x.pyc").write_bytes(b"x")
    assert find_changes(work_fd, since).files == ()


def test_a_look_at_a_large_directory_is_bounded_and_says_so(
    work: Path, work_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "MAX_ENTRIES", 50)
    for number in range(100):
        (work / f"file{number}").touch()
    found = find_changes(work_fd, 0)
    assert "50" in found.incomplete
    assert len(found.files) <= 50


def test_a_path_of_any_depth_is_survived(work: Path, work_fd: int) -> None:
    at = os.open(work, os.O_RDONLY)
    for _ in range(changes.MAX_DEPTH + 20):
        os.mkdir("d", dir_fd=at)
        inner = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)
    before = len(os.listdir("/proc/self/fd"))
    find_changes(work_fd, 0)
    assert len(os.listdir("/proc/self/fd")) == before


def test_usage_tells_that_a_file_came(work: Path, work_fd: int) -> None:
    before = usage(work_fd)
    (work / "another").write_text("x" * 10_000)
    assert usage(work_fd) != before


def hide_the_time(work: Path) -> None:
    (work / "old.txt").write_text("x")
    os.utime(work / "old.txt", (0, 0))


def put_a_link_in_place_of_a_directory(work: Path) -> None:
    (work / "sub").rename(work.parent / "elsewhere")
    (work / "sub").symlink_to(work.parent / "elsewhere")


CHANGES: dict[str, Callable[[Path], object]] = {
    "a new file": lambda work: (work / "new").touch(),
    "a new file further down": lambda work: (work / "sub/deep/new").touch(),
    "a new directory": lambda work: (work / "sub/more").mkdir(),
    "a new link": lambda work: (work / "sub/link").symlink_to("/etc/passwd"),
    "another content": lambda work: (work / "sub/edited.csv").write_text("c,d"),
    "a content that hides its time": hide_the_time,
    "another mode": lambda work: (work / "sub/deep").chmod(0o700),
    "a file less": lambda work: (work / "sub/edited.csv").unlink(),
    "another name": lambda work: (work / "sub/deep").rename(work / "sub/deeper"),
    "a link in place of a directory": put_a_link_in_place_of_a_directory,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_whatever_changes_is_noticed_without_a_look_and_nothing_else_is(
    work: Path, work_fd: int, change: Callable[[Path], object]
) -> None:
    (work / "sub/deep").mkdir()
    later()
    places = find_changes(work_fd, later(), "/work/").places
    assert is_unchanged(work_fd, places)
    descriptors = len(os.listdir("/proc/self/fd"))
    change(work)
    assert not is_unchanged(work_fd, places)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_where_a_change_could_bear_the_stamp_of_the_last_look_it_says_nothing(work: Path, work_fd: int) -> None:
    while True:
        began = moment_ns()
        (work / "new").write_text("1")
        places = find_changes(work_fd, began).places
        if moment_ns() == began:  # all of that was in one moment
            break
    assert places == ()
    assert not is_unchanged(work_fd, places)


def test_a_look_that_was_cut_short_says_nothing_of_the_rest(
    work: Path, work_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "MAX_ENTRIES", 1)
    later()
    assert find_changes(work_fd, later()).places == ()
