"""What the translator wants done, in the order in which it wants it done."""

from __future__ import annotations

from dataclasses import dataclass

from warren.model.tunnel import TransportAddress


@dataclass(frozen=True, slots=True)
class ToClient:
    """Send to the client of the control connection."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ToServer:
    """Send to the server. ``urgent``: with telnet's IP and Synch in front (RFC 959 §4.1.3), so that it looks up."""

    data: bytes
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """Listen for one data connection of the client; answer with ``offered`` or ``failed``. When it has come
    (``arrived``), connect it with ``server_port`` of the server (``opened`` or ``failed``).
    """

    number: int
    server_port: int


@dataclass(frozen=True, slots=True)
class Join:
    """Connect to ``server_port`` of the server and to ``client``, and the two with each other; answer with ``opened``
    or ``failed``.
    """

    number: int
    server_port: int
    client: TransportAddress


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Listen no longer; what has come already goes on."""

    number: int


@dataclass(frozen=True, slots=True)
class Note:
    """To be counted (reason ``protocol``) and logged."""

    sentence: str


@dataclass(frozen=True, slots=True)
class EndToServer:
    """Nothing more will be sent to the server."""


@dataclass(frozen=True, slots=True)
class Over:
    """End both control connections, after what was to be sent before."""


Action = ToClient | ToServer | Offer | Join | Withdraw | Note | EndToServer | Over
