"""One principal tries everything to come at what is another's: each door, each verb, both eras of the protocol.

Ann has contexts with a secret, files, a stored output, a report that is due, code that is running, a session of the
older protocol and a sandbox of the toolbox. Bob knows every handle and name of hers. Each attempt of his is a row; it
must be answered as if what he names did not exist, show nothing of hers, and change nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp_types.version import LATEST_HANDSHAKE_VERSION, LATEST_MODERN_VERSION
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from mcp_server.toolbox.mux import MUX_OPTIONS, MUX_PATH, Kind, Message, decode, encode
from tests.mcp.raw_http import answer_of
from tests.mcp.server_processes import BOUND_S, ServerProcess, http_server

SECRET = "what-only-ann-may-know"
CONVERSATION = "conversation-of-ann"
THREAD = "thread-of-ann"

ERAS = {"2026-07-28": LATEST_MODERN_VERSION, "2025-11-25": LATEST_HANDSHAKE_VERSION}


@dataclass
class Caller:
    """One principal, speaking MCP by hand in one era, and HTTP and WebSockets to the toolbox."""

    server: ServerProcess
    token: str
    version: str
    session: str = ""
    ids: Iterator[int] = field(default_factory=lambda: iter(range(100, 10_000)))

    def __post_init__(self) -> None:
        if self.version != LATEST_MODERN_VERSION and not self.session:
            client = {"name": "test", "version": "1"}
            asked = {"protocolVersion": self.version, "capabilities": {}, "clientInfo": client}
            opened = self.post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": asked})
            self.session = opened.headers["mcp-session-id"]
            self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def post(self, message: dict[str, Any], **headers: str) -> httpx.Response:
        return _sent("POST", self.server.url, message, self.headers(message, headers))

    def headers(self, message: dict[str, Any], more: dict[str, str]) -> dict[str, str]:
        params = message.get("params", {})
        base = {"Authorization": f"Bearer {self.token}", "Accept": "application/json, text/event-stream"}
        if message["method"] != "initialize":
            base["MCP-Protocol-Version"] = self.version
        if self.version == LATEST_MODERN_VERSION:
            base["Mcp-Method"] = message["method"]
            base["Mcp-Name"] = params.get("name") or params.get("uri", "")
            if handle := params.get("arguments", {}).get("context_id"):
                base["Mcp-Param-Context-Id"] = handle
        if self.session:
            base["Mcp-Session-Id"] = self.session
        return {**base, **more}

    def ask(self, method: str, meta: dict[str, Any] | None = None, header: str = "", **params: Any) -> str:
        """The status and the whole text of the answer."""
        meta = dict(meta or {})
        if self.version == LATEST_MODERN_VERSION:
            meta["io.modelcontextprotocol/protocolVersion"] = self.version
            meta["io.modelcontextprotocol/clientCapabilities"] = {}
        message = {"jsonrpc": "2.0", "id": next(self.ids), "method": method, "params": {**params, "_meta": meta}}
        answer = self.post(message, **({"X-Conversation-Id": header} if header else {}))
        return f"{answer.status_code} {answer.text}"

    def call(self, tool: str, meta: dict[str, Any] | None = None, header: str = "", **arguments: Any) -> str:
        return self.ask("tools/call", meta, header, name=tool, arguments=arguments)

    def context(self, header: str = "") -> tuple[str, str]:
        """A new one's handle and directory."""
        text = self.call("create_context", header=header)
        made = answer_of(text)["result"]["structuredContent"]
        return made["context_id"], made["cwd"]

    def toolbox(self, method: str, path: str, body: Any = None) -> str:
        url = f"http://127.0.0.1:{self.server.port}{path}"
        answer = _sent(method, url, body, {"Authorization": f"Bearer {self.token}"})
        return f"{answer.status_code} {answer.text}"

    def execute(self, sandbox: str, **message: Any) -> str:
        """All that the toolbox's socket for running code says."""
        try:
            with self._socket(f"{sandbox}/process/interpreter/execute") as socket:
                socket.send(json.dumps(message))
                said = []
                with suppress(ConnectionClosedError):  # closed with a code that says why
                    said += [str(frame) for frame in socket]
        except InvalidStatus as refused:
            return f"{refused.response.status_code} {refused.response.body!r}"
        return f"{socket.close_code} {socket.close_reason} {said}"

    def mux(self, kind: Kind, body: bytes = b"", **header: Any) -> str:
        """The answer to one message on the other socket."""
        with self._socket(MUX_PATH, **MUX_OPTIONS) as socket:
            socket.send(encode(Message(kind, 1, header, body)))
            answer = decode(socket.recv(timeout=BOUND_S))
        return f"{answer.kind.name} {dict(answer.header)} {answer.body!r}"

    def _socket(self, path: str, **options: Any) -> Any:
        url = f"ws://127.0.0.1:{self.server.port}/toolbox/{path}"
        headers = {"Authorization": f"Bearer {self.token}"}
        return connect(url, additional_headers=headers, proxy=None, open_timeout=BOUND_S, **options)


