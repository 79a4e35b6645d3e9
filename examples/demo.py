"""The main job, end to end, as a client does it: a real server over stdio, and what the model gets at each step.

    make demo
    python examples/demo.py COMMAND [ARGUMENT …]    the same with a server that is installed elsewhere

Exits with 1 at the first step that is not as it should be.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext

import anyio
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_types import CallToolResult, ImageContent, TextContent
from rich.console import Console
from rich.panel import Panel
from rich.rule import Rule
from rich.syntax import Syntax
from rich.text import Text

console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)

STREAMING = """
    import time
    for step in range(1, 6):
        print(f"step {step} of 5: loss {1 / step:.3f}")
        time.sleep(0.4)
"""

TABLE = """
    import pandas as pd
    sales = pd.DataFrame({"city": ["Oslo", "Lima", "Pune"], "units": [120, 75, 310], "price": [9.5, 7.25, 3.0]})
    sales["revenue"] = sales.units * sales.price
    sales
"""

RECORDS = 200_000

FLOOD = f"""
    for number in range({RECORDS}):
        print(f"record {{number}}: checksum {{number * 2654435761 % 4294967296:08x}}")
"""


STEPS = 8


class NotAsExpectedError(Exception):
    """A step gave the model something else than it should."""


def waiting(text: str) -> AbstractContextManager[object]:
    """A turning sign on a terminal."""
    return console.status(text) if console.is_terminal else nullcontext()


def expect(text: str, *parts: str) -> None:
    for part in parts:
        if part not in text:
            raise NotAsExpectedError(f"{part!r} is missing from what the model got:\n{text}")


def text_of(result: CallToolResult) -> str:
    first = result.content[0]
    if not isinstance(first, TextContent):
        raise NotAsExpectedError(f"the first block is {first.type}, not text")
    return first.text


class Demo:
    """The steps. Each shows what is asked, then what the model gets."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.steps_shown = 0

    def step(self, title: str) -> None:
        self.steps_shown += 1
        console.print(Rule(Text(f"{self.steps_shown} of {STEPS}. {title}", "bold cyan"), align="left", style="cyan"))

    async def call(self, tool: str, arguments: dict[str, object], live: bool = False) -> CallToolResult:
        """One tool call, shown; `live` shows progress notifications as they come."""
        code = arguments.get("code")
        rest = ", ".join(f"{name}={value!r}" for name, value in arguments.items() if name != "code")
        console.print(Text.assemble((tool, "bold"), f"({rest})"))
        if isinstance(code, str):
            console.print(Syntax(code, "python", theme="ansi_dark", background_color="default", word_wrap=True))
        with waiting(f"{tool} …"):
            result = await self._client.call_tool(tool, arguments, progress_callback=_show_progress if live else None)
        self._show(result)
        return result

    async def run(self, code: str, live: bool = False, **arguments: object) -> str:
        """Run code; gives the text that the model gets."""
        return text_of(await self.call("run_code", {"code": textwrap.dedent(code).strip(), **arguments}, live))

    def _show(self, result: CallToolResult) -> None:
        texts = []
        for block in result.content:
            if isinstance(block, TextContent):
                texts.append(block.text)
            elif isinstance(block, ImageContent):
                texts.append(f"[{block.mime_type}, {len(block.data) * 3 // 4:,} bytes]")
        title = "tool error" if result.is_error else "the model gets"
        console.print(Panel(Text("\n".join(texts)), title=title, title_align="left", border_style="green"))


