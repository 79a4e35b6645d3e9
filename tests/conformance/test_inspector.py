"""The Inspector's command line against our own server: both eras of the protocol, over stdio and over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.suite import INSPECTOR_BOUND_S, Inspected, NodeTools, inspect
from tests.mcp.server_processes import command, http_server

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(6 * INSPECTOR_BOUND_S)]

IS_ERROR_STATUS = 5
"""How the Inspector ends where a tool's answer says that it is an error."""

SERVER_INFO = "io.modelcontextprotocol/serverInfo"
"""Only an answer in the newest protocol carries it."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with http_server() as server:
        yield server.url


@pytest.fixture(params=["legacy", "modern"])
def era(request: pytest.FixtureRequest) -> str:
    era: str = request.param
    return era


@pytest.fixture(params=["stdio", "http"])
def transport(request: pytest.FixtureRequest) -> str:
    transport: str = request.param
    return transport


@dataclass(frozen=True, slots=True)
class Inspector:
    """Calls a server in one era. Each call is a connection of its own, and over stdio a server of its own as well."""

    tools: NodeTools
    home: Path
    era: str
    target: Sequence[str]

    def list_tools(self) -> Inspected:
        return self._ask("tools/list", "--strict")

    def call(self, tool: str, **arguments: object) -> Inspected:
        called = self._ask("tools/call", "--tool-name", tool, "--tool-args-json", json.dumps(arguments))
        newest = SERVER_INFO in called.answer["result"].get("_meta", {})
        assert newest == (self.era == "modern"), f"the Inspector did not speak the {self.era} protocol: {called}"
        return called

    def _ask(self, method: str, *options: str) -> Inspected:
        return inspect(self.tools, self.home, "--protocol-era", self.era, "--method", method, *options, *self.target)


def over_stdio(tools: NodeTools, home: Path, era: str) -> Inspector:
    return Inspector(tools, home, era, ["--", *command()])


def over_http(tools: NodeTools, home: Path, era: str, url: str) -> Inspector:
    return Inspector(tools, home, era, ["--server-url", url, "--header", f"X-Conversation-Id: {era}"])


def text_of(inspected: Inspected) -> str:
    assert inspected.status == 0, inspected.complaints
    text: str = inspected.answer["result"]["content"][0]["text"]
    return text


def facts_of(inspected: Inspected) -> dict[str, Any]:
    """The structured content, which has to stand in the text as well."""
    facts: dict[str, Any] = inspected.answer["result"]["structuredContent"]
    assert json.loads(text_of(inspected)) == facts
    return facts


def test_the_inspector_finds_nothing_in_the_tools_to_complain_of(
    tools: NodeTools, tmp_path: Path, url: str, era: str, transport: str
) -> None:
    server = over_stdio(tools, tmp_path, era) if transport == "stdio" else over_http(tools, tmp_path, era, url)
    listed = server.list_tools()
    assert (listed.status, listed.complaints) == (0, "")
    assert "schemaFindings" not in listed.answer
    assert [tool["name"] for tool in listed.answer["result"]["tools"]] == [
        "run_code",
        "create_context",
        "list_contexts",
        "delete_context",
    ]


def test_the_inspector_uses_each_tool_over_http(tools: NodeTools, tmp_path: Path, url: str, era: str) -> None:
    server = over_http(tools, tmp_path, era, url)
    made = facts_of(server.call("create_context"))["context_id"]
    assert text_of(server.call("run_code", code="6 * 7", context_id=made)).endswith("42")
    [listed] = facts_of(server.call("list_contexts"))["contexts"]
    assert (listed["context_id"], listed["runs"]) == (made, 1)
    assert facts_of(server.call("delete_context", context_id=made)) == {"deleted": made}
    assert facts_of(server.call("list_contexts")) == {"contexts": []}


def test_the_inspector_uses_each_tool_over_stdio(tools: NodeTools, tmp_path: Path, era: str) -> None:
    server = over_stdio(tools, tmp_path, era)
    made = facts_of(server.call("create_context"))["context_id"]
    assert text_of(server.call("run_code", code="6 * 7")).endswith("42")
    assert facts_of(server.call("list_contexts")) == {"contexts": []}
    refused = server.call("delete_context", context_id=made)
    assert refused.status == IS_ERROR_STATUS
    assert refused.answer["result"]["isError"]
    assert f"No context '{made}'" in refused.answer["result"]["content"][0]["text"]
