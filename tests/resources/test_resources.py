"""What reports leave out, read through the MCP door: a real engine in the best tier of this machine, a real client."""

from __future__ import annotations

import asyncio
import base64
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import (
    BlobResourceContents,
    CallToolResult,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from mcp_server.app import build_server
from mcp_server.engine.local import LocalEngine
from mcp_server.errors import InvalidArgument
from mcp_server.model import EngineCapabilities
from mcp_server.prompts import Facts, load
from mcp_server.resources import PAGE_KEY, RunUri, WorkUri, parse_uri
from mcp_server.sandbox.cell import Cell
from mcp_server.sandbox.policy import CellPlan
from mcp_server.sandbox.probe import probe
from mcp_server.service import Service
from mcp_server.settings import Settings

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    plan = CellPlan(python=sys.executable, state_dir=str(tmp_path / "state"), tier=probe(sys.executable).tier)
    capabilities = EngineCapabilities("local", plan.tier, outputs=True, images=True, files=True)
    service = Service(LocalEngine(lambda: Cell(plan), capabilities, outputs_quota_bytes=8 * 1024 * 1024))
    await service.start()
    settings = Settings()
    server = build_server(service, settings, load(Facts(settings, capabilities)), "process")
    async with Client(server) as client:
        yield client
    await service.close()


async def run(client: Client, code: str, **arguments: Any) -> CallToolResult:
    return await client.call_tool("run_code", {"code": code, **arguments})


def text_of(result: CallToolResult) -> str:
    block = result.content[0]
    assert isinstance(block, TextContent)
    return block.text


def links_of(result: CallToolResult) -> dict[str, str]:
    assert result.meta is not None
    assert not any(isinstance(block, ResourceLink) for block in result.content)
    return {link["name"]: link["uri"] for link in result.meta["code-interpreter/run"]["resources"]}


async def read(client: Client, uri: str) -> TextResourceContents | BlobResourceContents:
    (contents,) = (await client.read_resource(uri)).contents
    return contents


async def test_the_whole_output_of_a_cut_report_is_a_resource_read_by_lines(client: Client) -> None:
    result = await run(client, "for number in range(20_000): print('line', number)")
    uri = links_of(result)["stdout"]
    page = await read(client, uri + "?offset=12345&limit=2")
    assert isinstance(page, TextResourceContents)
    assert page.text == "line 12345\nline 12346\n"
    assert page.meta == {PAGE_KEY: {"first_line": 12345, "lines": 2, "more": True}}
    last = await read(client, uri + "?offset=19999&limit=50")
    assert isinstance(last, TextResourceContents)
    assert last.text == "line 19999\n"
    beyond = await read(client, uri + "?offset=999999")
    assert isinstance(beyond, TextResourceContents)
    assert beyond.text == ""


async def test_the_gap_names_a_file_that_the_code_itself_can_read(client: Client) -> None:
    result = await run(client, "for number in range(20_000): print('line', number)")
    (gap,) = [line for line in text_of(result).splitlines() if "left out" in line]
    path = gap.rpartition(": ")[2].strip("⟧")
    assert path.endswith("/run-1/stdout")
    again = await run(client, f"sum(1 for line in open({path!r}))")
    assert "20000" in text_of(again)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("end", ["", "\n"])
async def test_a_line_that_lost_its_middle_names_the_file_too(client: Client, stream: str, end: str) -> None:
    result = await run(client, f"import sys\nprint('x' * 10_000, end={end!r}, file=sys.{stream})")
    (where,) = [line for line in text_of(result).splitlines() if line.startswith("⟦all of it: ")]
    path = where.rpartition(": ")[2].strip("⟧")
    assert path.endswith(f"/run-1/{stream}")
    assert str(10_000 + len(end)) in text_of(await run(client, f"len(open({path!r}).read())"))
    page = await read(client, links_of(result)[stream])
    assert isinstance(page, TextResourceContents)
    assert page.text.count("x") == 10_000


PRINTED_LATER = """
import threading
def later():
    for number in range(20_000): print('line', number, flush=number > 19_900)
    open('../done', 'w').close()
threading.Timer(0.2, later).start()
"""


async def test_what_came_between_runs_is_stored_where_its_report_leaves_something_out(client: Client) -> None:
    begun = await run(client, PRINTED_LATER)
    assert begun.meta is not None
    context_id = begun.meta["code-interpreter/run"]["context_id"]
    async with asyncio.timeout(30):
        while True:
            with suppress(MCPError):  # the code that prints has not come to its end
                await read(client, f"work://{context_id}/done")
                break
    result = await run(client, "'next'")
    (gap,) = [line for line in text_of(result).splitlines() if "left out" in line]
    path = gap.rpartition(": ")[2].strip("⟧")
    assert path.endswith("/run-2/late")
    page = await read(client, links_of(result)["late"])
    assert isinstance(page, TextResourceContents)
    after = text_of(await run(client, f"len(open({path!r}).read())"))
    assert str(len(page.text)) in after
    # What was still on its way when the run began is told with the one after it.
    told = page.text.splitlines() + [line for line in after.splitlines() if line.startswith("line ")]
    assert told == [f"line {number}" for number in range(20_000 - len(told), 20_000)]


async def test_an_output_that_was_shown_whole_is_not_stored(client: Client) -> None:
    result = await run(client, "print('short')")
    assert links_of(result) == {}
    handle = result.meta["code-interpreter/run"]["context_id"] if result.meta else ""
    with pytest.raises(MCPError, match="stored"):
        await read(client, f"run://{handle}/1/stdout")


async def test_newer_outputs_push_out_the_oldest_and_no_report_names_what_is_gone(client: Client) -> None:
    code = "for number in range(150_000): print(f'{number:019}')"
    first = await run(client, code)
    for _ in range(3):
        last = await run(client, code)
    with pytest.raises(MCPError, match="no such file"):
        await read(client, links_of(first)["stdout"])
    page = await read(client, links_of(last)["stdout"] + "?offset=149999")
    assert isinstance(page, TextResourceContents)
    assert page.text == f"{149_999:019}\n"


async def test_an_output_over_the_quota_says_that_even_the_file_has_a_gap(client: Client) -> None:
    result = await run(client, "for number in range(500_000): print(f'{number:019}')")
    (gap,) = [line for line in text_of(result).splitlines() if "left out" in line]
    assert "its own middle is missing" in gap
    page = await read(client, links_of(result)["stdout"] + "?limit=1")
    assert isinstance(page, TextResourceContents)
    assert page.text == f"{0:019}\n"


async def test_a_displayed_form_that_no_model_reads_becomes_a_file(client: Client) -> None:
    code = "class Page:\n    def _repr_html_(self): return '<h1>hello</h1>'\nPage()"
    result = await run(client, code)
    assert "<h1>" not in text_of(result)
    (uri,) = links_of(result).values()
    contents = await read(client, uri)
    assert isinstance(contents, TextResourceContents)
    assert (contents.text, contents.mime_type) == ("<h1>hello</h1>", "text/html")


async def test_the_original_of_an_image_that_was_scaled_down_is_a_file(client: Client) -> None:
    result = await run(client, "from PIL import Image\nImage.radial_gradient('L').resize((3000, 2000))")
    (image,) = [block for block in result.content if isinstance(block, ImageContent)]
    assert len(base64.b64decode(image.data)) <= 700_000
    ((name, uri),) = links_of(result).items()
    contents = await read(client, uri)
    assert isinstance(contents, BlobResourceContents)
    assert (name, contents.mime_type) == ("shown-1.png", "image/png")
    width_and_height = base64.b64decode(contents.blob)[16:24]
    assert struct.unpack(">II", width_and_height) == (3000, 2000)


async def test_files_that_a_run_wrote_are_listed_and_read(client: Client) -> None:
    result = await run(client, "open('data.csv', 'w').write('a,b')\nopen('blob.bin', 'wb').write(bytes(range(256)))")
    assert "data.csv · new · 3 bytes" in text_of(result)
    links = {name.rpartition("/")[2]: uri for name, uri in links_of(result).items()}
    contents = await read(client, links["data.csv"])
    assert isinstance(contents, TextResourceContents)
    assert (contents.text, contents.mime_type) == ("a,b", "text/csv")
    blob = await read(client, links["blob.bin"])
    assert isinstance(blob, BlobResourceContents)
    assert base64.b64decode(blob.blob) == bytes(range(256))
    again = await run(client, "open('data.csv', 'a').write('\\n1,2')")
    assert "data.csv · changed · 7 bytes" in text_of(again)
    assert "blob.bin" not in text_of(again)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.symlink('/etc/passwd', 'trap')", "symbolic link"),
        ("import os; os.mkfifo('trap')", "FIFO"),
        ("import os; os.mkdir('trap')", "directory"),
        ("file = open('trap', 'wb'); _ = file.truncate(1 << 29); file.close()", "limit"),
    ],
)
async def test_what_is_no_plain_file_of_a_fair_size_is_refused(client: Client, code: str, reason: str) -> None:
    result = await run(client, f"{code}\nimport os; print(os.path.basename(os.getcwd()))")
    handle = result.meta["code-interpreter/run"]["context_id"] if result.meta else ""
    place = text_of(result).splitlines()[1]
    with pytest.raises(MCPError, match=reason):
        await read(client, f"work://{handle}/{place}/trap")


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "/etc/passwd", "a%00b", "no-such-file"]
)
async def test_a_path_out_of_the_directory_is_refused(client: Client, path: str) -> None:
    result = await run(client, "1")
    handle = result.meta["code-interpreter/run"]["context_id"] if result.meta else ""
    with pytest.raises(MCPError, match=r"cannot be used|No resource"):
        await read(client, f"work://{handle}/{path}")


