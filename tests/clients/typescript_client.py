"""Plays the script of `story` to the TypeScript SDK, which `typescript_client.mjs` holds."""

from __future__ import annotations

import asyncio
import base64
import json
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

from tests.clients.story import Model, Seen, play

PROGRAM = Path(__file__).with_suffix(".mjs")


async def work(model: Model, *arguments: str) -> None:
    node = await asyncio.create_subprocess_exec("node", str(PROGRAM), *arguments, stdin=PIPE, stdout=PIPE, limit=2**24)
    assert node.stdin is not None
    assert node.stdout is not None
    model.offered(json.loads(await node.stdout.readline()))
    seen = None
    while (wanted := model.reply(seen)) is not None:
        node.stdin.write(json.dumps({"tool": wanted.tool, "arguments": wanted.arguments}).encode() + b"\n")
        await node.stdin.drain()
        seen = given(json.loads(await node.stdout.readline()))
    node.stdin.close()
    if await node.wait() != 0:
        raise RuntimeError(f"{PROGRAM.name} ended with {node.returncode}")


def given(content: list[dict[str, Any]]) -> Seen:
    texts = [block["text"] for block in content if block["type"] == "text"]
    images = [base64.b64decode(block["data"]) for block in content if block["type"] == "image"]
    return Seen("\n".join(texts), tuple(images))


if __name__ == "__main__":
    play(work, lambda model, url, conversation: work(model, url, conversation))
