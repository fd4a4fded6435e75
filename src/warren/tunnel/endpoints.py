"""Which address each peer is tried at: names are resolved, resolved again when a peer falls silent, and all their
addresses tried.

A sans-IO machine for all peers of a tunnel that have an ``Endpoint`` in the config. A peer that is heard from is left
alone, wherever it has roamed to: the data plane follows it by itself. Only when our messages stay unanswered is an
address set.

=====================================  =====================================================================
the peer                               what happens
=====================================  =====================================================================
has no address yet                     its endpoint is looked up; after a failure again, with back-off
handshake younger than 135 s           nothing
silent, and we are sending to it       after 8 s its next address; after the last a new lookup, then the first
silent, and we are not                 a lookup every 2 minutes; acted on if it no longer has its old address
=====================================  =====================================================================

Verbs: :meth:`~EndpointKeeper.resolved` and :meth:`~EndpointKeeper.failed` answer :meth:`~EndpointKeeper.take_lookups`;
:meth:`~EndpointKeeper.observe` says how the peers are; :meth:`~EndpointKeeper.take_endpoints` are the addresses to set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from warren.identity.keys import PublicKey
from warren.model.tunnel import IPAddress, PeerStatus, TransportAddress
from warren.tunnel.fields import Endpoint

HANDSHAKE_STALE_S: Final = 135.0
"""REKEY_AFTER_TIME 120 s plus three attempts of 5 s: an active session would have a newer one (WireGuard §6.2)."""
TRY_S: Final = 8.0
"""Time for two initiations, which are 5 s apart (WireGuard §6.4), before the next address gets its turn."""
OBSERVE_S: Final = 4.0
"""How often to look at the peers while one of them does not answer."""
QUIET_OBSERVE_S: Final = 10.0
"""How often otherwise: looking at 1,000 peers takes some 15 ms of this process."""
LOOKUP_AGAIN_S: Final = 120.0
LOOKUP_INTERVAL_S: Final = 15.0
"""Not more often than this per name, however silent the peer."""
BACKOFF_FIRST_S, BACKOFF_MAX_S = 1.0, 60.0
CANDIDATES_MAX: Final = 16
"""More addresses than this under one name would take over two minutes to try."""


class Deadline(NamedTuple):
    at: float
    why: str


@dataclass(slots=True)
class _Peer:
    endpoint: Endpoint
    lookup_at: float
    looking: bool = False
    looked_up_at: float = float("-inf")
    backoff_s: float = BACKOFF_FIRST_S
    candidates: tuple[TransportAddress, ...] = ()
    index: int = 0
    address_set: TransportAddress | None = None
    """The last address we gave it."""
    trying_since: float | None = None
    tx_bytes: int = -1
    silent: bool = True


class EndpointKeeper:
    """No failure ends it. ``now`` is in seconds on a clock that never goes back."""

    def __init__(self) -> None:
        self._peers: dict[PublicKey, _Peer] = {}
        self._to_set: dict[PublicKey, TransportAddress] = {}
        self._observe_at = float("-inf")

    def want(self, endpoints: Mapping[PublicKey, Endpoint], now: float) -> None:
        """Look after these peers from now on; one whose endpoint is the same as before keeps its state."""
        kept = {key: peer for key, peer in self._peers.items() if endpoints.get(key) == peer.endpoint}
        self._peers = {key: kept.get(key) or _Peer(endpoint, lookup_at=now) for key, endpoint in endpoints.items()}
        self._to_set = {key: address for key, address in self._to_set.items() if key in kept}

    def adopt(self, peers: Iterable[PeerStatus]) -> None:
        """These peers have an address already, from an earlier run: it stays until they fall silent."""
        for status in peers:
            peer = self._peers.get(status.public_key)
            if peer is not None and status.endpoint is not None:
                peer.address_set = status.endpoint
                peer.silent = False  # until it has been observed

    def reset(self, now: float) -> None:
        """The data plane is new and knows no addresses: set them again."""
        for key, peer in self._peers.items():
            peer.tx_bytes, peer.silent, peer.trying_since = -1, True, None
            peer.address_set = None
            if peer.candidates:
                self._set(key, peer, now)

    def hurry(self, now: float) -> None:
        """The network has changed: what failed may work now."""
        for peer in self._peers.values():
            if not peer.candidates and not peer.looking:
                peer.lookup_at, peer.backoff_s = now, BACKOFF_FIRST_S

    def take_lookups(self, now: float) -> list[Endpoint]:
        """The endpoints to look up now; each is to be answered by :meth:`resolved` or :meth:`failed`."""
        due: dict[Endpoint, None] = {}
        for peer in self._peers.values():
            if not peer.looking and peer.lookup_at <= now:
                peer.looking = True
                due[peer.endpoint] = None
        return list(due)

    def resolved(self, endpoint: Endpoint, addresses: Sequence[TransportAddress], now: float) -> None:
        """``addresses``, best first, are those of ``endpoint``."""
        for key, peer in self._of(endpoint):
            current = peer.candidates[peer.index] if peer.candidates else None
            peer.looking, peer.backoff_s, peer.looked_up_at = False, BACKOFF_FIRST_S, now
            peer.lookup_at = now + LOOKUP_AGAIN_S
            peer.candidates = tuple(addresses[:CANDIDATES_MAX])
            peer.index = peer.candidates.index(current) if current in peer.candidates else 0
            # Its name has moved away from the address we gave it, and it is not heard from: follow the name.
            moved = peer.silent and peer.address_set not in peer.candidates
            if peer.address_set is None or moved:
                self._set(key, peer, now)

    def failed(self, endpoint: Endpoint, now: float) -> float:
        """The lookup failed; returns in how many seconds it is tried again."""
        delay = BACKOFF_FIRST_S
        for _, peer in self._of(endpoint):
            delay = peer.backoff_s
            peer.looking, peer.lookup_at = False, now + delay
            peer.backoff_s = min(2 * delay, BACKOFF_MAX_S)
        return delay

    def observe(self, peers: Iterable[PeerStatus], wall_ns: int, now: float) -> None:
        """How the peers are at ``now``, which is ``wall_ns`` on the clock that dates handshakes."""
        known = [(status, self._peers[status.public_key]) for status in peers if status.public_key in self._peers]
        waiting = [self._observe(status, peer, wall_ns, now) for status, peer in known]
        self._observe_at = now + (OBSERVE_S if any(waiting) else QUIET_OBSERVE_S)

    def _observe(self, status: PeerStatus, peer: _Peer, wall_ns: int, now: float) -> bool:
        """Whether we wait for an answer of this peer."""
        age_s = (wall_ns - status.last_handshake_ns) / 1e9
        sending = 0 <= peer.tx_bytes < status.tx_bytes
        peer.tx_bytes = status.tx_bytes
        peer.silent = not status.last_handshake_ns or age_s > HANDSHAKE_STALE_S
        if not peer.silent:
            peer.trying_since = None
        elif sending and peer.trying_since is None:
            peer.trying_since = now
        elif sending and peer.trying_since is not None and now - peer.trying_since >= TRY_S:
            self._try_next(status, peer, now)
        return peer.silent and sending

    def _try_next(self, status: PeerStatus, peer: _Peer, now: float) -> None:
        peer.trying_since = now
        if not peer.candidates:
            return
        peer.index += 1
        if peer.index >= len(peer.candidates):
            peer.index = 0
            if not peer.looking:
                peer.lookup_at = min(peer.lookup_at, max(now, peer.looked_up_at + LOOKUP_INTERVAL_S))
        if status.endpoint != peer.candidates[peer.index]:
            self._set(status.public_key, peer, now)

    def take_endpoints(self) -> dict[PublicKey, TransportAddress]:
        """The addresses to set, once."""
        taken, self._to_set = self._to_set, {}
        return taken

    def destinations(self) -> list[IPAddress]:
        """Where the peers are tried at present, as far as their names are resolved."""
        return [peer.candidates[peer.index].ip for peer in self._peers.values() if peer.candidates]

    def is_ours(self, key: PublicKey, address: TransportAddress | None) -> bool:
        """Whether ``address`` is one of those that the config's endpoint of this peer stands for."""
        return key in self._peers and address in self._peers[key].candidates

    def observe_at(self) -> float:
        """When to look next at how the peers are; infinity when there are none."""
        return self._observe_at if self._peers else float("inf")

    def next_deadline(self) -> Deadline | None:
        """None: there is nothing to look after."""
        if not self._peers:
            return None
        lookups = [peer.lookup_at for peer in self._peers.values() if not peer.looking]
        return min(
            Deadline(self._observe_at, "see whether the peers answer"),
            Deadline(min(lookups, default=float("inf")), "look up an endpoint"),
        )

    def _of(self, endpoint: Endpoint) -> list[tuple[PublicKey, _Peer]]:
        return [(key, peer) for key, peer in self._peers.items() if peer.endpoint == endpoint]

    def _set(self, key: PublicKey, peer: _Peer, now: float) -> None:
        address = peer.candidates[peer.index]
        peer.address_set = address
        peer.trying_since = now
        self._to_set[key] = address
        self._observe_at = min(self._observe_at, now + OBSERVE_S)
