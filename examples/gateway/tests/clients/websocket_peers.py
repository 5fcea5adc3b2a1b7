"""A WebSocket server (`serve`: prints its port) that echoes, and a client (`call ADDRESS`)."""

import asyncio
import sys

import websockets


async def echo(socket):
    async for message in socket:
        if message == "close":
            return await socket.close(4001, "as asked")
        await socket.send(message)


async def serve():
    async with websockets.serve(echo, "127.0.0.1", 0, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()


async def call(address):
    async with websockets.connect(f"ws://{address}/", max_size=None) as socket:
        for message in ["hello", b"\x00\xff" * 500_000, ""]:
            await socket.send(message)
            assert await socket.recv() == message
        await (await socket.ping())
    async with websockets.connect(f"ws://{address}/") as socket:
        await socket.send("close")
        try:
            await socket.recv()
            raise AssertionError("the server closes")
        except websockets.ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4001, "as asked"), closed
    # Nobody says anything: the gateway ends the tunnel.
    async with websockets.connect(f"ws://{address}/", ping_interval=None) as socket:
        try:
            await asyncio.wait_for(socket.recv(), 10)
            raise AssertionError("nobody has said anything")
        except websockets.ConnectionClosed:
            pass
    print("fine")


if __name__ == "__main__":
    asyncio.run(serve() if sys.argv[1] == "serve" else call(sys.argv[2]))
