"""The settings that make contexts alike, as code inside sees them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from mcp import Client
from mcp_types import TextContent

from tests.mcp.server_processes import BOUND_S, stdio_parameters

pytestmark = pytest.mark.anyio

DRAW = "import random, numpy\nprint(random.random(), numpy.random.rand(), numpy.random.randint(10**9))"
ORDER = "print({'name %d' % n for n in range(20)})"
IN_A_CHILD = f"import subprocess, sys\nprint(subprocess.check_output([sys.executable, '-c', {ORDER!r}], text=True))"

PRELOADS = pytest.mark.parametrize("preload", ["", "numpy"])


def printed(code: str, *flags: str) -> str:
    command = [sys.executable, "-m", "mcp_server.cli", "run", "--preload", "", *flags, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=BOUND_S, check=True).stdout


async def drawn_in_two_contexts(*flags: str) -> list[str]:
    drawn = []
    async with Client(stdio_parameters(*flags)) as client:
        for _ in range(2):
            made = await client.call_tool("create_context", {})
            assert made.structured_content is not None
            result = await client.call_tool(
                "run_code", {"code": DRAW, "context_id": made.structured_content["context_id"]}
            )
            [block] = result.content
            assert isinstance(block, TextContent)
            drawn.append(block.text.splitlines()[1])
    return drawn


@PRELOADS
async def test_two_contexts_with_one_seed_draw_the_same_numbers_and_so_does_another_server(preload: str) -> None:
    flags = ("--preload", preload, "--random-seed", "11")
    one, other = await drawn_in_two_contexts(*flags)
    assert one == other == printed(DRAW, *flags).strip()
    assert one != printed(DRAW, "--random-seed", "12").strip()


@PRELOADS
async def test_without_a_seed_two_contexts_draw_different_numbers(preload: str) -> None:
    one, other = await drawn_in_two_contexts("--preload", preload)
    assert not set(one.split()) & set(other.split())


def test_one_hash_seed_gives_one_order_of_sets_in_contexts_and_in_what_they_start() -> None:
    orders = {printed(code, "--hash-seed", "3").strip() for code in (ORDER, ORDER, IN_A_CHILD)}
    assert len(orders) == 1
    assert orders != {printed(ORDER, "--hash-seed", "4").strip()}


def test_without_a_hash_seed_the_order_of_sets_differs_from_server_to_server() -> None:
    assert printed(ORDER) != printed(ORDER)


def test_contexts_are_in_the_time_zone_that_was_asked_for() -> None:
    code = "import time\nprint(time.strftime('%H:%M %Z', time.localtime(0)))"
    assert printed(code, "--time-zone", "Asia/Tokyo") == "09:00 JST\n"
    assert printed(code, "--time-zone", "UTC") == "00:00 UTC\n"
