"""A WebSocket server with nothing behind it: it answers each message, until the client closes. Prints its port."""

from __future__ import annotations

import uvloop
from websockets.asyncio.server import ServerConnection, serve

FRAME = '{"type":"control","text":"completed","name":"","value":"","traceback":""}'


async def answer(connection: ServerConnection) -> None:
    async for _ in connection:
        await connection.send(FRAME)


async def main() -> None:
    async with serve(answer, "127.0.0.1", 0, compression=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
