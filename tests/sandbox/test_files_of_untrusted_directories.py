"""What the host does with a directory whose content somebody else controls."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mcp_server.errors import CallerError
from mcp_server.sandbox.files import (
    FileRefused,
    create_file,
    make_directory,
    open_beneath,
    read_file,
    read_whole_file,
    regular_file,
)

SECRET = "the server's secret"


@pytest.fixture
def untrusted(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text(SECRET)
    inside = tmp_path / "untrusted"
    (inside / "deep" / "er").mkdir(parents=True)
    (inside / "plain.txt").write_bytes(b"0123456789")
    (inside / "deep" / "er" / "file").write_bytes(b"deep")
    return inside


@pytest.fixture
def directory_fd(untrusted: Path) -> Iterator[int]:
    fd = os.open(untrusted, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def symlink_to_secret(inside: Path) -> str:
    (inside / "link").symlink_to(inside.parent / "secret")
    return "link"


def symlink_to_neighbour(inside: Path) -> str:
    (inside / "link").symlink_to("plain.txt")
    return "link"


def directory_symlink(inside: Path) -> str:
    (inside / "deep" / "up").symlink_to("../..")
    return "deep/up/secret"


def fifo(inside: Path) -> str:
    os.mkfifo(inside / "fifo")
    return "fifo"


def unix_socket(inside: Path) -> str:
    before = os.getcwd()
    os.chdir(inside)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    os.chdir(before)
    return "socket"


def device(inside: Path) -> str:
    if os.geteuid() != 0:
        pytest.skip("making a device takes root")
    os.mknod(inside / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    return "null"


TRAPS: list[tuple[Callable[[Path], str], str]] = [
    (symlink_to_secret, "symbolic link"),
    (symlink_to_neighbour, "symbolic link"),
    (directory_symlink, "symbolic link"),
    (fifo, "FIFO"),
    (unix_socket, "socket"),
    (device, "device"),
    (lambda inside: "deep", "directory"),
    (lambda inside: ".", "directory"),
    (lambda inside: "../secret", "out of the directory"),
    (lambda inside: "deep/../../secret", "out of the directory"),
    (lambda inside: str(inside.parent / "secret"), "out of the directory"),
    (lambda inside: "/proc/self/environ", "out of the directory"),
    (lambda inside: "missing", "no such file"),
    (lambda inside: "plain.txt/below", "no directory"),
    (lambda inside: "plain.txt\0.png", "NUL"),
    (lambda inside: "n" * 300, "too long"),
    (lambda inside: "", "no such file"),
]


@pytest.mark.parametrize(("lay", "reason"), TRAPS)
def test_a_trap_is_refused_with_its_reason(
    untrusted: Path, directory_fd: int, lay: Callable[[Path], str], reason: str
) -> None:
    path = lay(untrusted)
    with pytest.raises(FileRefused) as refusal:
        read_file(directory_fd, path, 100)
    assert reason in str(refusal.value)
    assert SECRET not in str(refusal.value)
    assert isinstance(refusal.value, CallerError)


def test_files_in_the_directory_and_below_are_read(directory_fd: int) -> None:
    assert read_file(directory_fd, "plain.txt", 100).data == b"0123456789"
    assert read_file(directory_fd, "deep/er/file", 100).data == b"deep"
    assert read_file(directory_fd, "deep/../plain.txt", 100).complete


@pytest.mark.parametrize(
    ("limit", "offset", "expected"),
    [(4, 0, b"0123"), (4, 8, b"89"), (0, 0, b""), (4, 10, b""), (4, 99, b""), (100, 3, b"3456789")],
)
def test_an_excerpt_is_bounded_by_offset_and_limit(directory_fd: int, limit: int, offset: int, expected: bytes) -> None:
    excerpt = read_file(directory_fd, "plain.txt", limit, offset)
    assert (excerpt.data, excerpt.offset, excerpt.size_bytes) == (expected, offset, 10)
    assert excerpt.complete == (len(expected) == 10)


def test_an_excerpt_larger_than_one_read_is_whole(untrusted: Path, directory_fd: int) -> None:
    content = os.urandom(3 * 1024 * 1024 + 7)
    (untrusted / "large").write_bytes(content)
    assert read_whole_file(directory_fd, "large", len(content)) == content


def test_a_sparse_giant_costs_no_more_than_what_is_read(untrusted: Path, directory_fd: int) -> None:
    with (untrusted / "giant").open("wb") as file:
        file.truncate(1 << 40)
    excerpt = read_file(directory_fd, "giant", 1000, offset=1 << 39)
    assert excerpt.data == bytes(1000)
    assert excerpt.size_bytes == 1 << 40
    with pytest.raises(FileRefused, match="1,099,511,627,776 bytes, and 1,000 is the limit"):
        read_whole_file(directory_fd, "giant", 1000)


def test_a_file_that_is_moved_out_while_it_is_read_gives_no_other_file(untrusted: Path, directory_fd: int) -> None:
    """A racing exchange of the file for a link to the secret: each read gives the file or a refusal."""
    (untrusted / "link").symlink_to(untrusted.parent / "secret")
    stop = threading.Event()

    def exchange() -> None:
        while not stop.is_set():
            for source in ("link", "plain"):
                os.link(untrusted / f"{source}", untrusted / "next", follow_symlinks=False)
                os.replace(untrusted / "next", untrusted / "racing")
                (untrusted / "next").unlink(missing_ok=True)

    (untrusted / "plain").write_bytes(b"plain")
    (untrusted / "racing").write_bytes(b"plain")
    racer = threading.Thread(target=exchange)
    racer.start()
    try:
        for _ in range(2000):
            with suppress(FileRefused):
                assert read_file(directory_fd, "racing", 100).data == b"plain"
    finally:
        stop.set()
        racer.join()


def test_a_lease_does_not_hold_the_host_up(untrusted: Path, directory_fd: int) -> None:
    """Opening a leased file waits up to 45 s for the holder, unless the open does not block."""
    told = signal.signal(signal.SIGIO, signal.SIG_IGN)
    holder = os.open(untrusted / "plain.txt", os.O_RDWR)
    try:
        fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        with pytest.raises(FileRefused, match="lease"):
            read_file(directory_fd, "plain.txt", 100)
    finally:
        os.close(holder)
        signal.signal(signal.SIGIO, told)


def test_the_descriptor_neither_blocks_nor_passes_exec(directory_fd: int) -> None:
    with regular_file(directory_fd, "plain.txt") as (fd, status):
        assert not os.get_blocking(fd)
        assert not os.get_inheritable(fd)
        assert status.st_size == 10
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_refused_file_leaves_no_descriptor_open(untrusted: Path, directory_fd: int) -> None:
    fifo(untrusted)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileRefused):
        read_file(directory_fd, "fifo", 100)
    assert os.listdir("/proc/self/fd") == before


def test_outputs_are_made_only_where_nothing_is(untrusted: Path, directory_fd: int) -> None:
    run = make_directory(directory_fd, "run-1")
    file = create_file(run, "stdout")
    os.write(file, b"output")
    os.close(file)
    assert (untrusted / "run-1" / "stdout").read_bytes() == b"output"
    with pytest.raises(FileRefused, match="exists already"):
        create_file(run, "stdout")
    os.close(run)
    again = make_directory(directory_fd, "run-1")
    assert os.listdir(again) == ["stdout"]
    os.close(again)


def test_outputs_are_not_written_through_links(untrusted: Path, directory_fd: int) -> None:
    (untrusted / "stdout").symlink_to(untrusted.parent / "victim")
    (untrusted / "run-1").symlink_to(untrusted.parent)
    with pytest.raises(FileRefused):
        create_file(directory_fd, "stdout")
    with pytest.raises(FileRefused):
        make_directory(directory_fd, "run-1")
    assert not (untrusted.parent / "victim").exists()


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "deep/er", "/tmp/absolute"])
def test_outputs_have_plain_names(directory_fd: int, name: str) -> None:
    with pytest.raises(FileRefused, match="plain name"):
        create_file(directory_fd, name)
    with pytest.raises(FileRefused, match="plain name"):
        make_directory(directory_fd, name)


def test_what_is_not_the_paths_fault_is_not_a_refusal(directory_fd: int) -> None:
    with pytest.raises(OSError, match="openat2: Bad file descriptor"):
        open_beneath(1 << 20, "plain.txt", os.O_RDONLY)
