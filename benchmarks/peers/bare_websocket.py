"""A WebSocket server with nothing behind it: one message in, one frame out, and the closing frame. Prints its port."""

from __future__ import annotations

import asyncio

from websockets.asyncio.server import ServerConnection, serve

FRAME = '{"type":"control","text":"completed","name":"","value":"","traceback":""}'


async def answer(connection: ServerConnection) -> None:
    await connection.recv()
    await connection.send(FRAME)


async def main() -> None:
    async with serve(answer, "127.0.0.1", 0, compression=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
