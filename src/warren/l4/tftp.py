"""The helper for TFTP: the answer to a request comes from another port, and so the flow goes there from then on.

To the client it is one server that answers from the port it was asked at, which RFC 1350 §4 leaves it free to do; so
one helper may speak to another. Nothing but TFTP passes, and only from the host that was asked.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any, Final

from warren.errors import MalformedPacket
from warren.l4.datagram_flow import Flow, Origin, Site
from warren.l4.destinations import Destination, connect
from warren.l4.kinds import Refused
from warren.l4.train_socket import TrainSocket, answering
from warren.l4.trains import Train, train_of
from warren.proto import tftp

_IP_RECVERR, _IPV6_RECVERR = 11, 25
_SILENT: Final = frozenset({"source", "rate", "protocol"})
"""Reasons that are not told: whoever sends what comes to nothing shall get nothing for it."""


class TftpFlow(Flow):
    """One client port. A new request from it begins a new transfer, as some clients keep their port."""

    __slots__ = ("_pinned", "_request", "_where")

    direct = False
    moves_on = False  # nobody else knows of the transfer; and at its end the server closes the port

    def __init__(self, site: Site, origin: Origin, ended: Callable[[], None]) -> None:
        super().__init__(site, origin, ended)
        self._request = b""
        self._pinned: Any = None
        self._where: Destination | None = None

    def forward(self, train: Train) -> None:
        for datagram in train.datagrams():
            with contextlib.suppress(MalformedPacket):
                if datagram[1:2] in (b"\1", b"\2"):
                    self._begin(bytes(datagram))
                elif self._pinned is not None:
                    tftp.transfer_opcode_untrusted(datagram, from_server=False)
                    super().forward(train_of(bytes(datagram)))

    def _begin(self, request: bytes) -> None:
        """A request, or the same once more since no answer has come."""
        tftp.request_untrusted(request)
        if self._request and (self._pinned is not None or request != self._request):
            self.start_anew()
        self._request = request
        super().forward(train_of(request))

    async def attach(self, upstream: TrainSocket, where: Destination) -> None:
        with await self._site.destinations.open(where.side, where.family) as probe:
            # Whether there is a way, and one that leads on.
            connect(probe, where, self._site.own_ports(where.side), self._site.way)
        six = where.family == socket.AF_INET6
        # Not connected, it is told what ICMP reports only if it asks.
        upstream.sock.setsockopt(41 if six else 0, _IPV6_RECVERR if six else _IP_RECVERR, 1)
        self._where, self._pinned = where, None

    def send(self, upstream: TrainSocket, train: Train) -> int:
        if self._pinned is None and self._where is not None:
            return upstream.send(train, (), self._where.address)
        return upstream.send(train)

    def answers(self, upstream: TrainSocket, train: Train) -> Sequence[Train]:
        if not self._is_server(train.source):
            return ()
        found = []
        for datagram in train.datagrams():
            with contextlib.suppress(MalformedPacket):
                tftp.transfer_opcode_untrusted(datagram, from_server=True)
                found.append(train_of(datagram))
        if found and self._pinned is None:
            with contextlib.suppress(OSError):  # then others are told apart here alone
                upstream.sock.connect(train.source)
            self._pinned = train.source
        return found

    def _is_server(self, source: Any) -> bool:
        if self._pinned is not None:
            return bool(source == self._pinned)
        return self._where is not None and _same_host(source, self._where.address)

    def refused(self, why: Refused) -> None:
        if self._request:
            text = tftp.error(f"refused: {why}", bytes_max=len(self._request))
            self.answer(train_of(text))


def check_begins(train: Train) -> None:
    """Raises Refused when it is not what a client begins with."""
    try:
        tftp.request_untrusted(bytes(next(train.datagrams())))
    except MalformedPacket:
        raise Refused("protocol", "what came first is no request of TFTP") from None


def refuse_transfer(door: TrainSocket, train: Train, why: Refused) -> None:
    """Tell who has asked for a transfer that there is none, in no more bytes than it took to ask."""
    if why.reason in _SILENT:
        return
    text = tftp.error(f"refused: {why}", bytes_max=train.length)
    door.send(train_of(text), answering(door.sock.family, train.local), train.source)


def _same_host(one: Any, other: Any) -> bool:
    return ip_address(one[0].partition("%")[0]) == ip_address(other[0].partition("%")[0]) and one[3:] == other[3:]