def _sent(method: str, url: str, body: Any, headers: dict[str, str]) -> httpx.Response:
    return httpx.request(method, url, json=body, headers=headers, trust_env=False, timeout=BOUND_S)


@dataclass
class Hers:
    """What Ann has, by every name that it has."""

    context: str
    busy: str
    due: str
    cwd: str
    file: str
    sandbox: str
    boxed: str
    session: str


@dataclass
class Scene:
    era: str
    ann: Caller
    bob: Caller
    hers: Hers
    his_sandbox: str

    @property
    def intruder(self) -> Caller:
        """Bob, with Ann's session of the older protocol."""
        return Caller(self.bob.server, self.bob.token, LATEST_HANDSHAKE_VERSION, self.hers.session)


ANN, BOB, CAT = "token-of-ann-0123456789", "token-of-bob-0123456789", "token-of-cat-0123456789"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.touch(0o600)
    tokens.write_text(f"ann {ANN}\nbob {BOB}\ncat {CAT}\n")
    with http_server("--toolbox", "--metrics", "--tokens", str(tokens)) as running:
        yield running


@pytest.fixture(scope="module", params=ERAS)
def scene(server: ServerProcess, request: pytest.FixtureRequest) -> Scene:
    version = ERAS[request.param]
    ann, bob = Caller(server, ANN, version), Caller(server, BOB, version)
    older = Caller(server, ANN, LATEST_HANDSHAKE_VERSION)
    ann.call("run_code", header=CONVERSATION, code=f"kept = {SECRET!r}")
    ann.call("run_code", meta={"threadId": THREAD}, code=f"kept = {SECRET!r}")
    handle, cwd = ann.context(CONVERSATION)
    fill = f"kept = {SECRET!r}\nopen('kept.txt', 'w').write(kept)\nfor _ in range(9_000): print(kept, _)"
    filled = ann.call("run_code", context_id=handle, code=fill)
    assert f"run://{handle}/1/stdout" in filled
    [file] = set(re.findall(r'work://[^"]+kept\.txt', filled))
    (busy, _), (due, _) = ann.context(CONVERSATION), ann.context(CONVERSATION)
    going = f"import time\nprint({SECRET!r}, flush=True)\ntime.sleep(600)"
    assert "running" in ann.call("run_code", context_id=busy, code=going, wait=0.5)
    soon = f"import time\ntime.sleep(1)\n{SECRET!r}"
    assert "running" in ann.call("run_code", context_id=due, code=soon, wait=0)
    listed = ann.call("list_contexts", header=CONVERSATION)
    assert handle in listed
    sandbox = json.loads(ann.toolbox("POST", "/api/sandbox", {"name": f"box-of-ann-{version}"})[4:])["id"]
    contexts = f"/toolbox/{sandbox}/process/interpreter/context"
    boxed = json.loads(ann.toolbox("POST", contexts, {})[4:])["id"]
    assert SECRET in ann.execute(sandbox, code=f"kept = {SECRET!r}; print(kept)", contextId=boxed)
    his = json.loads(bob.toolbox("POST", "/api/sandbox", {})[4:])["id"]
    return Scene(request.param, ann, bob, Hers(handle, busy, due, cwd, file, sandbox, boxed, older.session), his)


Attempt = Callable[[Scene], str]

UNKNOWN = "No context"
NO_SESSION = "404 "
NOT_FOUND = "404 "
STEAL = "print(kept)"