async def test_an_unknown_context_is_refused_as_everywhere(client: Client) -> None:
    for uri in ("run://ctx_nobody/1/stdout", "work://ctx_nobody/file"):
        with pytest.raises(MCPError, match="create_context"):
            await read(client, uri)


async def test_both_templates_are_listed_and_no_resources_of_others(client: Client) -> None:
    templates = (await client.list_resource_templates()).resource_templates
    assert [template.uri_template.split(":")[0] for template in templates] == ["run", "work"]
    assert (await client.list_resources()).resources == []


@pytest.mark.parametrize(
    ("uri", "parsed"),
    [
        ("run://ctx_Ab-_9/12/stdout", RunUri("ctx_Ab-_9", 12, "stdout")),
        ("run://ctx_A/1/stderr?offset=3&limit=4", RunUri("ctx_A", 1, "stderr", 3, 4)),
        ("run://ctx_A/1/shown-2.html", RunUri("ctx_A", 1, "shown-2.html")),
        ("work://ctx_A/a/b%20c.txt", WorkUri("ctx_A", "a/b c.txt")),
    ],
)
def test_uris_of_both_forms_are_understood(uri: str, parsed: RunUri | WorkUri) -> None:
    assert parse_uri(uri) == parsed


@pytest.mark.parametrize(
    "uri",
    ["", "run://", "run://ctx_A", "run://ctx_A/1", "run://ctx_A/x/stdout", "run://ctx_A/1/a/b", "work://ctx_A/",
     "work:///x", "file:///etc/passwd", "run://ctx_A/1/stdout?offset=-1", "run://ctx_A/1/stdout?limit=x", "run://[/1/x"],
)  # fmt: skip
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_uri(uri)


@given(st.text(max_size=80))
def test_no_uri_raises_anything_else(text: str) -> None:
    for uri in (text, "run://" + text, "work://ctx/" + text, "run://ctx/1/stdout?" + text):
        with suppress(InvalidArgument):
            parse_uri(uri)
