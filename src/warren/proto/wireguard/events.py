"""What the device tells its owner: values for logs and for what must be stored. None of them carries a secret."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from warren.identity.keys import PublicKey
from warren.model.datagrams import PathWanted, PeerHeard
from warren.proto.wireguard.addresses import SocketAddress, transport_address, way_of, written


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened. ``level`` is what a log line of it is worth, named as in ``logging``."""

    level: ClassVar[str] = "INFO"

    @property
    def news(self) -> PathWanted | PeerHeard | None:
        """What a controller that listens is told of it."""
        return None


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


@dataclass(frozen=True, slots=True)
class HeardElsewhere(Event):
    """Authenticated messages of a peer whose endpoint is the controller's business come from ``source`` to our address
    ``local``. At most one per peer and second, and none without a controller.
    """

    level: ClassVar[str] = "DEBUG"
    peer: PublicKey
    source: SocketAddress
    local: bytes

    def __str__(self) -> str:
        return f"peer {self.peer.short}: heard from {written(self.source)}, which is not its endpoint"

    @property
    def news(self) -> PeerHeard:
        return PeerHeard(self.peer, transport_address(self.source), way_of(self.source, self.local))


@dataclass(frozen=True, slots=True)
class EndpointWanted(Event):
    """A peer is to be sent something and has no endpoint, or does not answer there. At most one per peer and second,
    and none without a controller.
    """

    level: ClassVar[str] = "DEBUG"
    peer: PublicKey

    def __str__(self) -> str:
        return f"peer {self.peer.short}: somewhere to send to is wanted"

    @property
    def news(self) -> PathWanted:
        return PathWanted(self.peer)
