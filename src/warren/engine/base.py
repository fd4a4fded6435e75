"""The Engine protocol: what moves packets, whoever moves them (userspace, kernel, rootless, memory).

An engine owns one tunnel interface. It is told *what* (:class:`~warren.model.tunnel.TunnelChange`) and answers *how
it is* (:class:`~warren.model.tunnel.TunnelStatus`); addresses and routes of the interface are not its business. Every
implementation passes ``tests/support/engine_conformance.py``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from warren.model.datagrams import ControlDatagram, ControlEvent
from warren.model.tunnel import TunnelChange, TunnelStatus

if TYPE_CHECKING:
    import asyncio  # 3 MB that a data plane has no use for

SOCKETS_MAX: Final = 8
"""Sockets that a data plane takes over besides its own port."""


def why_not_handed_over(sock: socket.socket) -> str:
    """What is wrong with a socket for a data plane; empty: nothing."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_DGRAM:
        return "only a UDP socket can be handed over"
    if sock.getsockname()[1] == 0:
        return "a socket that is handed over has to be bound"
    if sock.family == socket.AF_INET6 and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        return "a socket that is handed over is of one family: set IPV6_V6ONLY before binding it"
    return ""


class ControlPort(Protocol):
    """The controller's place at the tunnel's UDP port: what is not WireGuard's there is its to send and to hear.

    Methods return at once and never raise for a data plane that is gone; ``closed`` tells that.
    """

    closed: asyncio.Future[None]
    """Done when this port is of no more use: closed, replaced by another listener, or the data plane is gone."""

    def send(self, datagram: ControlDatagram) -> None:
        """Send it by its way. It is lost when it is too long, a socket is full, or the host refuses to send it."""

    def hand_over(self, sock: socket.socket) -> int:
        """Let the data plane read and write the UDP socket ``sock`` from now on, and return its number for
        :attr:`Way.socket` (1 or more). The caller closes its own copy.

        It stays with the data plane when the port closes, for as long as a peer's endpoint is reached by it. Raises
        OperationFailed for a socket that is not bound, not of UDP, or of both families, and beyond SOCKETS_MAX.
        """

    def take_back(self, number: int) -> None:
        """Close the socket with that number; no peer is reached by it any more."""

    def close(self) -> None:
        """Cease to listen: pinned peers roam from now on. Closing twice is allowed."""


@runtime_checkable
class Engine(Protocol):
    """One running tunnel.

    Errors: every method raises :class:`~warren.errors.Unreachable` when the data plane is gone (the engine object is
    then of no more use) and :class:`~warren.errors.OperationFailed` when the host refused (the engine stays usable
    and unchanged).
    """

    @property
    def interface(self) -> str:
        """The name of the network interface."""

    async def configure(self, change: TunnelChange) -> None:
        """Apply ``change`` atomically: on an error nothing has changed."""

    async def status(self) -> TunnelStatus:
        """The present configuration and counters, all of one moment."""

    async def statistics(self) -> Mapping[str, int]:
        """Counters of the data plane by name (drops by reason, handshakes …); the names are listed in
        docs/reference.md.
        """

    async def listen(self, heard: Callable[[ControlEvent], None]) -> ControlPort:
        """Hear control datagrams and news of peers, from now until the port that is returned closes.

        There is one listener: a new one replaces the one before. ``heard`` is called in the event loop and must not
        raise. While there is a listener, only it moves the endpoints of pinned peers.
        """

    async def close(self) -> None:
        """Stop moving packets and remove the interface. Closing twice is allowed."""
