"""Servers and clients for streams and datagrams, plain Python, to be run in a child of their own on a lab host."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import resource
import socket
import struct
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

PATIENCE_S: Final = 60.0
_BLOCK: Final = 1 << 16
_HEADER: Final = struct.Struct("!QQ")


def serve_hashes(address: str, port: int, path: str = "") -> None:
    """A server, for ever: of each stream it takes (number, size) and as many bytes up to the end of that direction, and
    answers with the number, their hash, and all of them again; then it ends its direction.
    """
    asyncio.run(_serve_hashes(address, port, path))


async def _serve_hashes(address: str, port: int, path: str) -> None:
    _many_files()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            number, _ = _HEADER.unpack(await reader.readexactly(_HEADER.size))
            data = await reader.read(-1)  # the client's end of its direction must come through
            writer.write(number.to_bytes(8) + hashlib.sha256(data).digest())
            for start in range(0, len(data), _BLOCK):
                writer.write(data[start : start + _BLOCK])
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    if path:
        server = await asyncio.start_unix_server(handle, path)
    else:
        server = await asyncio.start_server(handle, address, port, backlog=4096)
    async with server:
        await server.serve_forever()


@dataclass(frozen=True, slots=True)
class Crowd:
    """What became of many streams at once."""

    intact: int
    failed: tuple[str, ...]


def many_streams(address: str, port: int, count: int, size: int, seed: int) -> Crowd:
    """``count`` streams to :func:`serve_hashes`, all open before the first ends; each checks every byte both ways."""
    return asyncio.run(_many_streams(address, port, count, size, seed))


async def _many_streams(address: str, port: int, count: int, size: int, seed: int) -> Crowd:
    _many_files()
    everybody = asyncio.Barrier(count)

    async def one(number: int) -> str:
        data = random.Random(seed * 1_000_003 + number).randbytes(size + number % 1000)
        try:
            async with asyncio.timeout(PATIENCE_S):
                reader, writer = await asyncio.open_connection(address, port)
                try:
                    writer.write(_HEADER.pack(number, len(data)))
                    await everybody.wait()
                    writer.write(data)
                    writer.write_eof()
                    said = await reader.readexactly(8 + 32)
                    back = await reader.read(-1)
                finally:
                    writer.close()
        except (OSError, EOFError, TimeoutError, asyncio.BrokenBarrierError) as error:
            await everybody.abort()
            return f"stream {number}: {type(error).__name__}: {error}"
        if said != number.to_bytes(8) + hashlib.sha256(data).digest() or back != data:
            return f"stream {number}: other bytes came back"
        return ""

    found = await asyncio.gather(*(one(number) for number in range(count)))
    failed = tuple(why for why in found if why)
    return Crowd(count - len(failed), failed[:5])


def _many_files() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def exchange(address: str, port: int, data: bytes) -> bytes:
    """What comes back after all of ``data`` and the end of that direction."""
    with socket.create_connection((address, port), PATIENCE_S) as stream:
        stream.sendall(data)
        stream.shutdown(socket.SHUT_WR)
        said = b""
        while piece := stream.recv(_BLOCK):
            said += piece
    return said


def one_by_one(address: str, port: int, count: int) -> int:
    """How many of ``count`` short streams to :func:`serve_hashes`, one right after the other, are answered."""
    answered = 0
    for number in range(count):
        with contextlib.suppress(ConnectionError):
            answered += len(exchange(address, port, _HEADER.pack(number, 1) + b"x")) == 8 + 32 + 1
    return answered


def ended_how(address: str, port: int, within_s: float = PATIENCE_S) -> str:
    """How a stream ends on which nothing is said: ``refused``, ``reset``, ``end`` or ``open`` after ``within_s``."""
    try:
        with socket.create_connection((address, port), within_s) as stream:
            return "end" if stream.recv(1) == b"" else "data"
    except ConnectionRefusedError:
        return "refused"
    except ConnectionResetError:
        return "reset"
    except TimeoutError:
        return "open"


def serve_echo_datagrams(address: str, port: int) -> None:
    """Sends every datagram back, for ever."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, port))
        while True:
            data, source = sock.recvfrom(65_535)
            sock.sendto(data, source)


def datagram_answers(address: str, port: int, datagrams: list[bytes], within_s: float = 5.0) -> list[bytes]:
    """One at a time from one socket; a missing answer is empty."""
    answers = []
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(within_s)
        sock.connect((address, port))
        for data in datagrams:
            try:
                sock.send(data)
                answers.append(sock.recv(65_535))
            except OSError:
                answers.append(b"")
    return answers


def serve_page(address: str, port: int, page: str) -> None:
    """A web server, for ever: ``page``, and behind it the headers that came, one a line."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            headers = "".join(f"{name.lower()}: {value}\n" for name, value in self.headers.items())
            body = f"{page}\n{headers}".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

    Server((address, port), Handler).serve_forever()
