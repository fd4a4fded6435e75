"""The first routers on the way, as they name themselves when a datagram's hop limit ends there (ICMP, RFC 792).

Needs no privilege: the kernel hands errors over through the socket's error queue (IP_RECVERR, ip(7)). IPv4 only: it is
there that private addresses tell of more than one NAT.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from ipaddress import IPv4Address
from typing import Final

from warren.model.tunnel import TransportAddress
from warren.proto.stun.binding import pack_binding_request

HOPS: Final = 4
"""A home router, a carrier's NAT, and what may lie between."""
_REPEATS: Final = 3
_EVERY_S: Final = 0.3
_IP_RECVERR: Final = 11
_MSG_ERRQUEUE: Final = 0x2000
_EE_BYTES: Final = 16  # struct sock_extended_err; the offender's sockaddr_in follows
_ORIGIN_ICMP, _TIME_EXCEEDED = 2, 11


async def first_hops(server: TransportAddress) -> tuple[str, ...]:
    """The addresses of the routers up to ``HOPS`` hops towards ``server``; empty texts for those that do not say.
    Takes about a second.
    """
    loop = asyncio.get_running_loop()
    found: dict[int, str] = {}
    with contextlib.ExitStack() as stack:
        sockets = [_limited(stack, hops) for hops in range(1, HOPS + 1)]

        def readable(number: int) -> None:
            address = _offender(sockets[number])
            if address:
                found[number] = address

        for number, one in enumerate(sockets):
            loop.add_reader(one, readable, number)
        try:
            for _ in range(_REPEATS):
                for number, one in enumerate(sockets):
                    if number not in found:
                        with contextlib.suppress(OSError):
                            one.sendto(pack_binding_request(os.urandom(12)), (str(server.ip), server.port))
                await asyncio.sleep(_EVERY_S)
        finally:
            for one in sockets:
                loop.remove_reader(one)
    last = max(found, default=-1)
    return tuple(found.get(number, "") for number in range(last + 1))


def _limited(stack: contextlib.ExitStack, hops: int) -> socket.socket:
    one = stack.enter_context(
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    )
    one.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
    one.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    return one


def _offender(one: socket.socket) -> str:
    """Who said that the hop limit ended there; empty when it was something else."""
    try:
        _, controls, _, _ = one.recvmsg(2048, 512, _MSG_ERRQUEUE)
    except OSError:
        with contextlib.suppress(OSError):  # the server answered: take it away, or this is called again and again
            one.recv(2048)
        return ""
    for level, kind, data in controls:
        if (level, kind) == (socket.IPPROTO_IP, _IP_RECVERR) and len(data) >= _EE_BYTES + 8:
            origin, icmp = data[4], data[5]
            if (origin, icmp) == (_ORIGIN_ICMP, _TIME_EXCEEDED):
                return str(IPv4Address(data[_EE_BYTES + 4 : _EE_BYTES + 8]))
    return ""
