"""Anything that can be sent is answered: no 500, no hang, and no context or sandbox that nobody asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.toolbox.plain_socket import hear, opened
from tests.toolbox.toolbox_server import ToolboxServer

EXAMPLES = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # the sandbox is meant to be the same for all
)

TEXT = st.text(st.characters(exclude_categories=()), max_size=20)

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)

NAMES = ["code", "contextId", "timeout", "envs", "cwd", "language", "name", "env", "labels", "ttlMinutes", "gpu"]
NAMES += ["autoStopInterval", "autoDeleteInterval", "volumes", "snapshot", "target"]
BODIES = st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4).map(json.dumps) | JSON.map(json.dumps)
RAW = st.binary(max_size=60) | BODIES.map(str.encode)

SEGMENTS = st.sampled_from(
    ["api", "toolbox", "sandbox", "process", "interpreter", "context", "execute", "x", "mux", "info", "default"]
) | st.text(st.characters(exclude_characters="/?#", codec="utf-8"), min_size=1, max_size=8)
PATHS = st.lists(SEGMENTS, min_size=1, max_size=6).map(lambda parts: "/" + "/".join(parts))
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
QUERIES = st.dictionaries(
    st.sampled_from(["labels", "cursor", "limit", "id", "name", "states"]),
    st.text(st.characters(codec="utf-8"), max_size=20),
    max_size=3,
)


@pytest.fixture(scope="module")
def http(server: ToolboxServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=20) as client:
        yield client


def load(http: httpx.Client) -> tuple[int, int]:
    info = http.get("/toolbox/x/info").json()
    return info["contexts"], info["sandboxes"]


def assert_answered(answer: httpx.Response, method: str) -> None:
    assert answer.status_code < 500
    if answer.status_code >= 400 and method != "HEAD":
        fields = answer.json()
        assert set(fields) == {"statusCode", "message", "code", "timestamp", "path", "method", "source"}
        assert fields["statusCode"] == answer.status_code


@EXAMPLES
@given(method=METHODS, path=PATHS, query=QUERIES, body=RAW)
@example(method="GET", path="/api/\n0", query={}, body=b"")
def test_any_request_is_answered(
    http: httpx.Client, method: str, path: str, query: dict[str, str], body: bytes
) -> None:
    answer = http.request(method, f"{quote(path)}?{urlencode(query)}", content=body)
    if path.startswith(("/api/", "/toolbox/")):
        assert_answered(answer, method)
    assert answer.status_code < 500
    if answer.status_code == 200 and method == "POST":
        assert http.delete(f"/api/sandbox/{answer.json()['id']}").status_code == 200


@EXAMPLES
@given(body=RAW)
def test_any_body_makes_a_sandbox_or_is_refused(http: httpx.Client, body: bytes) -> None:
    before = load(http)
    answer = http.post("/api/sandbox", content=body)
    assert_answered(answer, "POST")
    if answer.status_code == 200:
        assert http.get(f"/api/sandbox/{answer.json()['id']}").json()["id"] == answer.json()["id"]
        assert http.delete(f"/api/sandbox/{answer.json()['id']}").status_code == 200
    assert load(http) == before


@EXAMPLES
@given(body=RAW)
def test_any_body_makes_a_context_or_is_refused(http: httpx.Client, sandbox_id: str, body: bytes) -> None:
    contexts = f"/toolbox/{sandbox_id}/process/interpreter/context"
    before = load(http)
    answer = http.post(contexts, content=body)
    assert_answered(answer, "POST")
    if answer.status_code == 200:
        assert http.delete(f"{contexts}/{answer.json()['id']}").status_code == 200
    assert load(http) == before


@EXAMPLES
@given(query=QUERIES)
def test_any_query_lists_or_is_refused(http: httpx.Client, query: dict[str, str]) -> None:
    assert_answered(http.get("/api/sandbox", params=query), "GET")


@EXAMPLES
@given(message=BODIES | st.binary(max_size=60) | TEXT.map(lambda text: text.encode("utf-8", "replace").decode()))
def test_any_first_message_gets_a_closing_frame(
    server: ToolboxServer, sandbox_id: str, http: httpx.Client, message: str | bytes
) -> None:
    http.post(f"/toolbox/{sandbox_id}/process/interpreter/context").json()
    before = load(http)
    with opened(server, sandbox_id) as socket:
        socket.send(message)
        assert hear(socket).code in (1000, 1002, 1008)
    contexts, sandboxes = load(http)
    assert sandboxes == before[1]
    assert contexts <= before[0] + 1  # the default one, if it was code
    for context in http.get(f"/toolbox/{sandbox_id}/process/interpreter/context").json()["contexts"]:
        http.delete(f"/toolbox/{sandbox_id}/process/interpreter/context/{context['id']}")


ENTRIES = st.dictionaries(st.sampled_from(["call", "sandbox", "context", "bytes", "cwd", "envs", "timeout"]), JSON)
HEADERS = ENTRIES | ENTRIES.map(lambda entries: {"call": 1} | entries)


@EXAMPLES
@given(
    messages=st.lists(
        st.tuples(
            st.integers(0, 25),
            HEADERS | st.builds(lambda header: {"call": 1} | header, HEADERS),
            st.binary(max_size=20),
        ),
        min_size=1,
        max_size=4,
    ),
    tail=st.binary(max_size=20) | st.none(),
)
def test_any_messages_on_the_mux_are_answered_or_end_it(
    server: ToolboxServer, http: httpx.Client, messages: list[tuple[int, dict[str, Any], bytes]], tail: bytes | None
) -> None:
    before = load(http)
    url = f"ws{server.url.removeprefix('http')}/toolbox/x/mux"
    options: dict[str, Any] = {"subprotocols": ["code-interpreter-mux.v1"], "compression": None, "proxy": None}
    with connect(url, ping_interval=None, **options) as socket:
        with suppress(ConnectionClosed):  # it ends at the first message that nobody may send
            for kind, header, body in messages:
                text = json.dumps(header).encode()
                socket.send(bytes([kind]) + len(text).to_bytes(4, "big") + text + body)
            if tail is not None:
                socket.send(tail)
    assert socket.close_code in (1000, 1002)
    assert load(http) == before
