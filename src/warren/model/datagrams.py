"""What a data plane and its controller exchange besides configuration: control datagrams, and news of peers.

Control datagrams are those that are not WireGuard's but use its UDP port: STUN messages (RFC 8489) in both directions,
bare or inside ChannelData of a TURN server (RFC 8656 §12.4).
"""

from __future__ import annotations

from dataclasses import dataclass

from warren.identity.keys import PublicKey
from warren.model.tunnel import PLAIN, TransportAddress, Way

DATAGRAM_BYTES_MAX = 2048
"""Longer ones are dropped in both directions: the largest is a probe of the path MTU."""


@dataclass(frozen=True, slots=True)
class ControlDatagram:
    """To be sent: ``data`` goes to ``remote`` by ``way``. Received: ``remote`` is where it came from, ``way`` how an
    answer gets back there: the local address and interface it arrived at, and the channel it was wrapped in, if it was.
    """

    data: bytes
    remote: TransportAddress
    way: Way = PLAIN
    dont_fragment: bool = False
    """It is lost rather than fragmented: a probe of the path MTU (RFC 8899)."""


@dataclass(frozen=True, slots=True)
class PeerHeard:
    """An authenticated WireGuard message of a pinned peer came from elsewhere than its endpoint; told at most once a
    second for each peer.
    """

    public_key: PublicKey
    remote: TransportAddress
    way: Way


@dataclass(frozen=True, slots=True)
class PathWanted:
    """Packets wait for a peer that has no endpoint, or whose handshake is not answered; told at most once a second."""

    public_key: PublicKey


ControlEvent = ControlDatagram | PeerHeard | PathWanted
