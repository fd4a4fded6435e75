"""From the wanted peers and what the engine says of itself to the one change that makes them agree; pure.

A peer that did not change is not mentioned, so that its session lives on. A member that took its next WireGuard key
into use keeps everything: the engine knows the peer by another name from then on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from warren.agent.network.desired import WantedPeer
from warren.identity.keys import PresharedKey, PrivateKey, PublicKey
from warren.model.tunnel import PLAIN, PeerChange, PeerStatus, TransportAddress, TunnelChange, TunnelStatus, Way

KEEPALIVE_S: Final = 25
"""WireGuard's usual interval for a peer that is to be kept awake."""
TRY_KEY_S: Final = 20.0
"""How long a key is tried on a peer that does not answer and has two: a round of quick tries of its candidates."""
_NO_PSK: Final = PresharedKey(bytes(32))


@dataclass(frozen=True, slots=True)
class Course:
    """How a peer is to be reached at the moment: by which of its keys, where, and whether it is kept awake."""

    key: PublicKey
    endpoint: TransportAddress | None = None
    """None: leave what is there."""
    keep_open: bool = False
    way: Way = PLAIN
    """How packets get to the endpoint."""


def tunnel_change(
    wanted: Mapping[bytes, WantedPeer],
    courses: Mapping[bytes, Course],
    holders: Mapping[PublicKey, bytes],
    status: TunnelStatus,
    private_key: PrivateKey,
    listen_port: int,
) -> TunnelChange | None:
    """The change that turns ``status`` into what is wanted; None when they agree already. ``holders``: whose each key
    in the engine is, as far as known; every wanted peer has a course.
    """
    own = None if status.private_key == private_key else private_key
    port = None if listen_port == status.listen_port else listen_port
    peers = tuple(_peers(wanted, courses, holders, status))
    if own is None and port is None and not peers:
        return None
    return TunnelChange(private_key=own, listen_port=port, peers=peers, keep_sessions=own is not None)


def _peers(
    wanted: Mapping[bytes, WantedPeer],
    courses: Mapping[bytes, Course],
    holders: Mapping[PublicKey, bytes],
    status: TunnelStatus,
) -> Iterator[PeerChange]:
    present = {peer.public_key: peer for peer in status.peers}
    keys = {courses[node].key for node in wanted}
    before: dict[bytes, PublicKey] = {}  # of members that go by another key from now on
    for key in present:
        node = holders.get(key)
        if key in keys:
            continue
        if node is not None and node in wanted and node not in before and courses[node].key not in present:
            before[node] = key
        else:
            yield PeerChange(key, remove=True)
    for node, peer in wanted.items():
        course = courses[node]
        known = before.get(node, course.key)
        old = present.get(known)
        change = _new(peer, course) if old is None else _changed(peer, course, old)
        if change is not None:
            yield change


def _new(peer: WantedPeer, course: Course) -> PeerChange:
    return PeerChange(
        course.key,
        endpoint=course.endpoint,
        way=None if course.endpoint is None else course.way,
        pinned=True,
        persistent_keepalive_s=KEEPALIVE_S if course.keep_open else None,
        replace_allowed_ips=True,
        allowed_ips=peer.allowed_ips,
    )


def _changed(peer: WantedPeer, course: Course, old: PeerStatus) -> PeerChange | None:
    same_networks = set(peer.allowed_ips) == set(old.allowed_ips)
    keepalive = KEEPALIVE_S if course.keep_open else 0
    same_way = course.endpoint is None or (course.endpoint, course.way) == (old.endpoint, old.way)
    change = PeerChange(
        course.key,
        preshared_key=None if old.preshared_key is None or old.preshared_key.is_zero else _NO_PSK,
        endpoint=None if same_way else course.endpoint,
        way=None if same_way else course.way,
        pinned=None if old.pinned else True,
        persistent_keepalive_s=None if keepalive == old.persistent_keepalive_s else keepalive,
        replace_allowed_ips=not same_networks,
        allowed_ips=() if same_networks else peer.allowed_ips,
        renamed_from=None if old.public_key == course.key else old.public_key,
    )
    return None if change == PeerChange(course.key) else change


def pointed(course: Course) -> PeerChange:
    """The change that only sends a peer's packets the way of ``course``, if the engine has that peer."""
    return PeerChange(course.key, update_only=True, endpoint=course.endpoint, way=course.way, pinned=True)


class KeyTrial:
    """Which of a peer's two keys is used: the present one, and the announced one in turn while neither is answered.

    A partitioned node learns by that alone that a peer has changed its key. ``now``: seconds, never going back.
    """

    def __init__(self, key: PublicKey) -> None:
        self.key = key
        self._tried_at: float | None = None

    def choose(self, peer: WantedPeer, *, alive: bool, doubtful: bool, now: float) -> PublicKey:
        """``alive``: a session lives. ``doubtful``: there is a reason to think that the key is why none does."""
        keys = (peer.key, peer.next_key)
        if not doubtful or alive or peer.next_key is None or self.key not in keys:
            self._tried_at = None
            if not alive or self.key not in keys:
                self.key = peer.key
        elif self._tried_at is None or now - self._tried_at >= TRY_KEY_S:
            self._tried_at = now
            self.key = peer.next_key if self.key == peer.key else peer.key
        return self.key
