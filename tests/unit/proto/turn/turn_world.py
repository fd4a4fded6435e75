"""A TURN server in memory, with sockets that are numbers and clients that are addresses."""

from __future__ import annotations

import random
from collections import deque
from ipaddress import ip_address

from tests.support.turn_clients import TurnAsker
from warren.proto.turn.filter import PeerFilter
from warren.proto.turn.server import TurnServer
from warren.proto.turn.server_credentials import Table
from warren.proto.turn.server_values import TCP, UDP, Client, Closed, Opened, Settings, ToClient, ToPeer

RELAY4, RELAY6 = ip_address("9.9.9.9"), ip_address("2600::9")
USERS = {"u": "p", "v": "q", "w": "r"}


class FakeSockets:
    """Ports are open or taken."""

    def __init__(self) -> None:
        self.open: set[tuple[int, int]] = set()
        self.taken: set[tuple[int, int]] = set()

    def open_relayed(self, family: int, port: int) -> object | None:
        if (family, port) in self.open | self.taken:
            return None
        self.open.add((family, port))
        return family, port

    def close_relayed(self, handle: object) -> None:
        self.open.remove(handle)  # type: ignore[arg-type]


class World:
    def __init__(self, **settings: object) -> None:
        rng = random.Random(1)
        self.now = 1000.0
        self.sockets = FakeSockets()
        self.table = Table(USERS)
        values: dict[str, object] = {"addresses": (RELAY4, RELAY6), "ports": range(50_000, 50_100), **settings}
        peers = PeerFilter(own=frozenset({RELAY4, RELAY6}), relayed=frozenset({RELAY4, RELAY6}))
        self.server = TurnServer(Settings(**values), self.table, peers, self.sockets, rng.randbytes)  # type: ignore[arg-type]
        self.to_peers: list[ToPeer] = []
        self.inboxes: dict[Client, deque[bytes]] = {}
        self.events: list[Opened | Closed] = []

    def client(self, host: str = "1.2.3.4", port: int = 1000, *, transport: str = UDP) -> Client:
        remote = (host, port) if "." in host else (host, port, 0, 0)
        return Client(transport, remote, b"here" if transport == UDP else 7)

    def asker(self, client: Client | None = None, username: str = "u", *, sha256: bool = True) -> TurnAsker:
        there = client or self.client()
        return TurnAsker(lambda data: self.exchange(there, data), username, USERS.get(username, "?"), sha256=sha256)

    def exchange(self, client: Client, data: bytes) -> bytes:
        """Send, and take the newest message that came back."""
        self.server.receive(data, client, self.now)
        self.settle()
        inbox = self.inboxes.get(client)
        return inbox.pop() if inbox else b""

    def settle(self) -> None:
        for transmit in self.server.take_transmits():
            if isinstance(transmit, ToClient):
                self.inboxes.setdefault(transmit.client, deque()).append(transmit.data)
            else:
                self.to_peers.append(transmit)
        self.events += self.server.take_events()

    def wait(self, seconds: float) -> None:
        """Let time pass, and the server do what is due."""
        self.now += seconds
        for _ in range(1000):
            deadline = self.server.next_deadline()
            if deadline is None or deadline.at > self.now:
                break
            self.server.handle_timeout(self.now)
        else:
            raise AssertionError("the server's deadline does not pass")
        self.settle()


__all__ = ["RELAY4", "RELAY6", "TCP", "UDP", "USERS", "FakeSockets", "World"]
