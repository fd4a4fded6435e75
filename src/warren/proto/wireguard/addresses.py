"""Socket addresses: where messages come from and go to, in the three forms that the data plane knows.

=============================================  ====================================================================
``(host, port)``                               IPv4, by the tunnel's own port; as Python's socket module writes it
``(host, port, flow info, scope)``             the same of IPv6
``(host, port, 0, scope, channel, socket)``    a detour: through a channel of the TURN server ``host:port``
                                               (RFC 8656 §12; 0: none), by a socket that was handed over (0: our own)
=============================================  ====================================================================

The same place has one form only, so two addresses may be compared. A route's source address and interface are not
part of it: they go with it as ``local``, the ancillary data ``in_pktinfo`` (``ip(7)``) or ``in6_pktinfo``
(``ipv6(7)``) that makes a datagram leave from there.
"""

from __future__ import annotations

import struct
from ipaddress import IPv6Address, ip_address
from typing import Any

from warren.model.ip import unmapped
from warren.model.tunnel import PLAIN, IPAddress, TransportAddress, Way

SocketAddress = tuple[Any, ...]

_DETOUR = 6

# struct in_pktinfo: ipi_ifindex, ipi_spec_dst, ipi_addr. struct in6_pktinfo: ipi6_addr, ipi6_ifindex. Host byte order.
_pktinfo4 = struct.Struct("=i4s4x")
_pktinfo6 = struct.Struct("=16si")


def socket_address(endpoint: TransportAddress, way: Way = PLAIN) -> SocketAddress:
    """``endpoint`` by ``way``; an IPv4 address written in IPv6 becomes IPv4."""
    ip = unmapped(endpoint.ip)
    if way.channel or way.socket:
        return (str(ip), endpoint.port, 0, endpoint.scope, way.channel, way.socket)
    if isinstance(ip, IPv6Address):
        return (str(ip), endpoint.port, 0, endpoint.scope)
    return (str(ip), endpoint.port)


def transport_address(address: SocketAddress) -> TransportAddress:
    """Where ``address`` is; of a detour through a channel, the TURN server."""
    return TransportAddress(ip_address(address[0]), address[1], address[3] if len(address) > 2 else 0)


def way_of(address: SocketAddress, local: bytes = b"") -> Way:
    """How one gets to ``address``, leaving from ``local`` if that is given."""
    source, interface = unpack_local(local)
    channel, socket = address[4:] if len(address) == _DETOUR else (0, 0)
    return Way(source, interface, channel, socket)


def through_channel(server: SocketAddress, channel: int) -> SocketAddress:
    """What is behind ``channel`` of the TURN server ``server``, an address without a channel."""
    scope = server[3] if len(server) > 2 else 0
    return (server[0], server[1], 0, scope, channel, server[5] if len(server) == _DETOUR else 0)


def through_socket(address: SocketAddress, socket: int) -> SocketAddress:
    """``address``, as Python's socket module gives it, by the socket with that number."""
    return (address[0], address[1], 0, address[3] if len(address) > 2 else 0, 0, socket)


def server_of(address: SocketAddress) -> SocketAddress | None:
    """The TURN server on the way to ``address``; None when there is none."""
    if len(address) != _DETOUR or not address[4]:
        return None
    return (*address[:4], 0, address[5]) if address[5] else direct(address)


def direct(address: SocketAddress) -> SocketAddress:
    """``address`` without its detour, as Python's socket module takes it."""
    return address[:4] if ":" in address[0] else address[:2]


def pack_local(way: Way, host: str) -> bytes:
    """The ``local`` that goes with the address ``host`` by ``way``; empty: the kernel chooses.

    Raises ValueError when the way's source is of the other family.
    """
    if way.source is None and not way.interface:
        return b""
    source = b"" if way.source is None else way.source.packed
    if ":" in host:
        if len(source) not in (0, 16):
            raise ValueError("an IPv6 address is not reached from an IPv4 address")
        return _pktinfo6.pack(source, way.interface)
    if len(source) not in (0, 4):
        raise ValueError("an IPv4 address is not reached from an IPv6 address")
    return _pktinfo4.pack(way.interface, source)


def unpack_local(local: bytes) -> tuple[IPAddress | None, int]:
    """The inverse of :func:`pack_local`: source address (None: any) and interface index (0: any)."""
    if len(local) == _pktinfo4.size:
        interface, source = _pktinfo4.unpack(local)
    elif len(local) == _pktinfo6.size:
        source, interface = _pktinfo6.unpack(local)
    else:
        return None, 0
    return (ip_address(source) if any(source) else None), interface


def written(address: SocketAddress) -> str:
    """As people write it: ``192.0.2.1:51820``, ``[2001:db8::1]:51820``, ``[fe80::1%3]:51820``, and what follows."""
    way = way_of(address)
    channel = f" channel {way.channel:#06x}" if way.channel else ""
    socket = f" by socket {way.socket}" if way.socket else ""
    return f"{transport_address(address)}{channel}{socket}"
