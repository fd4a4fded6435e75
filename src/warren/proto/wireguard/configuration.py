"""What a device is told and says of itself: :class:`~warren.model.tunnel.TunnelChange` in, ``TunnelStatus`` out.

The order and the small print are those of the cross-platform UAPI (https://www.wireguard.com/xplatform/).
"""

from __future__ import annotations

from collections.abc import Callable

from warren.identity.keys import PresharedKey, PrivateKey, PublicKey
from warren.model.tunnel import PLAIN, PeerChange, PeerStatus, TransportAddress, TunnelChange, TunnelStatus, Way
from warren.proto.wireguard import changes
from warren.proto.wireguard.addresses import pack_local, socket_address, transport_address, way_of
from warren.proto.wireguard.allowed_ips import AllowedIps
from warren.proto.wireguard.events import Event, OwnKeyIgnored
from warren.proto.wireguard.handshake import Handshakes
from warren.proto.wireguard.identity import Identity
from warren.proto.wireguard.outbound import Outbound
from warren.proto.wireguard.peer import LONG_AGO, Endpoint, Peer
from warren.proto.wireguard.relays import Relays
from warren.proto.wireguard.timers import NEVER


class Configuration:
    """The peers of one device and what is set for them. ``enabled`` is False while the device is down."""

    def __init__(
        self,
        identity: Identity,
        peers: dict[bytes, Peer],
        allowed_ips: AllowedIps[Peer],
        handshakes: Handshakes,
        outbound: Outbound,
        relays: Relays,
        new_peer: Callable[[PublicKey], Peer],
        tell: Callable[[Event], None],
    ) -> None:
        self.enabled = False
        self._identity = identity
        self._peers = peers
        self._allowed_ips = allowed_ips
        self._handshakes = handshakes
        self._outbound = outbound
        self._relays = relays
        self._new_peer = new_peer
        self._tell = tell
        self._listen_port = 0
        self._fwmark = 0

    def check(self, change: TunnelChange) -> None:
        """Raises OperationFailed, as :func:`changes.check` says, when :meth:`apply` would."""
        own = self._identity.public_key
        changes.check(change, self._peers, own.raw if own is not None else None)

    def apply(self, change: TunnelChange, now: float) -> None:
        """Raises OperationFailed, with nothing changed, when the change is impossible as a whole."""
        self.check(change)
        if change.private_key is not None:
            self._become(change.private_key, change.keep_sessions, now)
        if change.listen_port is not None:
            self._listen_port = change.listen_port
        if change.fwmark is not None:
            self._fwmark = change.fwmark
        if change.replace_peers:
            for peer in list(self._peers.values()):
                self._remove(peer)
        for peer_change in change.peers:
            self._apply_peer(peer_change, now)

    def _become(self, private_key: PrivateKey, keep_sessions: bool, now: float) -> None:
        if not self._identity.assume(private_key):
            return
        public_key = self._identity.public_key
        own = self._peers.get(public_key.raw) if public_key is not None else None
        if own is not None:
            self._remove(own)
            self._tell(OwnKeyIgnored(own.public_key))
        for peer in self._peers.values():
            if keep_sessions:
                self._handshakes.renew(peer, now)
            else:
                self._handshakes.expire(peer)
            if public_key is None:
                self._handshakes.forget(peer)

    def _remove(self, peer: Peer) -> None:
        """Stop everything of ``peer`` and forget it."""
        self._relays.changed()
        self._allowed_ips.remove_all(peer)
        peer.timers.stop()
        self._handshakes.forget(peer)
        del self._peers[peer.public_key.raw]

    def _apply_peer(self, change: PeerChange, now: float) -> None:
        if change.renamed_from is not None:
            renamed = self._peers.pop(change.renamed_from.raw, None)
            if renamed is None:  # with update_only
                return
            self._peers[change.public_key.raw] = renamed
            self._handshakes.rename(renamed, change.public_key, now)
        peer = self._peers.get(change.public_key.raw)
        if change.remove:
            if peer is not None:
                self._remove(peer)
            return
        if change.public_key == self._identity.public_key:
            self._tell(OwnKeyIgnored(change.public_key))
            return
        if peer is None:
            if change.update_only:
                return
            peer = self._peers[change.public_key.raw] = self._new_peer(change.public_key)
        if change.preshared_key is not None:
            peer.preshared_key = change.preshared_key.raw  # of the next handshake
        if change.pinned is not None:
            peer.pinned = change.pinned
        if change.endpoint is not None:
            self._send_to(peer, _endpoint(change.endpoint, change.way or PLAIN), now)
        self._route(peer, change)
        if change.persistent_keepalive_s is not None:
            self._keep_alive(peer, change.persistent_keepalive_s, now)
        if self.enabled:
            self._outbound.release(peer, now)

    def _send_to(self, peer: Peer, endpoint: Endpoint, now: float) -> None:
        """A handshake that waits for an answer from elsewhere begins anew at once, so that whoever tries one address
        after the other need not wait for the retransmission (§6.4) each time.
        """
        before = peer.endpoint
        moved = before is None or before.address != endpoint.address or before.fixed != endpoint.fixed
        peer.endpoint = endpoint
        self._relays.changed()
        if moved and peer.timers.retransmit_handshake_at != NEVER and self.enabled:
            peer.handshake_sent_at = LONG_AGO
            self._handshakes.begin(peer, now, retry=True)

    def _route(self, peer: Peer, change: PeerChange) -> None:
        if change.replace_allowed_ips:
            self._allowed_ips.remove_all(peer)
        for network in change.removed_allowed_ips:
            self._allowed_ips.remove(network, peer)
        for network in change.allowed_ips:
            self._allowed_ips.insert(network, peer)

    def _keep_alive(self, peer: Peer, interval_s: int, now: float) -> None:
        """The first keepalive goes at once when they are switched on."""
        timers = peer.timers
        before, timers.persistent_keepalive_s = timers.persistent_keepalive_s, interval_s
        if interval_s == 0:
            timers.persistent_keepalive_at = NEVER
        elif before == 0 and self.enabled:
            timers.keepalive_wanted(now)

    def status(self) -> TunnelStatus:
        return TunnelStatus(
            private_key=self._identity.private_key,
            listen_port=self._listen_port,
            fwmark=self._fwmark,
            peers=tuple(self._peer_status(peer) for peer in self._peers.values()),
        )

    def _peer_status(self, peer: Peer) -> PeerStatus:
        return PeerStatus(
            public_key=peer.public_key,
            preshared_key=PresharedKey(peer.preshared_key) if any(peer.preshared_key) else None,
            endpoint=transport_address(peer.endpoint.address) if peer.endpoint is not None else None,
            way=PLAIN if peer.endpoint is None else _way(peer.endpoint),
            pinned=peer.pinned,
            allowed_ips=self._allowed_ips.of(peer),
            persistent_keepalive_s=peer.timers.persistent_keepalive_s,
            last_handshake_ns=peer.last_handshake_ns,
            tx_bytes=peer.tx_bytes,
            rx_bytes=peer.rx_bytes,
            handshake_rtt_ns=peer.handshake_rtt_ns,
        )


def _endpoint(where: TransportAddress, way: Way) -> Endpoint:
    address = socket_address(where, way)
    local = pack_local(way, address[0])
    return Endpoint(address, local, fixed=bool(local))


def _way(endpoint: Endpoint) -> Way:
    return way_of(endpoint.address, endpoint.local if endpoint.fixed else b"")
