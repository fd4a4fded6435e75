"""Outbound: from packets of the host to sealed trains, and everything else that is sent.

``send`` runs for every frame the host writes and ``flush`` for every batch of them, so both keep to local names,
tuples and one reused buffer. Packets of one peer, size and ECN mark that follow each other become one train, sealed
by one call and sent by one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from warren.proto.ip.segment import MALFORMED
from warren.proto.ip.virtio import VNET
from warren.proto.wireguard.allowed_ips import AllowedIps
from warren.proto.wireguard.constants import KEEPALIVE_BYTES, REKEY_AFTER_MESSAGES
from warren.proto.wireguard.peer import Endpoint, Peer
from warren.proto.wireguard.staging import Train

FRAME_ROOM = 1 << 17
"""A 64 KB frame becomes at most this many bytes of slots: sent from then on in segments of 64 bytes or more."""
BUFFER_BYTES = 1 << 18
"""Two of those: while one train waits for company there is room for the next frame."""
TRAIN_DATAGRAMS_MAX = 64
TRAIN_BYTES_MAX = 65000
"""What one UDP_SEGMENT call carries (udp(7)): joining more would only be cut again."""

_VERSION_AT = VNET
_IPV4_DESTINATION = slice(VNET + 16, VNET + 20)
_IPV6_DESTINATION = slice(VNET + 24, VNET + 40)
_IPV4_FRAME_MIN = VNET + 20
_IPV6_FRAME_MIN = VNET + 40

Split = Callable[[Any, int, bytearray, int, int], tuple[int, int, int]]


class Transmit(NamedTuple):
    """A train to send to ``endpoint``: datagrams of ``stride`` bytes back to back, the last may be shorter.

    ``data`` of packets is a view of a reused buffer, valid until the next ``send``. ``ecn`` goes into the outer
    header. ``peer`` is for feedback to the device; None for cookie replies.
    """

    data: memoryview | bytes
    stride: int
    endpoint: Endpoint
    ecn: int
    peer: Peer | None


class Outbound:
    """The sending side of one device. ``begin_handshake`` is called when a peer has no session to send under, or an
    ageing one.

    ``mtu`` bounds padding; ``enabled`` is False while the device is down: packets are then dropped.
    """

    __slots__ = (
        "_at",
        "_begin_handshake",
        "_cached",
        "_count",
        "_counters",
        "_ecn",
        "_end",
        "_lookup",
        "_out",
        "_peer",
        "_split",
        "_stride",
        "_trains",
        "_transmits",
        "_view",
        "enabled",
        "mtu",
    )

    def __init__(
        self,
        split: Split,
        allowed_ips: AllowedIps[Peer],
        counters: dict[str, int],
        begin_handshake: Callable[[Peer, float], None],
        mtu: int,
    ) -> None:
        self._split = split
        self._cached = allowed_ips.cached
        self._lookup = allowed_ips.lookup
        self._counters = counters
        self._begin_handshake = begin_handshake
        self.mtu = mtu
        self.enabled = False
        self._out = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._out)
        self._end = 0
        # Not sealed yet: peer, at, end, stride, count, ecn.
        self._trains: list[tuple[Peer, int, int, int, int, int]] = []
        self._transmits: list[Transmit] = []
        # The open train, to which more may be joined; none while _peer is None.
        self._peer: Peer | None = None
        self._at = self._stride = self._count = self._ecn = 0

    def room(self) -> bool:
        return self._end <= BUFFER_BYTES - FRAME_ROOM

    def send(self, frame: memoryview, length: int, now: float) -> None:  # noqa: ARG002 - as all verbs
        """Stage one frame of the host, ``frame[:length]``: virtio header and IP packet. It goes out with the next
        :meth:`flush`.
        """
        version = frame[_VERSION_AT] >> 4 if length >= _IPV4_FRAME_MIN else 0
        if version == 4:
            destination = bytes(frame[_IPV4_DESTINATION])
            ecn = frame[_VERSION_AT + 1] & 3
        elif version == 6 and length >= _IPV6_FRAME_MIN:
            destination = bytes(frame[_IPV6_DESTINATION])
            ecn = frame[_VERSION_AT + 1] >> 4 & 3
        else:
            self._counters["tun_malformed"] += 1
            return
        peer = self._cached.get(destination) or self._lookup(destination)
        if peer is None:
            self._counters["tun_no_peer"] += 1
            return
        at = self._end
        count, stride, end = self._split(frame, length, self._out, at, self.mtu)
        if count <= 0:
            self._counters["tun_malformed" if stride == MALFORMED else "tun_no_room"] += 1
            return
        self._end = end
        if (
            peer is self._peer
            and ecn == self._ecn
            and (stride == self._stride or (count == 1 and stride < self._stride))
            and self._count + count <= TRAIN_DATAGRAMS_MAX
            and end - self._at <= TRAIN_BYTES_MAX
        ):
            self._count += count
        else:
            if self._peer is not None:
                self._close(at)
            self._peer, self._at, self._stride, self._count, self._ecn = peer, at, stride, count, ecn
        if (end - self._at) % self._stride:
            self._close(end)  # only the last datagram of a train may be shorter

    def _close(self, end: int) -> None:
        """The open train ends at ``end``: nothing more can be joined to it."""
        if self._peer is not None:
            self._trains.append((self._peer, self._at, end, self._stride, self._count, self._ecn))
            self._peer = None

    def flush(self, now: float) -> None:
        """Seal what was staged; where there is no session, let it wait and begin a handshake."""
        if self._peer is not None:
            self._close(self._end)
        trains = self._trains
        if not trains:
            return
        self._trains = []
        if not self.enabled:
            self._counters["tun_device_down"] += sum(train[4] for train in trains)
            return
        out, view, transmits = self._out, self._view, self._transmits
        for peer, at, end, stride, count, ecn in trains:
            pair = peer.keypairs.current
            endpoint = peer.endpoint
            if pair is None or endpoint is None or not pair.may_send(count, now):
                self._stage(peer, Train(bytearray(view[at:end]), stride, count, ecn), now)
                continue
            sealing = pair.sealing
            sealing.seal(out, at, end, stride)
            peer.tx_bytes += end - at
            peer.timers.sent(now, True)
            transmits.append(Transmit(view[at:end], stride, endpoint, ecn, peer))
            if now > pair.renew_sending_after or sealing.counter > REKEY_AFTER_MESSAGES:
                self._begin_handshake(peer, now)  # §6.2

    def _stage(self, peer: Peer, train: Train, now: float) -> None:
        self._counters["staged_dropped"] += peer.staged.put(train)
        self._begin_handshake(peer, now)

    def release(self, peer: Peer, now: float) -> None:
        """Send what waits for a session with ``peer``, as far as there is one now; else begin a handshake."""
        staged = peer.staged
        while staged:
            pair = peer.keypairs.current
            endpoint = peer.endpoint
            if pair is None or endpoint is None or not pair.may_send(staged.first.datagrams, now):
                self._begin_handshake(peer, now)
                return
            slots, stride, _, ecn = staged.get()
            pair.sealing.seal(slots, 0, len(slots), stride)
            peer.tx_bytes += len(slots)
            keepalive = len(slots) == KEEPALIVE_BYTES
            self._counters["keepalives_sent"] += keepalive
            peer.timers.sent(now, not keepalive)
            self._transmits.append(Transmit(memoryview(slots), stride, endpoint, ecn, peer))
            if now > pair.renew_sending_after or pair.sealing.counter > REKEY_AFTER_MESSAGES:
                self._begin_handshake(peer, now)

    def keepalive(self, peer: Peer, now: float) -> None:
        """Send an empty data message (§6.5), or packets that wait anyway."""
        if not peer.staged:
            peer.staged.put(Train(bytearray(KEEPALIVE_BYTES), KEEPALIVE_BYTES, 1, 0))
        self.release(peer, now)

    def purge(self, peer: Peer) -> None:
        """Drop what waits for a session with ``peer``."""
        self._counters["staged_dropped"] += peer.staged.purge()

    def handshake(self, peer: Peer, message: bytes, endpoint: Endpoint, now: float) -> None:
        """Send an authenticated handshake message of ours to ``peer`` at ``endpoint``."""
        peer.tx_bytes += len(message)
        peer.timers.sent(now, False)
        self._transmits.append(Transmit(message, len(message), endpoint, 0, peer))

    def reply(self, message: bytes, endpoint: Endpoint) -> None:
        """Send a message that is no peer's: a cookie reply."""
        self._transmits.append(Transmit(message, len(message), endpoint, 0, None))

    def take(self) -> list[Transmit]:
        """Everything to be sent since the last call."""
        if self._peer is None and not self._trains:
            self._end = 0
        transmits = self._transmits
        if transmits:
            self._transmits = []
        return transmits
