"""What the documents show is what happens."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from mcp import Client
from mcp_types import TextContent

from mcp_server.arguments import MODELS
from tests.clients.__main__ import CLIENTS as PROGRAMS
from tests.mcp.server_processes import stdio_parameters

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CLIENTS = (ROOT / "docs" / "clients.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def without_what_varies(report: str) -> str:
    report = report.replace("float division by zero", "division by zero")  # until Python 3.13
    return re.sub(r"\d+\.\d\d s", "0.00 s", re.sub(r"ctx_[\w-]{22}", "ctx_", report))


@pytest.mark.anyio
async def test_the_readmes_sample_is_what_the_model_gets() -> None:
    code, _ = blocks(README, "python")
    [report] = blocks(README, "text")
    async with Client(stdio_parameters()) as client:
        result = await client.call_tool("run_code", {"code": code.strip()})
    [block] = result.content
    assert isinstance(block, TextContent)
    assert without_what_varies(block.text) == without_what_varies(report.rstrip("\n"))


def test_the_readmes_lines_of_python_work() -> None:
    _, program = blocks(README, "python")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "42"), done.stderr


def test_the_readme_lists_the_tools_and_the_commands() -> None:
    assert set(re.findall(r"^\| `([a-z_]+)` \| [A-Z]", README, re.MULTILINE)) == set(MODELS)
    commands = set(re.findall(r"^mcp-code-interpreter (\w+)", README, re.MULTILINE))
    assert commands == {"serve", "run", "replay", "doctor"}


def test_every_block_for_a_client_can_be_read_by_it() -> None:
    for block in blocks(CLIENTS, "json"):
        [servers] = json.loads(block).values()
        assert servers["python"]["command"] == "mcp-code-interpreter"
    [toml] = blocks(CLIENTS, "toml")
    assert tomllib.loads(toml)["mcp_servers"]["python"]["command"] == "mcp-code-interpreter"


def test_every_program_for_a_client_is_part_of_one_that_make_clients_runs() -> None:
    shown = {block.strip() for language in ("python", "js") for block in blocks(CLIENTS, language)}
    programs = [(ROOT / "tests/clients" / client.program).read_text() for client in PROGRAMS]
    run = {re.split(r"^(?:#|//) -- .* --$", text, flags=re.MULTILINE)[1].strip() for text in programs}
    assert shown == run


def test_what_a_client_cannot_do_is_said_in_its_section() -> None:
    for client in PROGRAMS:
        heading = rf"^### (?:The )?{re.escape(client.name)}$"
        [section] = re.findall(heading + r"(.*?)(?=^###|\Z)", CLIENTS, re.MULTILINE | re.DOTALL)
        for note in client.notes:
            assert note in " ".join(section.split())


def test_links_between_documents_lead_somewhere() -> None:
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name}: {target}"
