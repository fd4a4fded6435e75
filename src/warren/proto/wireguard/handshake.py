"""Making sessions: initiations, responses and what follows from them (WireGuard §5.4.2–§5.4.5, §6.4).

============================  ==================================================  ====================================
what happens                  what it requires                                    what follows
============================  ==================================================  ====================================
:meth:`~Handshakes.begin`     no handshake message sent within 5 s                initiation sent, retransmit timer set
initiation received           authentic, newer timestamp, 20 ms after the last    response sent, session in *next*
response received             authentic, answers our pending initiation           session in *current*, waiting packets
                                                                                  or a keepalive sent
first data under *next*       opened by the data path                             session in *current*, our own pending
                                                                                  initiation dropped, packets sent
============================  ==================================================  ====================================

When both sides initiate at once, each answers the other *and* completes its own: the slots of ``keypairs`` keep both
sessions open until one side's traffic settles it, so no one waits for a retransmission.

Errors: a message that is not genuine is counted and changes nothing; no method raises for hostile bytes.
"""

from __future__ import annotations

from collections.abc import Callable

from warren.errors import MalformedPacket
from warren.identity.keys import PublicKey
from warren.proto.wireguard.addresses import SocketAddress
from warren.proto.wireguard.constants import (
    IDENTIFIER,
    INITIATION_INTERVAL_S,
    KEY_BYTES,
    REKEY_TIMEOUT_S,
    TIMESTAMP_BYTES,
)
from warren.proto.wireguard.cookie import CookieJar
from warren.proto.wireguard.datapaths import DataPath
from warren.proto.wireguard.events import (
    Event,
    HandshakeCompleted,
    PeerRenamed,
    SessionRenewed,
)
from warren.proto.wireguard.identity import Identity
from warren.proto.wireguard.indices import IndexTable
from warren.proto.wireguard.keypairs import Keypair
from warren.proto.wireguard.messages import (
    Initiation,
    Response,
    pack_initiation,
    pack_response,
    unpack_initiation_untrusted,
    unpack_response_untrusted,
)
from warren.proto.wireguard.noise import Initiator, KeyPair, Rejected, Responder
from warren.proto.wireguard.outbound import Outbound
from warren.proto.wireguard.peer import LONG_AGO, Endpoint, Peer, PendingInitiation
from warren.proto.wireguard.roaming import Roaming
from warren.proto.wireguard.timers import NEVER
from warren.proto.wireguard.timestamp import TimestampSource, pack_tai64n

UNANSWERED_S = 1.0
"""A handshake that waits longer than nearly any round trip, and something to send: a better endpoint is wanted."""


