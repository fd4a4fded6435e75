"""A real TURN client's driver for tests: a UDP socket like the data plane's, and the client on it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from warren.model.tunnel import TransportAddress
from warren.proto.turn.channel import unwrap_train_untrusted, wrap_train
from warren.proto.turn.client import TurnClient
from warren.proto.turn.client_events import ClientEvent, Data

WITHIN_S: Final = 40.0


class Drive:
    """``client`` is alive while the test waits in one of the methods."""

    def __init__(
        self, sock: socket.socket, server: TransportAddress, username: str, password: str, *, reliable: bool = False
    ) -> None:
        self.sock = sock
        self.server = server
        self.events: list[ClientEvent] = []
        self.received: list[tuple[TransportAddress, bytes]] = []
        """From which peer, and what; by channel or indication."""
        self.client = TurnClient(
            server=server,
            username=username,
            password=password,
            random=os.urandom,
            now=time.monotonic(),
            reliable=reliable,
            name="coturn",
        )

    @property
    def _address(self) -> tuple[str, int]:
        return str(self.server.ip), self.server.port

    def flush(self) -> None:
        for message in self.client.take_transmits():
            with contextlib.suppress(OSError):
                self.sock.sendto(message, self._address)

    async def until(self, holds: Callable[[], object]) -> None:
        """Move messages until something holds. Raises AssertionError when that takes too long."""
        loop = asyncio.get_running_loop()
        end = time.monotonic() + WITHIN_S
        while not holds():
            now = time.monotonic()
            if now > end:
                raise AssertionError(f"{self.client.state} {self.client.why} {self.events} {self.received}")
            self.flush()
            deadline = self.client.next_deadline()
            wait = min(deadline.at - now if deadline else 1.0, 0.2)
            try:
                async with asyncio.timeout(max(wait, 0.0)):
                    data = await loop.sock_recv(self.sock, 65_536)
            except (TimeoutError, ConnectionError):
                self.client.handle_timeout(time.monotonic())
            else:
                self._receive(data)
            for event in self.client.take_events():
                if isinstance(event, Data):
                    self.received.append((event.peer, event.data))
                else:
                    self.events.append(event)

    def _receive(self, data: bytes) -> None:
        if not 0x40 <= data[0] <= 0x4F:  # RFC 7983 §7
            self.client.receive(data, time.monotonic())
            return
        buffer = bytearray(data)
        for run in unwrap_train_untrusted(buffer, len(data), len(data))[0]:
            peer = self.client.peer_of(run.channel)
            if peer is not None:
                self.received.append((peer, bytes(buffer[run.at : run.end])))

    def send_by_channel(self, peer: TransportAddress, data: bytes) -> None:
        channel = self.client.channel_of(peer)
        assert channel is not None
        self.sock.sendto(wrap_train(data, max(len(data), 1), channel), self._address)

    def close(self) -> None:
        self.client.close(time.monotonic())
        self.flush()


@contextlib.asynccontextmanager
async def driving(drive: Drive) -> AsyncIterator[Drive]:
    """Gives the allocation back at the end."""
    try:
        yield drive
    finally:
        drive.close()
