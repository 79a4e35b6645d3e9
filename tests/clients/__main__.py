"""`make clients`: puts every client through the story, over stdio and over HTTP, and prints what each was able to do.

    python -m tests.clients [ENVIRONMENT …]     the clients of these environments, else all

Exits with 1 if anything failed or was not run. A client runs in a process of its own, in an environment that `make` has
made for it, from an empty home; it finds the server as its users do, by name on the PATH.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.clients.story import COLUMNS
from tests.mcp.server_processes import http_server

ROOT = Path(__file__).parents[2]
BOUND_S = 180.0
"""Of one client over one transport: most of it is importing the framework and starting the server on a busy machine."""


@dataclass(frozen=True, slots=True)
class Client:
    """``program``: what docs/clients.md shows a part of. ``notes``: what it cannot do unless told, as said there."""

    name: str
    program: str
    environment: str
    notes: tuple[str, ...] = ()


OURS, MCP2, MCP1 = ".venv", ".venvs/clients", ".venvs/clients-mcp1"

CLIENTS = (
    Client("Python SDK", "mcp_sdk.py", OURS, ("Over HTTP it takes no message of more than 1 MiB",)),
    Client("FastMCP", "fastmcp_client.py", MCP2),
    Client(
        "Pydantic AI",
        "pydantic_ai_client.py",
        MCP2,
        (
            "The server's instructions reach the model only with `include_instructions`",
            'the second one in a row ends the agent, unless `tool_error_behavior` is `"failed"`',
        ),
    ),
    Client(
        "OpenAI Agents SDK",
        "openai_agents_client.py",
        MCP2,
        ("A call has 5 s unless `client_session_timeout_seconds` says more", "Progress is not passed on"),
    ),
    Client(
        "Inspect",
        "inspect_ai_client.py",
        MCP2,
        ("`generate` with `use_tools` opens one for each call, over stdio with a new process",),
    ),
    Client(
        "LangChain",
        "langchain_client.py",
        MCP1,
        (
            "Tools of `client.get_tools()` open a session for each call, over stdio with a new process",
            "Do not use `--resource-links` with it",
        ),
    ),
    Client("TypeScript SDK", "typescript_client.mjs", OURS, ("A call has 60 s unless `timeout`",)),
)


@dataclass(frozen=True, slots=True)
class Judged:
    client: Client
    transport: str
    faults: dict[str, str]
    log: str

    @property
    def good(self) -> bool:
        return all(self.faults.get(column) == "" for column in COLUMNS)


def run(client: Client, transport: str, url: str) -> Judged:
    """Runs one client. What it did not come to has no entry among the faults."""
    python = ROOT / client.environment / "bin" / "python"
    if not python.exists():
        return Judged(client, transport, {}, f"{python} is not there: `make clients` makes it")
    with tempfile.TemporaryDirectory(prefix="client-") as home:
        result = Path(home) / "judged.json"
        command = [str(python), "-m", f"tests.clients.{Path(client.program).stem}", transport, str(result)]
        path = f"{ROOT / OURS / 'bin'}:{os.environ['PATH']}"
        env = {"HOME": home, "PATH": path, "PYTHONPATH": str(ROOT), "TERM": "dumb"}
        try:
            done = subprocess.run(
                [*command, url] if transport == "http" else command,
                cwd=home, env=env, capture_output=True, text=True, timeout=BOUND_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Judged(client, transport, {}, f"did not end within {BOUND_S:g} s")
        faults = json.loads(result.read_text()) if result.exists() else {}
    return Judged(client, transport, faults, done.stdout[-2000:] + done.stderr[-4000:])


def run_all(clients: list[Client]) -> Iterator[Judged]:
    with http_server("--preload", "numpy,pandas,matplotlib") as server:
        for client in clients:
            for transport in ("stdio", "http"):
                yield run(client, transport, server.url)


def main(environments: list[str]) -> int:
    console = Console()
    clients = [client for client in CLIENTS if not environments or client.environment in environments]
    table = Table("client", "transport", *COLUMNS)
    all_judged = []
    for judged in run_all(clients):
        all_judged.append(judged)
        marks = [{"": "yes", None: "not run"}.get(judged.faults.get(column), "NO") for column in COLUMNS]
        table.add_row(judged.client.name, judged.transport, *marks)
        console.print(f"{judged.client.name} over {judged.transport}: {'good' if judged.good else 'NOT GOOD'}")
    console.print(table)
    for client in clients:
        for note in client.notes:
            console.print(f"{client.name}: {note}.", markup=False)
    bad = [judged for judged in all_judged if not judged.good]
    for judged in bad:
        console.print(f"\n{judged.client.name} over {judged.transport}", style="bold")
        for column, fault in judged.faults.items():
            if fault:
                console.print(f"{column}: {fault}", markup=False)
        console.print(judged.log, markup=False)
    good = len(all_judged) - len(bad)
    print(f"{good} passed, {len(bad)} failed")
    return 0 if all_judged and not bad else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
