"""One server for all tests here; each test takes sandboxes of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mcp_server.toolbox.client import CodeInterpreter
from tests.toolbox.toolbox_server import ToolboxServer, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToolboxServer]:
    with serving(tmp_path_factory.mktemp("toolbox")) as running:
        yield running


@pytest.fixture
def sandbox_id(server: ToolboxServer) -> Iterator[str]:
    made = server.create_sandbox()
    yield made
    server.request("DELETE", f"/api/sandbox/{made}")


@pytest.fixture(params=["mux", "plain"])
def mux(request: pytest.FixtureRequest) -> bool:
    """Both ways on which runs travel."""
    return bool(request.param == "mux")


@pytest.fixture
def interpreter(server: ToolboxServer, sandbox_id: str, mux: bool) -> Iterator[CodeInterpreter]:
    with server.interpreter(sandbox_id, mux=mux) as client:
        yield client
