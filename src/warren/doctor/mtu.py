"""The path MTU to a STUN server: requests of several lengths that may not be fragmented, all at once."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Final

from warren.doctor.sockets import drive, source_for, udp_sockets
from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.proto.stun.attributes import TEXT_BYTES_MAX
from warren.proto.stun.behaviour_discovery import PROBING, Transmit
from warren.proto.stun.message import HEADER_BYTES, Attribute, Class, Method, decode_untrusted, encode
from warren.proto.stun.transactions import TimedOut, Transactions
from warren.proto.wireguard.timers import Deadline

SIZES: Final = (1280, 1340, 1360, 1380, 1400, 1420, 1440, 1460, 1480, 1492, 1500)
"""IP packets (bytes): what every IPv6 path carries, what tunnels, mobile networks and PPPoE leave of 1500."""
_IP_UDP_BYTES: Final = {4: 28, 6: 48}
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _IPV6_DONTFRAG, _PMTUDISC_PROBE = 10, 23, 62, 3


class PathMtu:
    """Which of ``SIZES`` get through to ``server`` and are answered."""

    def __init__(self, server: TransportAddress, random: Callable[[int], bytes], now: float) -> None:
        self._transactions = Transactions(PROBING)
        self.largest: int | None = None
        for size in SIZES:
            data = _request(size - _IP_UDP_BYTES[server.ip.version], random(12))
            self._transactions.start(data, size, server, now)

    @property
    def done(self) -> bool:
        return not len(self._transactions)

    def receive(self, data: bytes, remote: TransportAddress, socket: int, now: float) -> bool:  # noqa: ARG002 - one
        try:
            message = decode_untrusted(data)
        except MalformedPacket:
            return False
        taken = self._transactions.receive(message, remote, now)
        for event in self._transactions.take_events():
            if not isinstance(event, TimedOut) and isinstance(event.tag, int):
                self.largest = max(self.largest or 0, event.tag)
                for size in SIZES:  # shorter ones have nothing to add
                    if size < event.tag:
                        self._transactions.cancel(size)
        return taken

    def handle_timeout(self, now: float) -> None:
        self._transactions.handle_timeout(now)
        self._transactions.take_events()

    def next_deadline(self) -> Deadline | None:
        return self._transactions.next_deadline()

    def take_transmits(self) -> list[Transmit]:
        return [Transmit(0, request.remote, request.data) for request in self._transactions.take_transmits()]


async def path_mtu(server: TransportAddress, within_s: float, now: Callable[[], float]) -> int | None:
    """The longest IP packet (bytes) of ``SIZES`` that ``server`` answered; None: none of them."""
    source = source_for(server)
    if source is None:
        return None
    machine = PathMtu(server, os.urandom, now())
    async with udp_sockets(source, 1) as sockets:
        _forbid_fragments(sockets[0])
        await drive(machine, sockets, within_s)
    return machine.largest


def _forbid_fragments(one: socket.socket) -> None:
    if one.family == socket.AF_INET:
        one.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
    else:
        one.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
        one.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1)


def _request(length: int, transaction: bytes) -> bytes:
    """A Binding request of ``length`` bytes, a multiple of 4."""
    attributes = []
    left = length - HEADER_BYTES
    longest = (TEXT_BYTES_MAX & ~3) + 4
    while left:
        taken = min(left, longest)
        attributes.append((int(Attribute.SOFTWARE), b" " * (taken - 4)))
        left -= taken
    return encode(Method.BINDING, Class.REQUEST, transaction, attributes)
