"""What the device tells its owner: values for logs and for what must be stored. None of them carries a secret."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from warren.identity.keys import PublicKey

SocketAddress = tuple[Any, ...]
"""A socket address as Python's socket module gives it: (host, port), or (host, port, flow info, scope) for IPv6."""


def written(address: SocketAddress) -> str:
    """A socket address as people write it: ``192.0.2.1:51820``, ``[2001:db8::1]:51820``, ``[fe80::1%3]:51820``."""
    if len(address) == 2:
        return f"{address[0]}:{address[1]}"
    zone = f"%{address[3]}" if address[3] else ""
    return f"[{address[0]}{zone}]:{address[1]}"


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened. ``level`` is what a log line of it is worth, named as in ``logging``."""

    level: ClassVar[str] = "INFO"


@dataclass(frozen=True, slots=True)
class TimestampUsed(Event):
    """A handshake with this timestamp (ns since 1970) is among the transmits taken next: store that it was used, then
    send.
    """

    level: ClassVar[str] = "DEBUG"
    timestamp_ns: int

    def __str__(self) -> str:
        return f"handshake timestamps up to {self.timestamp_ns} ns are used"


@dataclass(frozen=True, slots=True)
class HandshakeCompleted(Event):
    """A session with the peer is confirmed: it can send and be sent to."""

    peer: PublicKey
    initiated_by_us: bool

    def __str__(self) -> str:
        return f"peer {self.peer.short}: handshake complete, begun by {'us' if self.initiated_by_us else 'the peer'}"


@dataclass(frozen=True, slots=True)
class SessionRenewed(HandshakeCompleted):
    """The same while the session before still lives: every two minutes of traffic, so not worth a line of its own."""

    level: ClassVar[str] = "DEBUG"


@dataclass(frozen=True, slots=True)
class HandshakeGaveUp(Event):
    """The peer did not answer for 90 s; packets that waited for it are dropped. New packets begin a new attempt.

    Told once until a handshake succeeds.
    """

    level: ClassVar[str] = "WARNING"
    peer: PublicKey

    def __str__(self) -> str:
        return (
            f"peer {self.peer.short}: no answer for 90 s, waiting packets dropped; check its endpoint, keys and clock"
        )


@dataclass(frozen=True, slots=True)
class SessionsForgotten(Event):
    """No new session was made for 9 minutes: all key material of the peer is gone (§6.3)."""

    level: ClassVar[str] = "DEBUG"
    peer: PublicKey

    def __str__(self) -> str:
        return f"peer {self.peer.short}: unused keys forgotten"


@dataclass(frozen=True, slots=True)
class PeerRoamed(Event):
    """Authenticated messages of the peer now come from elsewhere; ours go there. At most one per peer and second."""

    peer: PublicKey
    before: SocketAddress | None
    now: SocketAddress

    def __str__(self) -> str:
        if self.before is None:
            return f"peer {self.peer.short}: heard from {written(self.now)}"
        return f"peer {self.peer.short}: moved from {written(self.before)} to {written(self.now)}"


@dataclass(frozen=True, slots=True)
class PeerRenamed(Event):
    """A peer has a new key; everything else of it stayed."""

    before: PublicKey
    now: PublicKey

    def __str__(self) -> str:
        return f"peer {self.before.short}: known by its new key {self.now.short} from now on"


@dataclass(frozen=True, slots=True)
class OwnKeyIgnored(Event):
    """A peer with our own public key was configured, or became one by a new private key; it is left out."""

    level: ClassVar[str] = "WARNING"
    peer: PublicKey

    def __str__(self) -> str:
        return f"peer {self.peer.short} has this tunnel's own public key: left out"
