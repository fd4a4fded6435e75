"""Many streams at once from a lab host, each with bytes of its own, and a server that sends back what it gets."""

from __future__ import annotations

import asyncio
import hashlib
import random
import resource
import select
import socket
from collections import Counter

LIMIT_S = 60.0


def raise_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def echo_server(address: str, port: int) -> None:
    """Until it is killed."""
    raise_limit()

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except OSError:
            pass
        finally:
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(attend, address, port, backlog=4096)
        await server.serve_forever()

    asyncio.run(main())


def crowd(address: str, port: int, count: int, size: int) -> Counter[str]:
    """Opens all streams before a byte is sent, then sends and receives on all; how each ended, by its hash."""
    raise_limit()

    async def main() -> Counter[str]:
        loop = asyncio.get_running_loop()
        socks = []
        for _ in range(count):
            sock = socket.socket()
            sock.setblocking(False)
            await loop.sock_connect(sock, (address, port))
            socks.append(sock)
        async with asyncio.timeout(LIMIT_S):
            return Counter(await asyncio.gather(*(one(sock, seed) for seed, sock in enumerate(socks))))

    async def one(sock: socket.socket, seed: int) -> str:
        loop = asyncio.get_running_loop()
        sent = random.Random(seed).randbytes(size + seed)
        digest = hashlib.sha256()
        with sock:

            async def send() -> None:
                await loop.sock_sendall(sock, sent)
                sock.shutdown(socket.SHUT_WR)

            sending = asyncio.ensure_future(send())
            while data := await loop.sock_recv(sock, 65536):
                digest.update(data)
            await sending
        return "right" if digest.digest() == hashlib.sha256(sent).digest() else "wrong"

    return asyncio.run(main())


def try_often(address: str, port: int, count: int) -> int:
    """How many of ``count`` streams, one right after the other, are answered."""
    answered = 0
    for _ in range(count):
        try:
            with socket.create_connection((address, port), 10) as sock:
                sock.sendall(b"x")
                answered += sock.recv(1) == b"x"
        except ConnectionResetError:
            continue
    return answered


def hold(address: str, port: int, count: int) -> None:
    """Keep as many of ``count`` streams as are taken, until it is ended."""
    socks = [socket.create_connection((address, port), 10) for _ in range(count)]
    while True:
        select.select(socks[-1:], [], [])
        socks.pop()


def never_read(address: str, port: int, count: int, seconds: float) -> int:
    """Flood ``count`` streams and read nothing back, until nothing more is taken; how many bytes were."""
    taken = 0
    block = bytes(1 << 18)
    socks = [socket.create_connection((address, port), 10) for _ in range(count)]
    for sock in socks:
        sock.settimeout(seconds)
        try:
            while True:
                taken += sock.send(block)
        except TimeoutError:
            continue
    for sock in socks:
        sock.close()
    return taken
