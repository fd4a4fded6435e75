"""The helper for TFTP: the answer to a request comes from another port, and so the flow goes there from then on.

To the client it is one server that answers from the port it was asked at, which RFC 1350 §4 leaves it free to do; so
one helper may speak to another. Nothing but TFTP passes, and only from the host that was asked.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Hashable
from ipaddress import ip_address
from typing import Any, Final

from warren.errors import MalformedPacket
from warren.l4.datagram_flow import Flow, Site
from warren.l4.destinations import Destination, connect
from warren.l4.kinds import Refused
from warren.l4.trains import Control, TrainSocket, answering, datagrams
from warren.model.tunnel import TransportAddress
from warren.proto import tftp

_IP_RECVERR, _IPV6_RECVERR = 11, 25
_SILENT: Final = frozenset({"source", "rate", "protocol"})
"""Reasons that are not told: whoever sends what comes to nothing shall get nothing for it."""


class TftpFlow(Flow):
    """One client port. A new request from it begins a new transfer, as some clients keep their port."""

    __slots__ = ("_pinned", "_request", "_where")

    moves_on = False  # nobody else knows of the transfer; and at its end the server closes the port

    def __init__(
        self,
        site: Site,
        door: TrainSocket,
        key: Hashable,
        address: Any,
        client: TransportAddress,
        control: Control,
        train: memoryview,
        begin: Callable[[], Callable[[], None]],
    ) -> None:
        """``train`` is what the client began with; ``begin`` counts the flow. Raises Refused."""
        try:
            tftp.request_untrusted(bytes(train))
        except MalformedPacket:
            raise Refused("protocol", "what came first is no request of TFTP") from None
        super().__init__(site, door, key, address, client, control, begin())
        self._request = b""
        self._pinned: Any = None
        self._where: Destination | None = None

    def forward(self, train: memoryview, stride: int) -> None:
        try:
            for datagram in datagrams(train, stride):
                if datagram[1:2] in (b"\1", b"\2"):
                    self._begin(bytes(datagram))
                elif self._pinned is not None:
                    tftp.transfer_opcode_untrusted(datagram, from_server=False)
                    super().forward(memoryview(datagram), len(datagram))
        except MalformedPacket:
            return

    def _begin(self, request: bytes) -> None:
        """A request, or the same once more since no answer has come."""
        tftp.request_untrusted(request)
        if self._request and (self._pinned is not None or request != self._request):
            self.start_anew()
        self._request = request
        super().forward(memoryview(request), len(request))

    async def attach(self, upstream: TrainSocket, where: Destination) -> None:
        with await self._site.destinations.open(where.side, where.family) as probe:
            connect(probe, where, self._site.own_ports(where.side))  # whether there is a way, and one that leads on
        six = where.family == socket.AF_INET6
        # Not connected, it is told what ICMP reports only if it asks.
        upstream.sock.setsockopt(41 if six else 0, _IPV6_RECVERR if six else _IP_RECVERR, 1)
        self._where, self._pinned = where, None

    def send(self, upstream: TrainSocket, train: memoryview | bytes, stride: int) -> int:
        if self._pinned is None and self._where is not None:
            return upstream.send(train, stride, (), self._where.address)
        return upstream.send(train, stride)

    def accepts(self, upstream: TrainSocket, train: memoryview) -> bool:
        if self._pinned is not None and upstream.source != self._pinned:
            return False
        try:
            for datagram in datagrams(train, upstream.stride):
                tftp.transfer_opcode_untrusted(datagram, from_server=True)
        except MalformedPacket:
            return False
        if self._pinned is None:
            if self._where is None or not _same_host(upstream.source, self._where.address):
                return False
            with contextlib.suppress(OSError):  # then it is told apart here alone
                upstream.sock.connect(upstream.source)
            self._pinned = upstream.source
        return True

    def refused(self, why: Refused) -> None:
        if self._request:
            text = tftp.error(f"refused: {why}", bytes_max=len(self._request))
            self.answer(memoryview(text), len(text))


def refuse_transfer(door: TrainSocket, train: memoryview, why: Refused) -> None:
    """Tell who has asked for a transfer that there is none, in no more bytes than it took to ask."""
    if why.reason in _SILENT:
        return
    text = tftp.error(f"refused: {why}", bytes_max=len(train))
    door.send(text, len(text), answering(door.sock.family, door.local), door.source)


def _same_host(one: Any, other: Any) -> bool:
    return ip_address(one[0].partition("%")[0]) == ip_address(other[0].partition("%")[0]) and one[3:] == other[3:]
