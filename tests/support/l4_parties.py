"""Who stands at the ends of flows of datagrams: clients, backends, and strangers."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Self


class Party:
    """Somebody with a UDP socket."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.bind((host, port))

    @property
    def place(self) -> Any:
        return self.sock.getsockname()[:2]

    async def send(self, data: bytes, to: Any) -> None:
        await asyncio.get_running_loop().sock_sendto(self.sock, data, to)

    async def hear(self) -> tuple[bytes, Any]:
        async with asyncio.timeout(30):
            return await asyncio.get_running_loop().sock_recvfrom(self.sock, 65535)

    def has_nothing(self) -> bool:
        try:
            self.sock.recv(65535)
        except BlockingIOError:
            return True
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