ATTEMPTS: dict[str, tuple[Attempt, str]] = {
    # -- the MCP door, by her handles
    "run code in her context": (lambda s: s.bob.call("run_code", context_id=s.hers.context, code=STEAL), UNKNOWN),
    "interrupt what she runs": (
        lambda s: s.bob.call("run_code", context_id=s.hers.busy, code=STEAL, interrupt=True),
        UNKNOWN,
    ),
    "watch what she runs": (
        lambda s: s.bob.call("run_code", {"progressToken": "p"}, context_id=s.hers.busy, code=""),
        UNKNOWN,
    ),
    "fetch a report that is due to her": (
        lambda s: s.bob.call("run_code", context_id=s.hers.due, code=""),
        UNKNOWN,
    ),
    "delete her context": (lambda s: s.bob.call("delete_context", context_id=s.hers.context), UNKNOWN),
    "delete a context of hers that is busy": (lambda s: s.bob.call("delete_context", context_id=s.hers.busy), UNKNOWN),
    "delete a context of her sandbox": (lambda s: s.bob.call("delete_context", context_id=s.hers.boxed), UNKNOWN),
    "run code in a context of her sandbox": (
        lambda s: s.bob.call("run_code", context_id=s.hers.boxed, code=STEAL),
        UNKNOWN,
    ),
    "read her output": (lambda s: s.bob.ask("resources/read", uri=f"run://{s.hers.context}/1/stdout"), UNKNOWN),
    "read a page of her output": (
        lambda s: s.bob.ask("resources/read", uri=f"run://{s.hers.context}/1/stdout?offset=5&limit=2"),
        UNKNOWN,
    ),
    "read a value that she showed": (
        lambda s: s.bob.ask("resources/read", uri=f"run://{s.hers.context}/1/shown-1.html"),
        UNKNOWN,
    ),
    "read her file": (lambda s: s.bob.ask("resources/read", uri=s.hers.file), UNKNOWN),
    # -- the MCP door, by the names of her conversations
    "list the contexts of her conversation": (lambda s: s.bob.call("list_contexts", header=CONVERSATION), '"contexts'),
    "list the contexts of her thread": (
        lambda s: s.bob.call("list_contexts", {"threadId": THREAD}),
        '"contexts',
    ),
    "list all contexts": (lambda s: s.bob.call("list_contexts"), '"contexts'),
    "list all resources": (lambda s: s.bob.ask("resources/list"), '"resources":[]'),
    "run code in her conversation": (
        lambda s: s.bob.call("run_code", header=CONVERSATION, code=STEAL),
        "NameError",
    ),
    "run code in her thread": (lambda s: s.bob.call("run_code", {"threadId": THREAD}, code=STEAL), "NameError"),
    "run code in a conversation of her sandbox's name": (
        lambda s: s.bob.call("run_code", header=s.hers.sandbox, code=STEAL),
        "NameError",
    ),
    "look for her files from a context in her conversation": (
        lambda s: s.bob.call(
            "run_code",
            header=CONVERSATION,
            code="import os\nprint('found', [n for t in ('/work', '/outputs') for _, _, ns in os.walk(t) for n in ns])",
        ),
        "found []",
    ),
    "make a context in her directory": (
        lambda s: s.bob.call("create_context", header=CONVERSATION, cwd=s.hers.cwd),
        "does not exist",
    ),
    "fetch what is due in her conversation": (
        lambda s: s.bob.call("run_code", header=CONVERSATION, code=""),
        "nothing running or waiting",
    ),
    "complete her handles": (
        lambda s: s.bob.ask(
            "completion/complete",
            header=CONVERSATION,
            ref={"type": "ref/resource", "uri": "run://{context_id}/{run}/{name}{?offset,limit}"},
            argument={"name": "context_id", "value": "ctx_"},
        ),
        '"values":',
    ),
    # -- the door that ends conversations: each principal has its own of every name
    "end her conversation": (lambda s: s.bob.toolbox("DELETE", f"/conversations/{CONVERSATION}"), "204 "),
    "end her sandbox's conversation": (lambda s: s.bob.toolbox("DELETE", f"/conversations/{s.hers.sandbox}"), "204 "),
    # -- her session of the older protocol
    "call a tool in her session": (lambda s: s.intruder.call("list_contexts"), NO_SESSION),
    "run code in her session": (lambda s: s.intruder.call("run_code", code=STEAL), NO_SESSION),
    "cancel a call in her session": (
        lambda s: _status(s.intruder.post(_notification("notifications/cancelled", requestId=100))),
        NO_SESSION,
    ),
    "initialise her session anew": (
        lambda s: _status(s.intruder.post(
            {"jsonrpc": "2.0", "id": 0, "method": "initialize",
             "params": {"protocolVersion": LATEST_HANDSHAKE_VERSION, "capabilities": {},
                        "clientInfo": {"name": "x", "version": "1"}}})),
        NO_SESSION,
    ),
    "listen to her session": (lambda s: _status(_of_session(s, "GET")), NO_SESSION),
    "end her session": (lambda s: _status(_of_session(s, "DELETE")), NO_SESSION),
    # -- the toolbox
    "list the sandboxes": (lambda s: s.bob.toolbox("GET", "/api/sandbox"), "200 "),
    "list the sandboxes of her name": (lambda s: s.bob.toolbox("GET", "/api/sandbox?name=box-of-ann"), "200 "),
    "look at her sandbox": (lambda s: s.bob.toolbox("GET", f"/api/sandbox/{s.hers.sandbox}"), NOT_FOUND),
    "look at her sandbox by its name": (
        lambda s: s.bob.toolbox("GET", f"/api/sandbox/box-of-ann-{s.ann.version}"),
        NOT_FOUND,
    ),
    "delete her sandbox": (lambda s: s.bob.toolbox("DELETE", f"/api/sandbox/{s.hers.sandbox}"), NOT_FOUND),
    "delete her sandbox by its name": (
        lambda s: s.bob.toolbox("DELETE", f"/api/sandbox/box-of-ann-{s.ann.version}"),
        NOT_FOUND,
    ),
    "ask for its address": (
        lambda s: s.bob.toolbox("GET", f"/api/sandbox/{s.hers.sandbox}/toolbox-proxy-url"),
        NOT_FOUND,
    ),
    "keep it alive": (lambda s: s.bob.toolbox("POST", f"/api/sandbox/{s.hers.sandbox}/last-activity"), NOT_FOUND),
    "list its contexts": (lambda s: s.bob.toolbox("GET", _contexts(s.hers.sandbox)), NOT_FOUND),
    "make a context in it": (lambda s: s.bob.toolbox("POST", _contexts(s.hers.sandbox), {}), NOT_FOUND),
    "delete a context in it": (
        lambda s: s.bob.toolbox("DELETE", f"{_contexts(s.hers.sandbox)}/{s.hers.boxed}"),
        NOT_FOUND,
    ),
    "delete a context in it, through his own": (
        lambda s: s.bob.toolbox("DELETE", f"{_contexts(s.his_sandbox)}/{s.hers.boxed}"),
        NOT_FOUND,
    ),
    "run code in it": (lambda s: s.bob.execute(s.hers.sandbox, code=STEAL), NOT_FOUND),
    "run code in its context": (
        lambda s: s.bob.execute(s.hers.sandbox, code=STEAL, contextId=s.hers.boxed),
        NOT_FOUND,
    ),
    "run code in its context, through his own": (
        lambda s: s.bob.execute(s.his_sandbox, code=STEAL, contextId=s.hers.boxed),
        "context",
    ),
    "run code in a context of her MCP conversation": (
        lambda s: s.bob.execute(s.his_sandbox, code=STEAL, contextId=s.hers.context),
        "context",
    ),
    "mux: make a context in it": (
        lambda s: s.bob.mux(Kind.CREATE, sandbox=s.hers.sandbox, cwd="", envs={}),
        "FAILED",
    ),
    "mux: listen to its context": (
        lambda s: s.bob.mux(Kind.LISTEN, sandbox=s.hers.sandbox, context=s.hers.boxed),
        "FAILED",
    ),
    "mux: listen to its context, through his own": (
        lambda s: s.bob.mux(Kind.LISTEN, sandbox=s.his_sandbox, context=s.hers.boxed),
        "FAILED",
    ),
    "mux: run code in its context": (
        lambda s: s.bob.mux(
            Kind.RUN, STEAL.encode(), sandbox=s.hers.sandbox, context=s.hers.boxed, timeout=None, envs={}
        ),
        "FAILED",
    ),
    "mux: run code in its context, through his own": (
        lambda s: s.bob.mux(
            Kind.RUN, STEAL.encode(), sandbox=s.his_sandbox, context=s.hers.boxed, timeout=None, envs={}
        ),
        "FAILED",
    ),
    "mux: delete its context": (
        lambda s: s.bob.mux(Kind.DELETE, sandbox=s.hers.sandbox, context=s.hers.boxed),
        "FAILED",
    ),
    "mux: delete its context, through his own": (
        lambda s: s.bob.mux(Kind.DELETE, sandbox=s.his_sandbox, context=s.hers.boxed),
        "FAILED",
    ),
    # -- what is everybody's
    "look at the figures": (lambda s: s.bob.toolbox("GET", "/metrics"), "200 "),
    "look at the toolbox's facts": (lambda s: s.bob.toolbox("GET", "/toolbox/x/info"), "200 "),
    "look at the health": (lambda s: s.bob.toolbox("GET", "/healthz"), "200 "),
}  # fmt: skip


