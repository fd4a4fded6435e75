"""Where the datagrams of an entry go: its backends as socket addresses, and which of them failed of late."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from warren.errors import OperationFailed
from warren.l4 import closed_places, own_places
from warren.l4.config import Backend, Side, Way
from warren.l4.kinds import Refused, Tools
from warren.l4.overlay import HostSockets
from warren.l4.permitted import Closed
from warren.model.tunnel import IPAddress

_FAILED_S: Final = 10.0
"""How long a destination that was unreachable is asked last. Short: nobody tells us that it is back."""
_FAILED_MAX: Final = 256
"""A way has far fewer; more come only from names that resolve to others each time."""
_RESOLVED_S: Final = 10.0
"""How long an answer to a name is used: a flood of flows is not a flood of questions."""
_RESOLVED_MAX: Final = 64
"""A way names at most so many, unless it changes all the time."""
OPEN: Final = Way()
"""That is closed to nothing."""
_OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

UNREACHABLE: Final = frozenset(
    {
        errno.ECONNREFUSED,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.EACCES,
        errno.EPERM,
        errno.ENOPROTOOPT,
        errno.EPROTO,
    }
)
"""What ICMP and the routing table say of a destination (icmp(7)): trying another one may help. EPERM and EACCES are a
firewall's words."""


class Destination(NamedTuple):
    """A socket address on one side."""

    side: Side
    family: int
    address: Any
    """As Python's socket module writes those of ``family``."""


class Attempt(NamedTuple):
    """A backend that may be tried; ``destination`` None: its name is to be resolved first."""

    backend: Backend
    destination: Destination | None


class Destinations:
    """Of one entry. All calls come from the event loop."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._host = HostSockets()
        self._failed: dict[Destination, float] = {}
        self._resolved: dict[tuple[str, int], tuple[float, asyncio.Task[list[Destination]]]] = {}

    def attempts(self, way: Way) -> list[Attempt]:
        """The way's backends, best first; what failed of late comes last. Raises Refused when there are none."""
        if way.refusal:
            raise Refused(way.refused_as, way.refusal)
        if not way.backends:
            raise Refused("no-backend", "nobody serves this now")
        found = [Attempt(backend, _literal(backend)) for backend in way.backends]
        return self._failed_last(found)

    async def resolve(self, attempt: Attempt, timeout_s: float) -> list[Attempt]:
        """The addresses behind the name of a backend. Raises Refused."""
        backend = attempt.backend
        if backend.side == "overlay":
            found = [destination(backend.side, ip, backend.port) for ip in await self._tools.resolve(backend.host)]
        else:
            found = await self._of_host(backend, timeout_s)
        return self._failed_last([Attempt(backend, one) for one in found])

    async def open(self, side: Side, family: int) -> socket.socket:
        """A new UDP socket of that side. Raises Refused."""
        maker = self._tools.overlay if side == "overlay" else self._host
        try:
            return await maker.open(family, socket.SOCK_DGRAM)
        except OperationFailed as failure:
            raise Refused("resources", str(failure)) from None

    def failed(self, where: Destination) -> None:
        """Nobody is there, says an ICMP message or the routing table."""
        if len(self._failed) >= _FAILED_MAX:
            self._failed.clear()
        self._failed[where] = time.monotonic() + _FAILED_S

    def answered(self, where: Destination) -> None:
        if self._failed:
            self._failed.pop(where, None)

    def close(self) -> None:
        for _, asking in self._resolved.values():
            asking.cancel()
        self._resolved.clear()

    def _failed_last(self, attempts: list[Attempt]) -> list[Attempt]:
        if self._failed:
            now = time.monotonic()
            attempts.sort(key=lambda one: one.destination is not None and self._failed.get(one.destination, 0.0) > now)
        return attempts

    async def _of_host(self, backend: Backend, timeout_s: float) -> list[Destination]:
        key, now = (backend.host, backend.port), time.monotonic()
        expires, asking = self._resolved.get(key, (0.0, None))
        if asking is None or expires < now or (asking.done() and (asking.cancelled() or asking.exception())):
            if len(self._resolved) >= _RESOLVED_MAX:
                self._resolved.clear()  # who waits for one goes on waiting
            asking = asyncio.create_task(_ask(*key))
            self._resolved[key] = now + _RESOLVED_S, asking
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(asking)
        except TimeoutError:
            raise Refused("unresolved", f"{backend.host} does not resolve: nobody answers in time") from None
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no host name"
            raise Refused("unresolved", f"{backend.host} does not resolve: {reason}") from None


def destination(side: Side, ip: Any, port: int) -> Destination:
    """Of an address of :mod:`ipaddress`."""
    if ip.version == 4:
        return Destination(side, socket.AF_INET, (str(ip), port))
    return Destination(side, socket.AF_INET6, (str(ip), port, 0, 0))


def connect(sock: socket.socket, where: Destination, own_ports: Iterable[int], way: Way = OPEN) -> None:
    """Have the kernel pass nothing but what ``where`` sends, and say when it is unreachable. Raises Refused, also for
    what ``way`` is closed to.

    ``own_ports`` are those at which the entry itself listens on that side: what leads back there is refused, and on the
    host's side what leads to any listener of this process. (The kernel speaks to an address of this host from that same
    address.)
    """
    if where.side == "host":
        why = closed_places.objection(_ip(where), where.address[1], way)
        if why:
            raise Refused("policy", why)
    try:
        sock.connect(where.address)
        local = sock.getsockname()
    except OSError as error:
        reason = "resources" if error.errno in _OUT_OF_RESOURCES else "connect"
        raise Refused(reason, f"{where.address[0]} cannot be reached: {error.strerror}") from None
    here, there = (ip_address(str(name[0]).partition("%")[0]) for name in (local, where.address))
    back = where.side == "host" and own_places.leads_back(socket.SOCK_DGRAM, there, where.address[1], here)
    if back or (where.address[1] in own_ports and here == there):
        raise Refused("connect", f"{where.address[0]} port {where.address[1]} is where this comes from: a loop")


def leads_to(where: Destination | None, closed: Closed) -> bool:
    """Whether it is what was closed on the host's side."""
    return where is not None and where.side == "host" and closed(_ip(where), where.address[1])


def _ip(where: Destination) -> IPAddress:
    return ip_address(str(where.address[0]).partition("%")[0])


def _literal(backend: Backend) -> Destination | None:
    try:
        address = ip_address(backend.host)
    except ValueError:
        return None
    return None if "%" in backend.host else destination(backend.side, address, backend.port)


async def _ask(host: str, port: int) -> list[Destination]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    return [Destination("host", family, address) for family, _, _, _, address in found]
