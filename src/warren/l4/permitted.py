"""Which streams may go on when their entry is another than before.

A stream that the policy has come to forbid would not end by itself: the firewall drops what is said on it, and both
ends would wait for minutes. So whoever carries it ends it, at the client's and at the serving member's side.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from warren.l4 import closed_places
from warren.l4.config import Entry, Ruled, Way
from warren.l4.limits import allowed
from warren.l4.listening import transport_address
from warren.model.tunnel import IPAddress, TransportAddress

Forbidden = Callable[[IPAddress], bool]
"""Whether streams may not go on that have this address at their other end."""
Closed = Callable[[IPAddress, int], bool]
"""Whether they may not go on to this address and port of the host's side."""


@dataclass(frozen=True, slots=True)
class Change:
    """Who was permitted and is not any more. Each function is asked once for each address."""

    client: Forbidden | None
    backend: Forbidden | None
    target: Closed | None = None
    """Of targets that have an address by a name, or are the client's to say; others have no entry when it is closed."""

    @classmethod
    def of(cls, before: Entry, now: Entry) -> Change:
        gone = _hosts(before) - _hosts(now)
        clients = now.clients if now.clients != before.clients else None
        return cls(
            client=None if clients is None else cache(lambda ip: not admits(clients, ip)),
            backend=(lambda ip: str(ip) in gone) if gone else None,
            target=closing(before.way, now.way),
        )

    def ends(self, incoming: socket.socket, outgoing: socket.socket) -> bool:
        """Whether the stream between those may not go on."""
        return _is(self.client, incoming) or self.ends_backend(outgoing)

    def ends_client(self, sock: socket.socket) -> bool:
        return _is(self.client, sock)

    def ends_backend(self, sock: socket.socket) -> bool:
        return _is(self.backend, sock) or is_closed(self.target, sock)

    def __bool__(self) -> bool:
        return any(one is not None for one in (self.client, self.backend, self.target))


def admits(clients: tuple[Ruled, ...], ip: IPAddress) -> bool:
    """The first rule that speaks of it decides; nobody is admitted by none."""
    return next((rule.allow for rule in clients if allowed(ip, rule.sources)), False)


def closing(before: Way, now: Way) -> Closed | None:
    """Which addresses ``now`` is closed to, if ``before`` may have been open to them."""
    if not now.closed or (before.closed, before.opened) == (now.closed, now.opened):
        return None
    return cache(lambda ip, port: bool(closed_places.objection(ip, port, now)))


def is_closed(closed: Closed | None, sock: socket.socket) -> bool:
    """Whether ``sock`` is connected to what is closed."""
    there = None if closed is None else _other_end(sock)
    return closed is not None and there is not None and closed(there.ip, there.port)


def _is(forbidden: Forbidden | None, sock: socket.socket) -> bool:
    there = None if forbidden is None else _other_end(sock)
    return forbidden is not None and there is not None and forbidden(there.ip)


def _other_end(sock: socket.socket) -> TransportAddress | None:
    """None: it is a Unix socket, or ends by itself."""
    try:
        return transport_address(sock.getpeername())
    except OSError:
        return None


def _hosts(entry: Entry) -> set[str]:
    """Of all backends in the overlay; those of the host's side may change under a stream that is open."""
    ways = (entry.way, *(name.way for name in entry.names))
    return {backend.host for way in ways for backend in way.backends if backend.side == "overlay"}