class Handshakes:
    """The handshakes of one device with all its ``peers`` (by raw public key). ``enabled`` is False while the device
    is down.
    """

    def __init__(
        self,
        identity: Identity,
        peers: dict[bytes, Peer],
        indices: IndexTable,
        datapath: DataPath,
        timestamps: TimestampSource,
        random: Callable[[int], bytes],
        roaming: Roaming,
        outbound: Outbound,
        counters: dict[str, int],
        tell: Callable[[Event], None],
    ) -> None:
        self.enabled = False
        self._identity = identity
        self._peers = peers
        self._indices = indices
        self._datapath = datapath
        self._timestamps = timestamps
        self._random = random
        self._roaming = roaming
        self._outbound = outbound
        self._counters = counters
        self._tell = tell

    # Ours.

    def begin(self, peer: Peer, now: float, *, retry: bool = False) -> None:
        """Send an initiation, unless a handshake message went to ``peer`` less than five seconds ago.

        ``retry``: it is a retransmission; otherwise the ninety seconds until giving up start anew.
        """
        timers = peer.timers
        if not retry:
            timers.handshake_begins()
        keys = self._identity.keys
        if keys is None or not self.enabled:
            return
        unanswered = peer.initiation is not None and now - peer.handshake_sent_at >= UNANSWERED_S
        if peer.endpoint is None or (unanswered and not retry):
            self._roaming.want_endpoint(peer, now)
        if peer.endpoint is None or now - peer.handshake_sent_at < REKEY_TIMEOUT_S:
            # Too early, or nowhere to send to yet: look again when an answer would be due. Packets do not wait for
            # ever.
            if timers.retransmit_handshake_at == NEVER:
                timers.initiation_sent(now)
            return
        peer.handshake_sent_at = now
        self.drop_initiation(peer)
        noise = Initiator(keys, IDENTIFIER)
        try:
            static_static = self._static_static(peer, keys)
            timestamp_ns = self._timestamps.after(peer.timestamp_ns)
            ephemeral = KeyPair(self._random(KEY_BYTES))
            written = noise.write(peer.public_key.raw, static_static, ephemeral, pack_tai64n(timestamp_ns))
        except Rejected:
            self._counters["handshake_key_refused"] += 1
            return
        peer.timestamp_ns = timestamp_ns
        own_index = self._indices.allocate(peer)
        peer.initiation = PendingInitiation(noise, own_index, now)
        message = peer.cookies.add_macs(pack_initiation(Initiation(own_index, written)), now)
        self._counters["initiations_sent"] += 1
        self._outbound.handshake(peer, message, peer.endpoint, now)
        timers.initiation_sent(now)

    def drop_initiation(self, peer: Peer) -> None:
        """Forget our pending initiation: a response to it is a stranger's from now on."""
        if peer.initiation is not None:
            self._indices.release_handshake(peer.initiation.own_index)
            peer.initiation = None

    def take_response(self, data: bytes, source: SocketAddress, local: bytes, arrived_at: float, now: float) -> None:
        """Take a handshake response whose mac1 was checked on arrival."""
        try:
            message = unpack_response_untrusted(data)
            peer = self._indices.handshaking(message.receiver)
            if peer is None or peer.initiation is None:
                self._counters["udp_unknown_index"] += 1
                return
            noise = peer.initiation.noise
            noise.read(message.noise, peer.preshared_key)
        except (MalformedPacket, Rejected):
            self._counters["handshake_forged"] += 1
            return
        own_index = peer.initiation.own_index
        # Each attempt has an index and an ephemeral key of its own, so this is the answer to no other.
        peer.handshake_rtt_ns = max(1, round((arrived_at - peer.initiation.sent_at) * 1e9))
        peer.initiation = None
        self._heard(peer, len(data), source, local, now)
        made = self._keypair(peer, noise.split(), message.sender, own_index, by_us=True, now=now)
        self._indices.begin_session(made)
        self._retire(peer.keypairs.add_initiated(made))
        peer.timers.session_derived(now)
        self._completed(peer, by_us=True)
        self._outbound.keepalive(peer, now)  # §5.4.5: the responder sends only after our first data message

    # The peer's.

    def take_initiation(self, data: bytes, source: SocketAddress, local: bytes, now: float) -> None:
        """Take a handshake initiation whose mac1 (and under load mac2) was checked, and answer it."""
        keys = self._identity.keys
        if keys is None:
            return
        noise = Responder(keys, IDENTIFIER)
        try:
            message = unpack_initiation_untrusted(data)
            peer = self._peers.get(noise.read_static(message.noise))
            if peer is None:
                self._counters["handshake_unknown_peer"] += 1
                return
            timestamp = noise.read_payload(self._static_static(peer, keys))
        except (MalformedPacket, Rejected):
            self._counters["handshake_forged"] += 1
            return
        if timestamp <= peer.newest_timestamp:  # §5.1: TAI64N, a replay
            self._counters["handshake_replayed"] += 1
            return
        if now - peer.initiation_taken_at <= INITIATION_INTERVAL_S:  # §5.1: a flood of genuine ones
            self._counters["handshake_too_often"] += 1
            return
        peer.newest_timestamp = timestamp
        peer.initiation_taken_at = now
        self._heard(peer, len(data), source, local, now)
        endpoint = peer.endpoint
        if endpoint is None or endpoint.address != source:  # a pinned peer's: it is answered where it asked
            endpoint = Endpoint(source, local)
        self._respond(peer, noise, message.sender, endpoint, now)

    def _respond(self, peer: Peer, noise: Responder, remote_index: int, endpoint: Endpoint, now: float) -> None:
        own_index = self._indices.allocate(peer)
        written = noise.write(KeyPair(self._random(KEY_BYTES)), peer.preshared_key, b"")
        message = peer.cookies.add_macs(pack_response(Response(own_index, remote_index, written)), now)
        made = self._keypair(peer, noise.split(), remote_index, own_index, by_us=False, now=now)
        self._indices.begin_session(made)
        self._retire(peer.keypairs.add_responded(made))
        peer.handshake_sent_at = now
        peer.timers.session_derived(now)
        self._counters["responses_sent"] += 1
        self._outbound.handshake(peer, message, endpoint, now)

    def confirm(self, peer: Peer, now: float) -> None:
        """The first data message under the session in *next* was opened: the peer has it, so we may send under it
        (§5.4.5).
        """
        self._retire(peer.keypairs.confirm_next())
        self.drop_initiation(peer)
        self._completed(peer, by_us=False)
        self._outbound.release(peer, now)

    # Both.

    def expire(self, peer: Peer) -> None:
        """Our private key changed: send nothing more under old sessions, and handshake at once when there is
        something to send.
        """
        self._void(peer)
        peer.keypairs.expire()

    def renew(self, peer: Peer, now: float) -> None:
        """Our private key changed and sessions stay as they are: a handshake under way begins anew, at once."""
        self._void(peer)
        peer.timers.handshake_void(now)

    def rename(self, peer: Peer, public_key: PublicKey, now: float) -> None:
        """The peer's key is ``public_key`` from now on; sessions stay as they are, and a handshake under way begins
        anew, at once.

        The greatest timestamp received was the old key's. With the new key the count begins anew, as for any peer:
        only so is a new key the cure for a clock that once stood in the future. Ours go on rising.
        """
        before, peer.public_key = peer.public_key, public_key
        peer.cookies = CookieJar(public_key.raw)
        peer.newest_timestamp = bytes(TIMESTAMP_BYTES)
        peer.initiation_taken_at = LONG_AGO
        self.renew(peer, now)
        self._tell(PeerRenamed(before, public_key))

    def _void(self, peer: Peer) -> None:
        """One of the two static keys changed: what was begun with it is of no use, and the next need not wait."""
        self.drop_initiation(peer)
        peer.static_static = None
        peer.handshake_sent_at = LONG_AGO

    def forget(self, peer: Peer) -> None:
        """Forget all keys and waiting packets of ``peer`` (§6.3)."""
        self.drop_initiation(peer)
        self._retire(peer.keypairs.clear())
        self._outbound.purge(peer)

    def _static_static(self, peer: Peer, keys: KeyPair) -> bytes:
        if peer.static_static is None:
            peer.static_static = keys.exchange(peer.public_key.raw)
        return peer.static_static

    def _heard(self, peer: Peer, size: int, source: SocketAddress, local: bytes, now: float) -> None:
        peer.rx_bytes += size
        peer.timers.received(now, False)
        endpoint = peer.endpoint
        if endpoint is None or endpoint.address != source or endpoint.local != local:
            self._roaming.heard_from(peer, source, local, now)

    def _keypair(
        self, peer: Peer, keys: tuple[bytes, bytes], remote_index: int, own_index: int, *, by_us: bool, now: float
    ) -> Keypair:
        sending = self._datapath.sealing_key(keys[0], remote_index)
        receiving = self._datapath.opening_key(keys[1], own_index)
        return Keypair(peer, sending, receiving, own_index, by_us, now)

    def _retire(self, pairs: list[Keypair]) -> None:
        for pair in pairs:
            self._indices.release_session(pair.own_index)
            pair.wipe()

    def _completed(self, peer: Peer, *, by_us: bool) -> None:
        peer.timers.handshake_completed()
        peer.renewing_for_receiving = peer.unreachable = False
        peer.last_handshake_ns = self._timestamps.wall_clock_ns()
        self._counters["handshakes_completed"] += 1
        told = HandshakeCompleted if peer.keypairs.previous is None else SessionRenewed
        self._tell(told(peer.public_key, by_us))
