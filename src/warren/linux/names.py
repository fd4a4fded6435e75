"""The door to name resolution: the host's own (getaddrinfo), in a thread that nobody has to wait for."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
from collections.abc import Collection, Sequence
from ipaddress import ip_address

from warren.errors import OperationFailed
from warren.model.tunnel import TransportAddress

_NO_WAY = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


async def resolve(host: str, port: int, zone: str = "") -> tuple[TransportAddress, ...]:
    """The addresses of ``host`` (a name or an address), best first: reachable ones, and of those IPv6, come first.

    Raises OperationFailed with the reason. Cancelling it leaves its thread to end by itself.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[tuple[TransportAddress, ...]] = loop.create_future()

    def deliver(addresses: tuple[TransportAddress, ...], error: OperationFailed | None) -> None:
        if answer.done():
            return
        if error is None:
            answer.set_result(addresses)
        else:
            answer.set_exception(error)

    def look_up() -> None:
        addresses: tuple[TransportAddress, ...] = ()
        error = None
        try:
            addresses = _look_up(host, port, zone)
        except OperationFailed as caught:
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(deliver, addresses, error)

    # A daemon, not the loop's executor: that one is waited for at exit, and a dead name server takes half a minute.
    threading.Thread(target=look_up, name=f"resolve {host}", daemon=True).start()
    return await answer


def _look_up(host: str, port: int, zone: str) -> tuple[TransportAddress, ...]:
    scope = _scope(zone)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, proto=socket.IPPROTO_UDP)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else "not a host name"
        raise OperationFailed(f"{host} cannot be resolved ({reason})") from None
    addresses = dict.fromkeys(
        TransportAddress(ip_address(str(sockaddr[0]).partition("%")[0]), port, scope or _own_scope(sockaddr))
        for _, _, _, _, sockaddr in found
    )
    return tuple(sort_by_preference(addresses, [_reachable(address) for address in addresses]))


def sort_by_preference(addresses: Collection[TransportAddress], reachable: Sequence[bool]) -> list[TransportAddress]:
    """Reachable before unreachable, IPv6 before IPv4, else in the given order (RFC 6724's, from getaddrinfo)."""
    ranked = zip(addresses, reachable, strict=True)
    return [address for address, _ in sorted(ranked, key=lambda pair: (not pair[1], -pair[0].ip.version))]


def _scope(zone: str) -> int:
    if not zone:
        return 0
    with contextlib.suppress(OSError):
        return int(zone) if zone.isdigit() else socket.if_nametoindex(zone)
    raise OperationFailed(f"there is no interface {zone} for a link-local endpoint; `ip link` lists those that are")


def _own_scope(sockaddr: tuple[object, ...]) -> int:
    scope = sockaddr[3] if len(sockaddr) == 4 else 0
    return scope if isinstance(scope, int) else 0


def _reachable(address: TransportAddress) -> bool:
    """Whether there is a route; connecting a UDP socket sends nothing."""
    family = socket.AF_INET6 if address.ip.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            target = (str(address.ip), address.port)
            probe.connect((*target, 0, address.scope) if family == socket.AF_INET6 else target)
    except OSError as error:
        return error.errno not in _NO_WAY
    return True
