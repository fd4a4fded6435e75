"""What Connectivity asks its driver to send, what it tells it, and what it reports to people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from warren.model.tunnel import TransportAddress
from warren.paths.nat import Verdict
from warren.paths.values import Base, CandidateKind, Path


@dataclass(frozen=True, slots=True)
class Check:
    """A STUN message to be sent from ``base`` to ``remote``; over a relay: to where the relay is to send it."""

    base: Base
    remote: TransportAddress
    data: bytes
    dont_fragment: bool = False


@dataclass(frozen=True, slots=True)
class Selected:
    """Packets to ``node`` go by ``path`` from now on; None: there is none (any more). ``why`` is a sentence."""

    node: bytes
    path: Path | None
    why: str


@dataclass(frozen=True, slots=True)
class Mtu:
    """``path``, the selected one, carries inner packets of ``bytes`` bytes: this is proven (RFC 8899). At least 1280.
    Until the first of a path comes its MTU is not known; the tunnel's own may be assumed.
    """

    node: bytes
    path: Path
    bytes: int


@dataclass(frozen=True, slots=True)
class Mapped:
    """``node`` saw our packets from ``base`` come from ``address``: a reflexive candidate of our own. Told when new."""

    base: Base
    address: TransportAddress
    by: bytes


@dataclass(frozen=True, slots=True)
class SignalWanted:
    """Bring ``data`` to ``node`` by the coordinator; there it goes to ``signal_received``. It authenticates itself, is
    at most 8 KiB long and may be lost. What members can carry is under way as checks already.
    """

    node: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class SocketsWanted:
    """Open ``count`` UDP sockets at ``base`` for a birthday (paths/hard.py) and name them to ``sockets_opened``. They
    are closed on :class:`SocketsDone`.
    """

    node: bytes
    count: int
    base: Base


@dataclass(frozen=True, slots=True)
class SocketsDone:
    """Close the sockets of the birthday with ``node`` but the one numbered ``keep``, by which the selected path goes:
    that one belongs to the data plane now. None: close all of them. Comes once for each SocketsWanted, and a second
    time with None when the kept one is no longer needed.
    """

    node: bytes
    keep: int | None


@dataclass(frozen=True, slots=True)
class Learned:
    """A signal of ``node`` held this envelope of a NodeRecord. Not verified: whoever reads it does that."""

    node: bytes
    envelope: bytes


Event = Selected | Mtu | Mapped | SignalWanted | SocketsWanted | SocketsDone | Learned

PairState = Literal["waiting", "checking", "valid", "failed"]


@dataclass(frozen=True, slots=True)
class PairReport:
    """One pair that was tried."""

    path: Path
    kind: CandidateKind
    state: PairState
    sent: int
    """Checks sent."""
    answered: int
    rtt_s: float | None
    mapped: TransportAddress | None
    """Our address as the peer sees it by this pair."""
    mtu: int | None
    """Inner bytes; None: not probed."""
    note: str
    """What is special about it, or empty: ``does not carry packets of 1280 bytes`` …"""


@dataclass(frozen=True, slots=True)
class PeerReport:
    """How it stands with one peer. Plain values for ``status`` and ``explain``."""

    node: bytes
    state: Literal["direct", "relayed", "checking", "none", "idle"]
    """``idle``: nobody wanted a path yet; ``none``: everything was tried, and is tried again from time to time."""
    path: Path | None
    why: str
    """Why this path, or why none; a sentence."""
    rtt_s: float | None
    mtu: int | None
    since: float | None
    """When the path was selected (``now`` of then)."""
    verdict: Verdict | None
    """The oracle's; None where one side has not said how its NAT behaves."""
    hard: str
    """What hard punching does, a sentence; empty: nothing."""
    pairs: tuple[PairReport, ...]
    """The selected one first, then by state."""
