"""The server on a Unix socket: whose it is, what it takes the place of, and that it goes."""

from __future__ import annotations

import signal
import socket
import stat
import sys
from pathlib import Path

import httpx
import pytest

from mcp_server.errors import SetupFailed
from mcp_server.unix_socket import MAX_PATH_BYTES, listening_at
from tests.mcp.server_processes import BOUND_S, failed_start, http_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the server runs on Linux alone")


def asked(path: Path, target: str = "/healthz") -> httpx.Response:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=BOUND_S) as client:
        return client.get(f"http://localhost{target}")


def test_the_server_answers_on_it_alone_and_takes_it_away_when_it_stops(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    with http_server("--toolbox", "--unix-socket", str(path)) as server:
        assert asked(path).json()["status"] == "ok"
        assert asked(path, "/api/sandbox").json()["items"] == []
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert server.port == 0
        assert f"--unix-socket {path}: another server listens there." in failed_start(
            "serve", "--unix-socket", str(path)
        )
        assert asked(path).status_code == 200
        assert server.stop(signal.SIGTERM) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_server_left_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    with http_server("--unix-socket", str(path)) as server:
        server.stop(signal.SIGKILL)
    assert path.is_socket()
    with http_server("--unix-socket", str(path)):
        assert asked(path).status_code == 200


def test_it_is_never_open_to_others_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    with listening_at(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(SetupFailed, match="another server"), listening_at(path):
            pass
        assert path.is_socket()
    assert not path.exists()


def test_a_socket_that_took_its_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    with listening_at(path):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
    assert path.is_socket()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_no_socket_is_not_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "precious"
    if kind == "file":
        path.write_text("kept")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SetupFailed, match="something else of that name"), listening_at(path):
        pass
    assert path.is_symlink() or path.exists()


def test_a_place_where_none_can_be_is_told(tmp_path: Path) -> None:
    with pytest.raises(SetupFailed, match="No such file or directory"), listening_at(tmp_path / "missing" / "x"):
        pass
    with pytest.raises(SetupFailed, match=f"at most {MAX_PATH_BYTES} bytes"), listening_at(tmp_path / ("x" * 200)):
        pass
