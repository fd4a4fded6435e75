"""The resolver of a node: the names of its networks, over UDP and TCP; other names by the servers asked before it.

One resolver serves all networks of a node. It listens on the node's own overlay address in each of them, answers on any
of them for all of them, and only to this host itself: every member runs its own, so a question from elsewhere is
refused, and nobody's names or servers are anybody else's business. In this way a name server in /etc/resolv.conf, which
knows no networks, and one per interface, which systemd-resolved does, are the same thing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import Final, Literal, NamedTuple

from warren.dns.answers import TCP_BYTES, Answers, Foreign, is_query, refusal
from warren.dns.names import Zone
from warren.dns.upstream import PORT, Server, Upstream
from warren.errors import OperationFailed
from warren.linux.port_users import bound_at
from warren.log import get
from warren.model.tunnel import IPAddress

CONNECTIONS_MAX: Final = 64
"""TCP connections of this host; one more is closed at once."""
IDLE_S: Final = 10.0
"""A TCP connection that is silent for so long is closed (RFC 7766 §6.2.3 asks for a few seconds)."""
QUERY_BYTES_MAX: Final = 4096
"""Of a TCP query; the longest that means anything has some 300."""
_BATCH: Final = 64
"""Datagrams taken at a time before others have their turn."""
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78  # linux/in.h, linux/in6.h: before the interface has its address
_log = get("dns")

OpenSocket = Callable[[int, int], Awaitable[socket.socket]]
"""Makes a socket of a family and a kind. Raises OSError or OperationFailed."""


class Resolver:
    """Made once for a node; all methods belong to one event loop.

    ``own`` says whether a source is an address of this host; ``port`` is 53 but in tests. With ``open_socket`` it
    listens in another network than this process is in, for which ``own`` has to speak then; other name servers are
    asked from here nevertheless.
    """

    def __init__(
        self,
        *,
        port: int = PORT,
        own: Callable[[IPAddress], bool] | None = None,
        open_socket: OpenSocket | None = None,
    ) -> None:
        self._port = port
        self._own = own or is_own_address
        self._open_socket = open_socket or _open_here
        self._answers = Answers()
        self._zones: dict[object, Zone] = {}
        self._servers: tuple[Server, ...] = ()
        self._upstream = Upstream()
        self._doors: dict[IPAddress, _Door] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0

    @property
    def addresses(self) -> frozenset[IPAddress]:
        """Where it listens."""
        return frozenset(self._doors)

    async def listen(self, addresses: Iterable[IPAddress]) -> None:
        """Listen on exactly these addresses from now on, which the host need not have yet.

        Raises OperationFailed when one is refused; the others then are as wished.
        """
        wanted = frozenset(addresses)
        for address in self.addresses - wanted:
            self._doors.pop(address).close()
        troubles = []
        for address in sorted(wanted - self.addresses, key=lambda one: (one.version, one)):
            try:
                self._doors[address] = await self._open(address)
            except OSError as error:
                troubles.append(f"{address} ({error.strerror})")
            except OperationFailed as error:
                troubles.append(f"{address} ({error})")
        self.forward_to(self._servers)
        if troubles:
            raise OperationFailed(
                f"the resolver cannot listen on port {self._port} of {', '.join(troubles)}; "
                "end the other name server there, or let it listen on its own addresses only"
            )

    def serve(self, zones: Mapping[object, Zone]) -> None:
        """Answer from these zones from now on, one for each network; the change takes effect between two queries."""
        if zones != self._zones:
            self._zones = dict(zones)
            self._answers.set_zones(zones.values())

    def forward_to(self, servers: Sequence[Server]) -> None:
        """Ask these for all other names from now on; without any, such a question is refused.

        Addresses on which this resolver itself listens are left out.
        """
        self._servers = tuple(servers)
        mine = {(address, self._port) for address in self._doors}
        self._upstream = Upstream([server for server in servers if tuple(server) not in mine])

    async def close(self) -> None:
        """Stop listening, and end what is under way."""
        for door in self._doors.values():
            door.close()
        self._doors.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Sockets

    async def _open(self, address: IPAddress) -> _Door:
        loop = asyncio.get_running_loop()
        udp = await self._bound(address, socket.SOCK_DGRAM)
        try:
            tcp = await self._bound(address, socket.SOCK_STREAM)
        except (OSError, OperationFailed):
            udp.close()
            raise
        try:
            server = await asyncio.start_server(self._connected, sock=tcp, backlog=CONNECTIONS_MAX)
        except OSError:
            udp.close()
            tcp.close()
            raise
        loop.add_reader(udp, self._readable, udp)
        return _Door(loop, udp, server)

    async def _bound(self, address: IPAddress, kind: socket.SocketKind) -> socket.socket:
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        sock = await self._open_socket(family, kind)
        try:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # despite connections that have just ended
            _bind(sock, address, self._port)
            sock.setblocking(False)
        except OSError:
            sock.close()
            raise
        return sock

    def _readable(self, udp: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                query, source = udp.recvfrom(TCP_BYTES)
            except OSError:  # nothing more, or an ICMP error about an earlier answer
                return
            response = self._respond(query, source, tcp=False)
            if isinstance(response, Foreign):
                self._begin(self._forward_datagram(udp, query, source, response))
            elif response is not None:
                _send(udp, response, source)

    def _respond(self, query: bytes, source: tuple[str, int], *, tcp: bool) -> bytes | Foreign | None:
        """The response; a Foreign when somebody else is to be asked; None for silence."""
        if not is_query(query):
            return None
        if not self._own(ip_address(source[0])):
            return refusal(query)
        response = self._answers.answer_untrusted(query, tcp=tcp)
        if isinstance(response, Foreign) and not self._upstream.servers:
            return response.refused()
        return response

    async def _forward_datagram(
        self, udp: socket.socket, query: bytes, source: tuple[str, int], foreign: Foreign
    ) -> None:
        response = await self._upstream.ask(query, tcp=False)
        if udp.fileno() >= 0:
            _send(udp, response or foreign.failed(), source)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  start_server runs it in one
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._connections += 1
        try:
            source = writer.get_extra_info("peername")
            if self._connections <= CONNECTIONS_MAX and source and self._own(ip_address(source[0])):
                await self._converse(reader, writer, source)
        except (OSError, EOFError, TimeoutError):
            pass  # it has gone, or it is idle
        finally:
            self._connections -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: tuple[str, int]
    ) -> None:
        while True:
            async with asyncio.timeout(IDLE_S):
                length = int.from_bytes(await reader.readexactly(2), "big")
                if length > QUERY_BYTES_MAX:
                    return
                query = await reader.readexactly(length)
            response = self._respond(query, source, tcp=True)
            if isinstance(response, Foreign):
                response = await self._upstream.ask(query, tcp=True) or response.failed()
            if response is None:
                return
            writer.write(len(response).to_bytes(2, "big") + response)
            async with asyncio.timeout(IDLE_S):
                await writer.drain()

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _bind(sock: socket.socket, address: IPAddress, port: int) -> None:
    """Also beside a stream process of this node that listens at all addresses (:mod:`warren.l4.listening`); not beside
    another program that has this very address. Raises OSError.
    """
    place = (str(address), port)
    try:
        sock.bind(place)
    except OSError as error:
        protocol: Literal["tcp", "udp"] = "tcp" if sock.type == socket.SOCK_STREAM else "udp"
        if error.errno != errno.EADDRINUSE or address in bound_at(port, protocol):
            raise
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(place)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # the other one may come later


class _Door(NamedTuple):
    """The sockets of one address."""

    loop: asyncio.AbstractEventLoop
    udp: socket.socket
    server: asyncio.Server

    def close(self) -> None:
        self.loop.remove_reader(self.udp)
        self.udp.close()
        self.server.close()


def is_own_address(address: IPAddress) -> bool:
    """Whether this host has that address now. Some 20 µs.

    The kernel is asked by which address it would speak to it: only to itself it speaks by the same. (Whether a socket
    can be bound to it says less: with net.ipv4.ip_nonlocal_bind it always can.)
    """
    if address.is_loopback:  # no packet with one comes from outside
        return True
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 9))
        except OSError:
            return False
        return ip_address(probe.getsockname()[0]) == address


async def _open_here(family: int, kind: int) -> socket.socket:
    return socket.socket(family, kind)


def _send(udp: socket.socket, response: bytes, source: tuple[str, int]) -> None:
    with contextlib.suppress(OSError):  # it has gone, or its buffer is full: it will ask again
        udp.sendto(response, source)
