"""A host with numbered sockets behind a NAT, and our own server with two addresses: RFC 5780 in memory."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Protocol

from warren.model.tunnel import TransportAddress
from warren.proto.stun.behaviour_discovery import Transmit
from warren.proto.stun.message import decode_untrusted
from warren.proto.stun.server import BindingServer, Discovery
from warren.proto.wireguard.timers import Deadline

OUTER = IPv4Address("198.51.100.1")
SERVER = TransportAddress(IPv4Address("203.0.113.1"), 3478)
OTHER = TransportAddress(IPv4Address("203.0.113.2"), 3479)
DISCOVERY = Discovery((SERVER.ip, OTHER.ip), (SERVER.port, OTHER.port))
LOCAL = (TransportAddress(IPv4Address("192.168.1.10"), 40000), TransportAddress(IPv4Address("192.168.1.10"), 40500))
DELAY_S = 0.02


def address(text: str, port: int = 3478) -> TransportAddress:
    return TransportAddress(IPv4Address(text), port)


class Machine(Protocol):
    @property
    def done(self) -> bool: ...

    def receive(self, data: bytes, remote: TransportAddress, socket: int, now: float) -> bool: ...

    def handle_timeout(self, now: float) -> None: ...

    def next_deadline(self) -> Deadline | None: ...

    def take_transmits(self) -> list[Transmit]: ...


@dataclass
class Nat:
    """``mapping`` "none": no NAT, only a firewall that filters."""

    mapping: str = "eim"
    filtering: str = "apdf"
    allocation: str = "random"
    hairpin: bool = False
    lifetime_s: float = 120.0
    seed: int = 1
    mapped: dict[object, tuple[int, int]] = field(default_factory=dict)  # key → (socket, outer port)
    used: dict[tuple[int, int], float] = field(default_factory=dict)  # (socket, outer port) → last packet out
    sent: dict[tuple[int, int], set[TransportAddress]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.next_port = 20_000

    def out(self, socket: int, local: TransportAddress, remote: TransportAddress, now: float) -> TransportAddress:
        key: object = {
            "none": socket,
            "eim": socket,
            "adm": (socket, remote.ip),
            "apdm": (socket, remote),
        }[self.mapping]
        entry = self.mapped.get(key)
        if entry is None or now - self.used[entry] > self.lifetime_s:
            entry = socket, self._port(local)
            self.mapped[key] = entry
            self.sent[entry] = set()
        self.used[entry] = now
        self.sent[entry].add(remote)
        return local if self.mapping == "none" else TransportAddress(OUTER, entry[1])

    def _port(self, local: TransportAddress) -> int:
        if self.mapping == "none" or self.allocation == "preserving":
            return local.port
        if self.allocation == "sequential":
            self.next_port += 1
            return self.next_port
        return self.random.randrange(30_000, 60_000)

    def into(self, port: int, remote: TransportAddress, now: float) -> int | None:
        """The socket that a packet from ``remote`` to the outer ``port`` comes to."""
        for entry, at in self.used.items():
            if entry[1] != port or now - at > self.lifetime_s:
                continue
            sent = self.sent[entry]
            if (
                self.filtering == "eif"
                or (self.filtering == "adf" and any(one.ip == remote.ip for one in sent))
                or (self.filtering == "apdf" and remote in sent)
            ):
                return entry[0]
        return None


class World:
    """Carries packets between a machine and the servers, on a clock of its own."""

    def __init__(
        self,
        nat: Nat | None = None,
        *,
        servers: dict[TransportAddress, BindingServer] | None = None,
        local: Callable[[int], TransportAddress] = lambda socket: LOCAL[socket],
        loss: float = 0.0,
    ) -> None:
        self.nat = nat or Nat()
        our_server = BindingServer(discovery=[DISCOVERY])
        self.servers = servers or {
            TransportAddress(ip, port): our_server for ip in DISCOVERY.addresses for port in DISCOVERY.ports
        }
        self.local = local
        self.loss = loss
        self.random = random.Random(7)
        self.now = 100.0
        self.queue: list[tuple[float, int, TransportAddress, bytes]] = []
        self.sent: list[Transmit] = []

    def bytes(self, count: int) -> bytes:
        return self.random.randbytes(count)

    def run(self, machine: Machine, until: Callable[[], bool] | None = None) -> None:
        for _ in range(5000):
            if until is None and machine.done and not self.queue:
                return
            if until is not None and until():
                return
            for transmit in machine.take_transmits():
                self.sent.append(transmit)
                self._carry(transmit)
            arrivals = [entry[0] for entry in self.queue]
            deadline = machine.next_deadline()
            moments = arrivals + ([deadline.at] if deadline is not None else [])
            if not moments:
                continue
            self.now = max(self.now, min(moments))
            due = [entry for entry in self.queue if entry[0] <= self.now]
            self.queue = [entry for entry in self.queue if entry[0] > self.now]
            for _, socket, remote, data in due:
                machine.receive(data, remote, socket, self.now)
            machine.handle_timeout(self.now)
        raise AssertionError("the machine does not come to an end")

    def _carry(self, transmit: Transmit) -> None:
        if self.random.random() < self.loss:
            return
        source = self.nat.out(transmit.socket, self.local(transmit.socket), transmit.remote, self.now)
        if transmit.remote.ip == OUTER:
            if self.nat.hairpin:
                self._deliver(source, transmit.remote, transmit.data)
            return
        server = self.servers.get(transmit.remote)
        if server is None:
            return
        reply = server.answer(decode_untrusted(transmit.data), source, transmit.remote, self.now)
        if reply is not None and self.random.random() >= self.loss:
            self._deliver(reply.source, reply.remote, reply.data)

    def _deliver(self, source: TransportAddress, remote: TransportAddress, data: bytes) -> None:
        socket = self.nat.into(remote.port, source, self.now)
        if socket is not None:
            self.queue.append((self.now + DELAY_S, socket, source, data))
