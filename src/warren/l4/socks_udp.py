"""UDP ASSOCIATE of SOCKS5 (RFC 1928 §7): a port of this host by which one program speaks to the overlay.

The port is the program's alone: its address is that of the connection, the port is the one that it has named or has
sent from first, and on loopback the socket must be of the right user. Answers come only from hosts that it has spoken
to. When the connection ends, so does the port.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from warren.errors import MalformedPacket, OperationFailed
from warren.l4.config import Entry, Listen
from warren.l4.destinations import destination
from warren.l4.kinds import Goal, Incoming, Refused, Tools, Unanswered
from warren.l4.listening import transport_address
from warren.l4.socks_guard import check_datagram, overlay_addresses
from warren.l4.train_socket import TrainSocket
from warren.l4.trains import train_of
from warren.model.tunnel import IPAddress, TransportAddress
from warren.proto import socks

HOSTS_MAX: Final = 1024
"""Whose answers are taken; who has been spoken to longest ago goes. A program that speaks to more scans."""
PLACES_MAX: Final = 1024
"""Of which it is known whether they may be spoken to; the one that was learned of longest ago goes."""
PERMITTED_S: Final = 10.0
"""How long that, and the address of a name, is used before the agent is asked again, in the background."""
REFUSED_S: Final = 2.0
"""How long a refusal is: whoever has just changed the policy is waiting."""
WAITING_MAX: Final = 64
"""Datagrams to places that are being asked for, and such places; a program says again what is lost."""
_READ_BYTES: Final = 4096


async def associate(
    incoming: Incoming,
    request: socks.Request,
    entry: Entry,
    tools: Tools,
    say: Callable[[bytes], Awaitable[None]],
) -> None:
    """Serve until the connection ends, and close it. Raises Refused, when nothing has been granted."""
    if incoming.client is None or incoming.local is None:
        raise Refused("protocol", "UDP ASSOCIATE needs a connection from an IP address")
    where = Listen(side=incoming.listen.side, protocol="udp", address=str(incoming.local.ip))
    try:
        door = TrainSocket(await tools.listen(where))
    except OperationFailed as failure:
        raise Refused("resources", str(failure)) from None
    relay = _Relay(door, incoming.client, request.port, entry, tools)
    try:
        await relay.open()
        await say(socks.reply(socks.GRANTED, relay.local))
        loop = asyncio.get_running_loop()
        while await loop.sock_recv(incoming.sock, _READ_BYTES):
            pass  # there is nothing to be said any more
    except OSError:  # reset, which ends it as well
        pass
    finally:
        relay.close()
    incoming.sock.close()


_Place = tuple[IPAddress | str, int]
"""Address or name, and port, as the program says them."""


class _Known(NamedTuple):
    """What is known of a place: its address, or why it may not be spoken to."""

    until: float
    ip: IPAddress | None = None
    refused: Refused | None = None


class _Relay:
    def __init__(self, door: TrainSocket, client: TransportAddress, port: int, entry: Entry, tools: Tools) -> None:
        self._door = door
        self._client = client
        self._port = port  # 0: whatever it sends from first
        self._address: Any = None  # the same as the socket says it, once known
        self._entry = entry
        self._tools = tools
        self._sockets: dict[int, TrainSocket] = {}
        self._hosts: OrderedDict[str, None] = OrderedDict()
        self._known: OrderedDict[_Place, _Known] = OrderedDict()
        self._asking: dict[_Place, asyncio.Task[None]] = {}
        self._waiting: dict[_Place, list[bytes]] = {}
        self._waiting_count = 0
        local = transport_address(door.sock.getsockname())
        if local is None:
            raise TypeError("a UDP socket has an address")
        self.local: TransportAddress = local

    async def open(self) -> None:
        """Raises Refused."""
        try:
            for family in (int(socket.AF_INET6), int(socket.AF_INET)):
                sock = await self._tools.overlay.open(family, socket.SOCK_DGRAM)
                self._sockets[family] = TrainSocket(sock)
        except OperationFailed as failure:
            raise Refused("resources", str(failure)) from None
        loop = asyncio.get_running_loop()
        for overlay in self._sockets.values():
            loop.add_reader(overlay.sock.fileno(), self._answered, overlay)
        loop.add_reader(self._door.sock.fileno(), self._sent)

    def close(self) -> None:
        for asking in self._asking.values():
            asking.cancel()
        loop = asyncio.get_running_loop()
        for train_socket in (self._door, *self._sockets.values()):
            loop.remove_reader(train_socket.sock.fileno())
            train_socket.close()

    def _sent(self) -> None:
        """The client, or somebody else, has sent something."""
        for train in self._door.receive():
            if train.source == self._address or self._is_client(train.source):
                self._tools.count_bytes(train.length, 0)
                for datagram in train.datagrams():
                    self._forward(bytes(datagram))

    def _is_client(self, source: Any) -> bool:
        """Whether it is the client's first datagram, who from now on is known by its address."""
        if self._address is not None:
            return False
        address = transport_address(source)
        if address is None or address.ip != self._client.ip or self._port not in (0, address.port):
            return False
        try:
            check_datagram(address, self.local, self._entry)
        except Refused as why:
            self._tools.count(why, address)
            return False
        self._address = source
        return True

    def _forward(self, datagram: bytes) -> None:
        try:
            to = socks.datagram_untrusted(datagram)
        except MalformedPacket:
            return
        payload = datagram[to.offset :]
        place = (to.host, to.port)
        known = self._known.get(place)
        if known is None or known.until <= self._now():
            self._ask(place)
        if known is None:
            if place in self._asking and self._waiting_count < WAITING_MAX:
                self._waiting.setdefault(place, []).append(payload)
                self._waiting_count += 1
        else:
            self._deliver(known, to.port, payload)

    def _deliver(self, known: _Known, port: int, payload: bytes) -> None:
        if known.ip is not None:
            self._send(known.ip, port, payload)
        elif known.refused is not None:
            self._tools.count(known.refused, self._client)

    def _ask(self, place: _Place) -> None:
        if place not in self._asking and len(self._asking) < WAITING_MAX:
            self._asking[place] = asyncio.get_running_loop().create_task(self._learn(place))

    async def _learn(self, place: _Place) -> None:
        host, port = place
        before = self._known.get(place)
        try:
            try:
                found = await overlay_addresses(host, Goal("udp", port), self._entry, self._tools)
                known = _Known(self._now() + PERMITTED_S, ip=found[0])
            except Refused as why:
                if isinstance(why, Unanswered) and before is not None and before.ip is not None:
                    known = before._replace(until=self._now() + PERMITTED_S)  # flows outlive the agent
                else:
                    known = _Known(self._now() + REFUSED_S, refused=why)
        finally:
            del self._asking[place]
            waiting = self._waiting.pop(place, [])
            self._waiting_count -= len(waiting)
        self._known.pop(place, None)
        if len(self._known) >= PLACES_MAX:
            self._known.popitem(last=False)
        self._known[place] = known
        for payload in waiting:
            self._deliver(known, port, payload)

    def _send(self, ip: IPAddress, port: int, payload: bytes) -> None:
        where = destination("overlay", ip, port)
        overlay = self._sockets[where.family]
        host = where.address[0]
        if host in self._hosts:
            self._hosts.move_to_end(host)
        else:
            if len(self._hosts) >= HOSTS_MAX:
                self._hosts.popitem(last=False)
            self._hosts[host] = None
        overlay.send(train_of(payload), (), where.address)

    def _answered(self, overlay: TrainSocket) -> None:
        """Somebody in the overlay has sent something."""
        for train in overlay.receive():
            host, port = train.source[:2]
            if self._address is not None and host in self._hosts:
                self._tools.count_bytes(0, train.length)
                header = socks.datagram_header(TransportAddress(ip_address(host), port))
                for datagram in train.datagrams():
                    self._door.send(train_of(header + bytes(datagram)), (), self._address)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