def _status(answer: httpx.Response) -> str:
    return f"{answer.status_code} {answer.text}"


def _notification(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}


def _of_session(scene: Scene, method: str) -> httpx.Response:
    intruder = scene.intruder
    return _sent(method, intruder.server.url, None, intruder.headers({"method": ""}, {}))


def _contexts(sandbox: str) -> str:
    return f"/toolbox/{sandbox}/process/interpreter/context"


@pytest.mark.parametrize("name", ATTEMPTS)
def test_bob_cannot(scene: Scene, name: str) -> None:
    attempt, expected = ATTEMPTS[name]
    answer = attempt(scene)
    assert expected in answer, answer
    repeats_what_was_asked = expected in (UNKNOWN, "FAILED", "context", NOT_FOUND)
    hers = {SECRET, *([] if repeats_what_was_asked else vars(scene.hers).values())}
    told_back = {scene.hers.cwd} if name == "make a context in her directory" else set()
    for secret in hers - told_back:
        assert secret not in answer


def test_after_all_that_she_has_everything_as_it_was(scene: Scene) -> None:
    """Runs after the rows above: a file's tests run in order, on one worker."""
    ann, hers = scene.ann, scene.hers
    listed = ann.call("list_contexts", header=CONVERSATION)
    for handle in (hers.context, hers.busy, hers.due):
        assert handle in listed
    assert SECRET in ann.call("run_code", context_id=hers.context, code=STEAL)
    assert SECRET in ann.call("run_code", header=CONVERSATION, code=STEAL)
    assert SECRET in ann.ask("resources/read", uri=f"run://{hers.context}/1/stdout")
    assert SECRET in ann.ask("resources/read", uri=hers.file)
    assert SECRET in ann.call("run_code", context_id=hers.due, code="")
    assert '"status":"running"' in ann.call("run_code", context_id=hers.busy, code="", wait=0)
    session = Caller(ann.server, ANN, LATEST_HANDSHAKE_VERSION, hers.session)
    assert session.call("list_contexts").startswith("200 ")
    assert SECRET in ann.execute(hers.sandbox, code=STEAL, contextId=hers.boxed)
    assert hers.boxed in ann.toolbox("GET", _contexts(hers.sandbox))


