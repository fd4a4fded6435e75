"""Everything the device knows of one peer. Values only: what happens to them is decided in the machines next door."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from warren.identity.keys import PublicKey
from warren.proto.wireguard.addresses import SocketAddress
from warren.proto.wireguard.constants import KEY_BYTES, TIMESTAMP_BYTES
from warren.proto.wireguard.cookie import CookieJar
from warren.proto.wireguard.keypairs import Keypairs
from warren.proto.wireguard.noise import Initiator
from warren.proto.wireguard.staging import StagedTrains, StagingBudget
from warren.proto.wireguard.timers import PeerTimers, TimerQueue

LONG_AGO = float("-inf")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a peer is, and from where it is answered.

    ``address`` has one of the forms of :mod:`~warren.proto.wireguard.addresses`. ``local`` is the ancillary
    data (``in_pktinfo`` or ``in6_pktinfo``) that makes answers leave from the address the peer used ("sticky
    source"); empty: the kernel chooses. ``fixed``: the controller chose it, and messages that arrive do not change it.
    """

    address: SocketAddress
    local: bytes = b""
    fixed: bool = False


@dataclass(slots=True)
class PendingInitiation:
    """Our handshake that waits for a response: its Noise state, the index it answers to, and when it was sent."""

    noise: Initiator
    own_index: int
    sent_at: float


class Peer:
    """One peer. ``static_static`` is the precomputed exchange of both static keys; None: not computed yet under this
    private key.
    """

    __slots__ = (
        "cookies",
        "endpoint",
        "endpoint_wanted_at",
        "handshake_rtt_ns",
        "handshake_sent_at",
        "heard_elsewhere_at",
        "initiation",
        "initiation_taken_at",
        "keypairs",
        "last_handshake_ns",
        "newest_timestamp",
        "pinned",
        "preshared_key",
        "public_key",
        "renewing_for_receiving",
        "roaming_told_at",
        "rx_bytes",
        "staged",
        "static_static",
        "timers",
        "timestamp_ns",
        "tx_bytes",
        "unreachable",
    )

    def __init__(
        self,
        public_key: PublicKey,
        timestamp_ns: int,
        budget: StagingBudget,
        queue: TimerQueue[Peer],
        draw_jitter: Callable[[], float],
    ) -> None:
        """``timestamp_ns``: our timestamps to this peer are greater."""
        self.public_key = public_key
        self.preshared_key = bytes(KEY_BYTES)
        self.endpoint: Endpoint | None = None
        self.pinned = False  # while a controller listens, only it moves the endpoint
        self.heard_elsewhere_at = self.endpoint_wanted_at = LONG_AGO  # when that was told
        self.keypairs = Keypairs()
        self.staged = StagedTrains(budget)
        self.timers: PeerTimers[Peer] = PeerTimers(self, queue, draw_jitter)
        self.cookies = CookieJar(public_key.raw)
        self.static_static: bytes | None = None
        self.initiation: PendingInitiation | None = None
        self.timestamp_ns = timestamp_ns
        self.newest_timestamp = bytes(TIMESTAMP_BYTES)  # of the initiations received
        self.initiation_taken_at = LONG_AGO
        self.handshake_sent_at = LONG_AGO  # our last initiation or response
        self.renewing_for_receiving = False  # the handshake before rejection was begun (§6.2), once per session
        self.last_handshake_ns = 0
        self.handshake_rtt_ns = 0  # of the last one that we initiated; 0: none
        self.tx_bytes = self.rx_bytes = 0
        self.roaming_told_at = LONG_AGO
        self.unreachable = False  # a handshake was given up, and none completed since
