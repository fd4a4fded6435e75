"""A relay in a thread of the test, on loopback addresses, and clients with sockets."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network

from tests.support.turn_clients import TurnAsker
from warren.relay.config import RelayConfig
from warren.relay.plane import Plane

RELAY, PEER = "127.0.0.1", "127.0.0.2"
USERS = {"u": "p", "v": "q"}
CONFIG = RelayConfig(
    listen=(ip_address(RELAY),),
    udp_port=0,
    users=USERS,
    allow_peers=(ip_network("127.0.0.2/32"),),
    ports=(20_000, 29_999),
)


@contextlib.contextmanager
def running(config: RelayConfig = CONFIG, **changes: object) -> Iterator[Plane]:
    plane = Plane(replace(config, **changes))  # type: ignore[arg-type]
    thread = threading.Thread(target=plane.run)
    thread.start()
    try:
        yield plane
    finally:
        plane.stop("the test is over")
        plane.stop("at once")
        thread.join(30)
        plane.close()


def udp_socket(host: str = RELAY) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    sock.settimeout(20)
    return sock


class UdpClient(TurnAsker):
    """A TURN client over a UDP socket of its own."""

    def __init__(self, port: int, username: str = "u", *, host: str = RELAY, sha256: bool = True) -> None:
        self.sock = udp_socket(host)
        self.sock.connect((RELAY, port))
        super().__init__(self._exchange, username, USERS.get(username, ""), sha256=sha256)

    def _exchange(self, data: bytes) -> bytes:
        self.sock.send(data)
        return self.sock.recv(65536)

    def close(self) -> None:
        self.sock.close()


class StreamClient(TurnAsker):
    """The same by TCP, or TLS with whatever certificate."""

    def __init__(self, port: int, username: str = "u", *, tls: bool = False) -> None:
        self.sock = socket.create_connection((RELAY, port), timeout=20)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            self.sock = context.wrap_socket(self.sock)
        super().__init__(self._exchange, username, USERS.get(username, ""))

    def _exchange(self, data: bytes) -> bytes:
        self.sock.sendall(data)
        return self.receive()

    def receive(self) -> bytes:
        """One message: STUN, or ChannelData without its padding."""
        head = self._exactly(4)
        kind, size = struct.unpack("!HH", head)
        if kind < 0x4000:
            return head + self._exactly(16 + size)
        data = head + self._exactly(size)
        self._exactly(-size & 3)
        return data

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.sock.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def close(self) -> None:
        self.sock.close()


def channel_data(number: int, data: bytes, *, padded: bool = False) -> bytes:
    return struct.pack("!HH", number, len(data)) + data + (b"\0" * (-len(data) & 3) if padded else b"")