def test_the_toolbox_counts_for_each_only_what_is_theirs(scene: Scene) -> None:
    cat = Caller(scene.ann.server, CAT, scene.ann.version)
    before = _facts(cat)
    assert before["capacity"] == 500
    assert _facts(scene.ann)["contexts"] >= 4
    cat.context()
    assert _facts(cat)["contexts"] == before["contexts"] + 1
    scene.ann.context()
    assert _facts(cat)["contexts"] == before["contexts"] + 1
    assert before["contexts"] < 2  # one of the other era's scene at most


def _facts(caller: Caller) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(caller.toolbox("GET", "/toolbox/x/info").removeprefix("200 "))
    return facts


def test_without_a_token_her_session_and_every_door_are_closed(server: ServerProcess, scene: Scene) -> None:
    for path in ("/mcp", "/api/sandbox", _contexts(scene.hers.sandbox), "/toolbox/x/info", "/metrics", "/nothing"):
        for method in ("GET", "POST", "DELETE"):
            url = f"http://127.0.0.1:{server.port}{path}"
            answer = httpx.request(method, url, headers={"Mcp-Session-Id": scene.hers.session}, trust_env=False)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"


def test_no_token_and_no_whole_handle_is_in_the_log(server: ServerProcess, scene: Scene) -> None:
    log = json.dumps(server.log)
    for secret in (ANN, BOB, SECRET, scene.hers.context):
        assert secret not in log
    assert Path("/proc", str(server.process.pid)).exists()
