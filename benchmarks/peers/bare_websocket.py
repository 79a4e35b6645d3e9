"""A WebSocket server with nothing behind it: one message in, one frame out, and the closing frame. Prints its port.

A socket at the path ``/reused`` stays open instead, and each of its messages is answered.
"""

from __future__ import annotations

import asyncio

import uvloop
from websockets.asyncio.server import ServerConnection, serve

FRAME = '{"type":"control","text":"completed","name":"","value":"","traceback":""}'
REUSED = "/reused"


async def answer(connection: ServerConnection) -> None:
    if connection.request is not None and connection.request.path == REUSED:
        async for _ in connection:
            await connection.send(FRAME)
    else:
        await connection.recv()
        await connection.send(FRAME)


async def main() -> None:
    async with serve(answer, "127.0.0.1", 0, compression=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as our server does it
        runner.run(main())
