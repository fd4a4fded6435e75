"""Which streams may go on when their entry is another than before.

A stream that the policy has come to forbid would not end by itself: the firewall drops what is said on it, and both
ends would wait for minutes. So whoever carries it ends it, at the client's and at the serving member's side.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from warren.l4.config import Entry, Ruled
from warren.l4.limits import allowed
from warren.l4.listening import transport_address
from warren.model.tunnel import IPAddress

Forbidden = Callable[[IPAddress], bool]
"""Whether streams may not go on that have this address at their other end."""


@dataclass(frozen=True, slots=True)
class Change:
    """Who was permitted and is not any more. Each function is asked once for each address."""

    client: Forbidden | None
    backend: Forbidden | None

    @classmethod
    def of(cls, before: Entry, now: Entry) -> Change:
        gone = _hosts(before) - _hosts(now)
        clients = now.clients if now.clients != before.clients else None
        return cls(
            client=None if clients is None else cache(lambda ip: not admits(clients, ip)),
            backend=(lambda ip: str(ip) in gone) if gone else None,
        )

    def ends(self, incoming: socket.socket, outgoing: socket.socket) -> bool:
        """Whether the stream between those may not go on."""
        return _is(self.client, incoming) or _is(self.backend, outgoing)

    def ends_client(self, sock: socket.socket) -> bool:
        return _is(self.client, sock)

    def ends_backend(self, sock: socket.socket) -> bool:
        return _is(self.backend, sock)

    def __bool__(self) -> bool:
        return self.client is not None or self.backend is not None


def admits(clients: tuple[Ruled, ...], ip: IPAddress) -> bool:
    """The first rule that speaks of it decides; nobody is admitted by none."""
    return next((rule.allow for rule in clients if allowed(ip, rule.sources)), False)


def _is(forbidden: Forbidden | None, sock: socket.socket) -> bool:
    if forbidden is None:
        return False
    try:
        there = transport_address(sock.getpeername())
    except OSError:
        return False  # it ends by itself
    return there is not None and forbidden(there.ip)


def _hosts(entry: Entry) -> set[str]:
    """Of all backends in the overlay; those of the host's side may change under a stream that is open."""
    ways = (entry.way, *(name.way for name in entry.names))
    return {backend.host for way in ways for backend in way.backends if backend.side == "overlay"}
