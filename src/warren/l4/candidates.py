"""One place to connect to, and the sentences that are said of it."""

from __future__ import annotations

import errno
import os
import socket
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from warren.errors import OperationFailed
from warren.l4 import closed_places
from warren.l4.config import Backend, Way
from warren.l4.kinds import Refused
from warren.model.ip import join_host_port
from warren.model.tunnel import IPAddress, TransportAddress
from warren.proto import proxy_protocol

HOSTS_MAX: Final = 4096
"""Whose addresses are remembered as such."""
_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})

Failure = tuple[str, str]
"""Reason and sentence."""


class Candidate(NamedTuple):
    """One place to connect to."""

    backend: Backend
    family: int
    place: Any
    """As ``connect`` takes it."""
    ip: IPAddress | None
    """None for Unix sockets."""


def at_path(backend: Backend) -> Candidate:
    return Candidate(backend, socket.AF_UNIX, backend.path, None)


def at(backend: Backend, ip: IPAddress) -> Candidate:
    family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
    return Candidate(backend, family, (str(ip), backend.connector_port or backend.port), ip)


@lru_cache(maxsize=HOSTS_MAX)
def literal(host: str) -> IPAddress | None:
    """None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def begun(sock: socket.socket, place: Any) -> bool:
    """Begin to connect; returns whether it is done, as it is at once with Unix sockets. Raises OSError."""
    number = sock.connect_ex(place)
    if number == 0:
        return True
    if number == errno.EINPROGRESS:
        return False
    if number == errno.EAGAIN and sock.family == socket.AF_UNIX:  # its backlog is full, and nothing says when not
        raise OSError(number, "its queue is full")
    raise OSError(number, errno.errorcode.get(number, "?"))


def say_who(
    sock: socket.socket,
    backend: Backend,
    client: TransportAddress | None,
    local: TransportAddress | None,
    *,
    own: bool = False,
) -> None:
    """Send the header that is due, if one is. Raises Refused."""
    if not backend.connector_port and not backend.proxy_out:
        return
    try:
        sock.send(proxy_protocol.encode(client, local, local=own))  # a fresh socket has room for the 52 bytes
    except OSError as error:
        raise Refused("connect", f"{named(backend)} closed at once: {error.strerror}") from None


def explained(error: BaseException, backend: Backend, timeout_s: float) -> Failure | None:
    """Reason and sentence of an attempt's end; None when it was cancelled, or is a bug."""
    who = named(backend)
    if isinstance(error, Refused):
        return error.reason, str(error)
    if isinstance(error, TimeoutError) and getattr(error, "errno", None) is None:
        return "timeout", f"{who} did not answer in {timeout_s:g} s"
    if isinstance(error, OperationFailed):
        return "resources", f"no connection to {who}: {error}"
    if not isinstance(error, OSError):
        return None
    if error.errno == errno.ETIMEDOUT:
        return "timeout", f"{who} did not answer"
    if error.errno in _NO_ROOM:
        return "resources", f"no connection to {who}: {_words(error)}"
    if backend.path and error.errno == errno.ENOENT:
        return "connect", f"there is no socket {who}: is the program there running?"
    if error.errno == errno.ECONNREFUSED:
        return "connect", f"{who} refuses connections: is the program there running?"
    return "connect", f"no connection to {who}: {_words(error)}"


def _words(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


def named(backend: Backend) -> str:
    target = f"unix:{backend.path}" if backend.path else join_host_port(backend.host, backend.port)
    return target if backend.name in {"", target} else f"{backend.name} ({target})"


def objection(backend: Backend, ip: IPAddress, way: Way) -> str:
    """Why nothing of ``way`` leads to this address, a sentence; empty: it may."""
    if backend.side != "host":
        return ""
    why = closed_places.objection(ip, backend.connector_port or backend.port, way)
    return f"{backend.host} leads to {ip}: {why}" if why and backend.host != str(ip) else why


def key(candidate: Candidate) -> Any:
    """By which it is known that it failed of late."""
    return (candidate.backend.side, candidate.place)
