"""Places to listen become sockets, or sentences that say why not.

A place everywhere can be beside single addresses that another process of ours has (:attr:`Listen.beside`): the name
service of a node is at port 53 of its overlay addresses, and a gateway publishes a DNS server at ``*:53``. Linux gives
what comes in to the socket that is bound most closely, of UDP as of TCP, and lets one user have both when both say
SO_REUSEPORT. That option would also let another program of the same user share the very same place, each getting some
of the clients, without a word; so it is looked first who else has the port. A program that comes later and says so too
is let in, if it is of this user (root, where ports are low), since the name service may have to begin again: that is
found when somebody asks how it stands (:func:`sharers`). To bind each address by itself instead would take
following the addresses of the host, and leave moments in which a new one has no listener.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Collection
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any, Final

from warren.errors import OperationFailed
from warren.l4 import own_places
from warren.l4.config import Listen
from warren.l4.overlay import HostSockets, OverlaySockets
from warren.linux.port_users import bound_at
from warren.model.ip import join_host_port, unmapped
from warren.model.tunnel import IPAddress, TransportAddress

BACKLOG: Final = 4096
"""The kernel takes what net.core.somaxconn allows of it."""
KEEPALIVE_IDLE_S: Final = 600
KEEPALIVE_EVERY_S: Final = 60
KEEPALIVE_COUNT: Final = 10
"""A stream outlives ten silent minutes of its path; one whose other end is gone ends within twenty."""

_IP_TRANSPARENT, _IPV6_TRANSPARENT = 19, 75
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78
_HOST = HostSockets()


async def listen(where: Listen, overlay: OverlaySockets, *, transparent: bool = False) -> socket.socket:
    """A socket bound to ``where``, listening if it is of TCP; the caller owns it (of a path: see :func:`unlink`).

    Raises OperationFailed with what to do.
    """
    if where.path:
        return _listen_on_path(where.path)
    sockets = overlay if where.side == "overlay" else _HOST
    kind = socket.SOCK_STREAM if where.protocol == "tcp" else socket.SOCK_DGRAM
    family = socket.AF_INET6 if not where.address or ":" in where.address else socket.AF_INET
    try:
        return await _bound(sockets, family, kind, where, transparent)
    except OSError as error:
        if where.address or error.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
            raise OperationFailed(_why(where, error)) from None
    try:  # a host without IPv6
        return await _bound(sockets, socket.AF_INET, kind, where, transparent)
    except OSError as error:
        raise OperationFailed(_why(where, error)) from None


def sharers(where: Listen, sock: socket.socket) -> str:
    """Of ``sock``, which listens there: a sentence when others have the place too, and take some of the clients."""
    if not where.beside or where.address or where.path:
        return ""
    try:
        found = bound_at(where.port, where.protocol, (os.fstat(sock.fileno()).st_ino,))
    except OSError:
        return ""
    others = {str(ip) for ip in found}.difference(where.beside)
    if not others:
        return ""
    return (
        f"another program of the same user has taken {where.protocol} port {where.port} at {_listed(others)} since, "
        f"and with it clients of this one (`{_command(where)}` says which program): stop it"
    )


def prepare(sock: socket.socket) -> None:
    """Options of each TCP socket that carries a stream; what is accepted inherits them from its listener."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_EVERY_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT)


def identity(path: str) -> tuple[int, int]:
    """What :func:`unlink` knows a socket file by; taken right after listening."""
    found = Path(path).lstat()
    return found.st_dev, found.st_ino


def unlink(path: str, known: tuple[int, int]) -> None:
    """Take a socket file away, unless another program has put its own there since."""
    with contextlib.suppress(OSError):
        if identity(path) == known:
            Path(path).unlink()


