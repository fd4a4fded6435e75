"""The sockets of port mapping: a fresh one for each exchange, gone when it is over; one that hears announcements."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from warren import log
from warren.errors import MalformedPacket
from warren.model.tunnel import IPAddress, TransportAddress
from warren.proto.portmap.exchange import Datagram, Fetching
from warren.proto.portmap.http import Response, ResponseReader
from warren.proto.portmap.natpmp import ANNOUNCE_PORT

HOPS: Final = 2  # UPnP Device Architecture 1.1 §1.3.2: a search goes no further
_DATAGRAM_BYTES: Final = 4096  # PCP has up to 1,100 bytes, SSDP one header
_READS_MAX: Final = 16  # between two turns of the event loop
_PIECE_BYTES: Final = 16 * 1024
_MREQN: Final = struct.Struct("=4s4si")  # ip(7), struct ip_mreqn

_log = log.get("portmap")


class Sockets:
    """Owned by one event loop. What comes in goes to the three callbacks; who may speak the machine decides."""

    def __init__(
        self,
        receive: Callable[[int, bytes, TransportAddress], None],
        fetched: Callable[[int, int, Response | None], None],
        announced: Callable[[bytes, TransportAddress], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._receive = receive
        self._fetched = fetched
        self._announced = announced
        self._lanes: dict[int, tuple[IPAddress | None, socket.socket]] = {}
        self._fetches: dict[int, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._listening: list[socket.socket] = []

    def send(self, datagram: Datagram) -> None:
        """What cannot be sent is lost, as on the wire: the machine asks again, and gives up in the end."""
        try:
            sock = self._lane(datagram)
            sock.sendto(datagram.data, _sockaddr(datagram.remote))
        except OSError as error:
            _log.debug("nothing can be sent to %s from %s: %s", datagram.remote, datagram.gateway.source, error)

    def fetch(self, fetching: Fetching) -> None:
        """Begin; the lane's earlier one is ended."""
        self.forget(fetching.lane)
        task = self._loop.create_task(self._fetch(fetching))
        self._fetches[fetching.lane] = task
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def forget(self, lane: int) -> None:
        """Close the socket of that lane, and end what it fetches."""
        kept = self._lanes.pop(lane, None)
        if kept is not None:
            self._close(kept[1])
        task = self._fetches.pop(lane, None)
        if task is not None and task is not asyncio.current_task(self._loop):
            task.cancel()

    def listen(self, wanted: bool) -> None:
        """Whether to hear what gateways tell all hosts. Without it a restart is noticed later."""
        if wanted and not self._listening:
            for family in (socket.AF_INET, socket.AF_INET6):
                with contextlib.suppress(OSError):  # no such family here, or somebody has the port for himself
                    self._listening.append(self._open_announcements(family))
        elif not wanted:
            for sock in self._listening:
                self._close(sock)
            self._listening.clear()

    async def close(self) -> None:
        for lane in [*self._lanes, *self._fetches]:
            self.forget(lane)
        self.listen(False)
        ending = list(self._ending)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    # UDP

    def _lane(self, datagram: Datagram) -> socket.socket:
        kept = self._lanes.get(datagram.lane)
        if kept is not None:
            if kept[0] == datagram.source:
                return kept[1]
            self.forget(datagram.lane)
        sock = _open(datagram.remote.ip, socket.SOCK_DGRAM, datagram.source, datagram.gateway.interface)
        self._lanes[datagram.lane] = datagram.source, sock
        self._loop.add_reader(sock, self._read, sock, lambda data, remote: self._receive(datagram.lane, data, remote))
        return sock

    def _read(self, sock: socket.socket, take: Callable[[bytes, TransportAddress], None]) -> None:
        for _ in range(_READS_MAX):
            if sock.fileno() < 0:  # what was just taken ended the exchange
                return
            try:
                data, place = sock.recvfrom(_DATAGRAM_BYTES)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error: nobody listens there
                continue
            take(data, _transport_address(place))

    def _open_announcements(self, family: int) -> socket.socket:
        """Every host is in the groups 224.0.0.1 and ff02::1 already."""
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(("", ANNOUNCE_PORT))
            self._loop.add_reader(sock, self._read, sock, self._announced)
        except BaseException:
            sock.close()
            raise
        return sock

    def _close(self, sock: socket.socket) -> None:
        self._loop.remove_reader(sock)
        sock.close()

    # TCP

    async def _fetch(self, fetching: Fetching) -> None:
        response = None
        try:
            async with asyncio.timeout(fetching.timeout_s):
                response = await _exchange(fetching)
        except (TimeoutError, OSError, MalformedPacket) as error:
            _log.debug("%s gave no answer by HTTP: %s", fetching.gateway, str(error) or "not in time")
        self._fetches.pop(fetching.lane, None)
        self._fetched(fetching.lane, fetching.number, response)


async def _exchange(fetching: Fetching) -> Response:
    """One request over a connection of its own, whatever proxies the environment names. Raises OSError,
    MalformedPacket.
    """
    loop = asyncio.get_running_loop()
    gateway = fetching.gateway
    reader = ResponseReader()
    with _open(fetching.remote.ip, socket.SOCK_STREAM, gateway.source, gateway.interface) as sock:
        await loop.sock_connect(sock, _sockaddr(fetching.remote))
        await loop.sock_sendall(sock, fetching.request)
        while True:
            piece = await loop.sock_recv(sock, _PIECE_BYTES)
            if not piece or reader.receive_untrusted(piece):
                return reader.end_untrusted()


def _open(remote: IPAddress, kind: int, source: IPAddress | None, interface: int) -> socket.socket:
    """A socket from which packets leave by ``interface`` only. Raises OSError."""
    is_ipv6 = isinstance(remote, IPv6Address)
    family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        _bind_to_interface(sock, interface)
        if source is not None:
            sock.bind((str(source), 0))
        if remote.is_multicast and is_ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, interface)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, HOPS)
        elif remote.is_multicast:
            group = _MREQN.pack(bytes(4), bytes(4), interface)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, group)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, HOPS)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_to_interface(sock: socket.socket, interface: int) -> None:
    """Where that is not permitted, the source address and the routes decide."""
    try:
        name = socket.if_indextoname(interface).encode()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENXIO}:
            raise


def _sockaddr(address: TransportAddress) -> tuple[str, int] | tuple[str, int, int, int]:
    if isinstance(address.ip, IPv4Address):
        return str(address.ip), address.port
    return str(address.ip), address.port, 0, address.scope


def _transport_address(place: tuple[str, int] | tuple[str, int, int, int]) -> TransportAddress:
    ip = ip_address(place[0].partition("%")[0])
    return TransportAddress(ip, place[1], place[3] if len(place) == 4 else 0)
