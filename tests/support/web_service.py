"""A web server with much to fetch and a WebSocket, and a client of that, to be run in a child on a lab host."""

from __future__ import annotations

import base64
import hashlib
import socket
import ssl
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, Self

_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
_KEY: Final = base64.b64encode(b"0123456789abcdef").decode()
_BLOCK: Final = 1 << 16
PATIENCE_S: Final = 40.0


def blocks(count: int) -> Iterator[bytes]:
    """As many bytes, no two blocks of which are the same."""
    for number in range(0, count, _BLOCK):
        block = hashlib.sha256(number.to_bytes(8)).digest() * (_BLOCK // 32)
        yield block[: min(_BLOCK, count - number)]


def sha256_of(count: int) -> str:
    """Of what ``/COUNT`` is."""
    digest = hashlib.sha256()
    for block in blocks(count):
        digest.update(block)
    return digest.hexdigest()


def serve_web(address: str, port: int, page: str) -> None:
    """For ever: ``/`` is ``page`` with the headers that came behind it, ``/COUNT`` as many bytes, and ``/echo`` a
    WebSocket that sends back what comes, masked as it came.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/echo":
                self._echo()
                return
            if self.path == "/":
                headers = "".join(f"{name.lower()}: {value}\n" for name, value in self.headers.items())
                body = [f"{page}\n{headers}".encode()]
                size = len(body[0])
            else:
                size = int(self.path[1:])
                body = blocks(size)  # type: ignore[assignment]
            self.send_response(200)
            self.send_header("Content-Length", str(size))
            self.end_headers()
            for block in body:
                self.wfile.write(block)

        def _echo(self) -> None:
            accepted = base64.b64encode(hashlib.sha1(f"{self.headers['Sec-WebSocket-Key']}{_GUID}".encode()).digest())  # noqa: S324
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header("Sec-WebSocket-Accept", accepted.decode())
            self.end_headers()
            while data := self.connection.recv(_BLOCK):
                self.connection.sendall(data)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Clients may go when they like."""

    Server((address, port), Handler).serve_forever()


def websocket(address: str, name: str, root: str, texts: list[bytes]) -> list[bytes]:
    """Say ``texts`` in turn to ``wss://NAME/echo`` at ``address``, and give what came back before each next one."""
    with socket.create_connection((address, 443), PATIENCE_S) as plain, EchoSocket(plain, name, root) as web:
        return [web.say(text) for text in texts]


class EchoSocket:
    """``wss://NAME/echo`` over ``plain``, which is connected."""

    def __init__(self, plain: socket.socket, name: str, root: str) -> None:
        self._sock = ssl.create_default_context(cafile=root).wrap_socket(plain, server_hostname=name)
        self._sock.sendall(
            f"GET /echo HTTP/1.1\r\nHost: {name}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {_KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self._reader = self._sock.makefile("rb")
        assert b" 101 " in self._reader.readline()
        while self._reader.readline() != b"\r\n":
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self._sock.close()

    def say(self, text: bytes) -> bytes:
        """What comes back; empty when it is over."""
        frame = bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text  # with a mask of zeros (RFC 6455 §5.2)
        self._sock.sendall(frame)
        return self._reader.read(len(frame))[6:]