async def _show_progress(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001
    console.print(Text(f"  ⋯ {progress:5.1f} s  {message}", "yellow"))


async def look_around(demo: Demo, client: Client) -> None:
    demo.step("A client connects and lists the tools")
    tools = (await client.list_tools()).tools
    for tool in tools:
        console.print(Text.assemble("  ", (f"{tool.name:16}", "bold"), tool.title or ""))
    console.print(Text(f"  Server instructions: {(client.instructions or '').split('. ')[0]}.", "dim"))
    expect(" ".join(tool.name for tool in tools), "run_code", "create_context", "list_contexts", "delete_context")


async def keep_variables(demo: Demo) -> tuple[str, str]:
    demo.step("Two contexts, each with variables of its own")
    ids = []
    for _ in range(2):
        made = (await demo.call("create_context", {})).structured_content
        ids.append(str(made["context_id"]))
    first, second = ids
    await demo.run("names = ['Ada', 'Grace']\nlen(names)", context_id=first)
    expect(await demo.run("names.append('Edsger')\nnames", context_id=first), "['Ada', 'Grace', 'Edsger']")
    expect(await demo.run("names", context_id=second), "error", "NameError: name 'names' is not defined")
    return first, second


async def stream(demo: Demo, context_id: str) -> None:
    demo.step("Output while the code still runs")
    expect(await demo.run(STREAMING, live=True, context_id=context_id), "ok", "step 1 of 5", "step 5 of 5: loss 0.200")


async def show_table(demo: Demo, context_id: str) -> None:
    demo.step("A data frame")
    expect(await demo.run(TABLE, context_id=context_id), "ok", "revenue", "Pune", "930.0")


async def fail_and_recover(demo: Demo, context_id: str) -> None:
    demo.step("An error, and the next try")
    code = "total = float(sales.revenue.sum())\nround(total / (len(names) - 3), 2)"
    expect(await demo.run(code, context_id=context_id), "error", "ZeroDivisionError: float division by zero")
    expect(await demo.run("round(total / len(names), 2)", context_id=context_id), "ok", "871.25")


async def time_out(demo: Demo, context_id: str) -> None:
    demo.step("Code that does not end is stopped, and its variables are kept")
    text = await demo.run("laps = 0\nwhile True:\n    laps += 1", context_id=context_id, timeout=1)
    expect(text, "timeout", "variables kept")
    expect(await demo.run("laps > 0, names", context_id=context_id), "(True, ['Ada', 'Grace', 'Edsger'])")


async def flood(demo: Demo, context_id: str) -> None:
    demo.step("Far too much output: the beginning, the end, and exactly what is missing")
    text = await demo.run(FLOOD, context_id=context_id, max_output_chars=1_500)
    expect(text, "ok", "record 0: checksum 00000000", "record 199999:", " left out")
    left_out = int(re.findall(r"([\d,]+) lines", text)[0].replace(",", ""))
    shown = text.count(": checksum ")
    if left_out + shown != RECORDS:
        raise NotAsExpectedError(f"{shown} lines shown and {left_out} said to be left out are not {RECORDS}")
    if len(text) > 1_500:
        raise NotAsExpectedError(f"the report has {len(text)} characters, and 1,500 were asked for")


async def clean_up(demo: Demo, context_ids: tuple[str, str]) -> None:
    demo.step("The contexts are deleted")
    for context_id in context_ids:
        expect(text_of(await demo.call("delete_context", {"context_id": context_id})), context_id)
    listed = await demo.call("list_contexts", {})
    if listed.structured_content != {"contexts": []}:
        raise NotAsExpectedError(f"contexts are left: {listed.structured_content}")


async def main() -> None:
    program, *arguments = sys.argv[1:] or [sys.executable, "-m", "mcp_server.cli"]
    server = StdioServerParameters(command=program, args=[*arguments, "--log-level", "warning"])
    command = " ".join([program, *arguments])
    console.print(Text.assemble("Starting ", ("mcp-code-interpreter", "bold"), f" over stdio ({command})"))
    async with AsyncExitStack() as stack:
        with waiting("Starting Python, and loading what is there of numpy, pandas and matplotlib …"):
            client = await stack.enter_async_context(Client(stdio_client(server), mode="auto"))
        demo = Demo(client)
        await look_around(demo, client)
        first, second = await keep_variables(demo)
        steps: tuple[Callable[[Demo, str], Awaitable[None]], ...] = (
            stream,
            show_table,
            fail_and_recover,
            time_out,
            flood,
        )
        for step in steps:
            await step(demo, first)
        await clean_up(demo, (first, second))
    if demo.steps_shown != STEPS:
        raise NotAsExpectedError(f"{demo.steps_shown} steps were shown, not {STEPS}")
    console.print(Rule(Text("Every step was as expected", "bold green"), style="green"))


def leaves(error: BaseException) -> list[BaseException]:
    """The exceptions inside a group, of any depth."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


if __name__ == "__main__":
    try:
        anyio.run(main)
    except* NotAsExpectedError as group:
        for line in leaves(group):
            console.print(Text(f"Not as expected: {line}", "bold red"))
        sys.exit(1)