def place_of(sock: socket.socket) -> str:
    """For people: where it listens."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    address = "*" if name[0] in {"::", "0.0.0.0"} else str(name[0]).partition("%")[0]  # noqa: S104 - shown
    return join_host_port(address, name[1])


def transport_address(name: Any) -> TransportAddress | None:
    """Of what ``accept``, ``getsockname`` and the like return; None for Unix sockets. IPv4 is written as such."""
    if not isinstance(name, tuple) or not name:
        return None
    ip = _parsed(name[0])
    scope = name[3] if len(name) == 4 and isinstance(ip, IPv6Address) and ip.is_link_local else 0
    return TransportAddress(ip, name[1], scope)


@lru_cache(maxsize=4096)
def _parsed(text: str) -> IPAddress:
    return unmapped(ip_address(text.partition("%")[0]))


async def _bound(sockets: OverlaySockets, family: int, kind: int, where: Listen, transparent: bool) -> socket.socket:
    sock = await sockets.open(family, kind)
    try:
        sock.setblocking(False)
        six = family == socket.AF_INET6
        level = socket.IPPROTO_IPV6 if six else socket.IPPROTO_IP
        if six:
            sock.setsockopt(level, socket.IPV6_V6ONLY, 1 if where.address else 0)
        if where.freebind:
            sock.setsockopt(level, _IPV6_FREEBIND if six else _IP_FREEBIND, 1)
        if transparent:
            sock.setsockopt(level, _IPV6_TRANSPARENT if six else _IP_TRANSPARENT, 1)
        if where.protocol == "tcp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            prepare(sock)
        if where.beside and not where.address:
            _share(sock, where)
        sock.bind(_bind_place(where, family))
        if where.protocol == "tcp":
            sock.listen(BACKLOG)
        if not transparent:
            own_places.remember(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def _share(sock: socket.socket, where: Listen) -> None:
    """Raises OperationFailed when others have the port at other addresses than those it is shared at."""
    try:
        others = {str(ip) for ip in bound_at(where.port, where.protocol)}.difference(where.beside)
    except OSError:  # who has it is not known: then nothing is shared, and the kernel says whether it is in use
        return
    if others:
        raise OperationFailed(_taken(where, others))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _taken(where: Listen, others: Collection[str] = ()) -> str:
    """Why there is no listening everywhere."""
    at = _listed(others) or "one address at least"
    stub = ' (systemd-resolved: "DNSStubListener=no" in resolved.conf)' if "127.0.0.53" in others else ""
    return (
        f"{where.protocol} *:{where.port} is in use at {at} (`{_command(where)}` says by what): name one address of "
        f"this host instead of *, stop what is there{stub}, or choose another port"
    )


def _listed(addresses: Collection[str]) -> str:
    return ", ".join(sorted({"*" if ip in {"0.0.0.0", "::"} else ip for ip in addresses}))  # noqa: S104 - shown


def _command(where: Listen) -> str:
    return f"ss -ln{'t' if where.protocol == 'tcp' else 'u'}p"


def _bind_place(where: Listen, family: int) -> tuple[Any, ...]:
    if family == socket.AF_INET:
        return (where.address, where.port)
    address, _, zone = where.address.partition("%")
    scope = 0
    if zone:
        scope = int(zone) if zone.isdigit() else socket.if_nametoindex(zone)
    return (address or "::", where.port, 0, scope)


def _listen_on_path(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        _take_away_dead(path)
        os.fchmod(sock.fileno(), 0o600)  # what bind makes has the mode of the socket: there is no moment without it
        sock.bind(path)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise OperationFailed(f"unix:{path} cannot be listened on: {_unix_reason(error)}") from None
    except BaseException:
        sock.close()
        raise
    return sock


def _take_away_dead(path: str) -> None:
    """Raises OperationFailed when something is there that is not a socket, or a socket that somebody answers on."""
    try:
        mode = Path(path).lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OperationFailed(f"{path} is there and is no socket: move it away or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asking:
        if asking.connect_ex(path) != errno.ECONNREFUSED:
            raise OperationFailed(f"another program listens on unix:{path}: stop it or choose another path")
    Path(path).unlink()


def _unix_reason(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "there is no such directory"
    if error.errno == errno.EACCES:
        return "this user may not write to the directory"
    return error.strerror or str(error)


def _why(where: Listen, error: OSError) -> str:
    place = f"{where.protocol} {join_host_port(where.address or '*', where.port)}"
    if error.errno == errno.EADDRINUSE and not where.address:
        return _taken(where)
    if error.errno == errno.EADDRINUSE and where.beside:
        return f"{place} is in use: this node itself answers for names there; choose another port"
    if error.errno == errno.EADDRINUSE:
        return f"{place} is in use by another program: stop it (`{_command(where)}` names it) or choose another port"
    if error.errno == errno.EACCES:
        return f"{place} cannot be listened on: ports below 1024 need root, or choose a higher one"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{place} cannot be listened on: this host has no address {where.address}"
    return f"{place} cannot be listened on: {error.strerror or error}"
