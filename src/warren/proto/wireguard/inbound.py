"""Inbound: from a train of datagrams to frames for the host.

Data messages of a known session are opened in place, all of a train by one call. ChannelData of a relay is taken out
of its wrapping, in place too, and goes the same way as coming from behind that channel. Everything else is judged one
by one and cheaply. The first bytes tell what is what (RFC 7983 §7): no two of WireGuard, STUN and ChannelData begin
alike.
"""

from __future__ import annotations

import struct
from array import array

from warren.proto.ip import ecn as congestion
from warren.proto.stun.message import HEADER_BYTES
from warren.proto.turn.channel import CHANNEL_MAX, CHANNEL_MIN, unwrap_train_untrusted
from warren.proto.wireguard.addresses import SocketAddress, through_channel
from warren.proto.wireguard.admission import Admission
from warren.proto.wireguard.constants import DATA, KEEPALIVE_BYTES
from warren.proto.wireguard.delivery import Delivery
from warren.proto.wireguard.handshake import Handshakes
from warren.proto.wireguard.indices import IndexTable
from warren.proto.wireguard.keypairs import Keypair
from warren.proto.wireguard.relays import Relays
from warren.proto.wireguard.roaming import Roaming
from warren.proto.wireguard.transport import OPEN_AUTH, OPEN_FOREIGN, OPEN_LIMIT, OPEN_MALFORMED, OPEN_REPLAY

TRAIN_BYTES_MAX = 1 << 16
DATAGRAM_BYTES_MIN = HEADER_BYTES
"""A bare STUN header; everything of WireGuard's and all ChannelData with either inside is longer."""
_DATAGRAMS_MAX = TRAIN_BYTES_MAX // KEEPALIVE_BYTES
"""Shorter datagrams than a keepalive are no data messages."""

_header = struct.Struct("<II")  # type and three zero bytes; receiver index
_FAILURES = {
    OPEN_AUTH: "data_forged",
    OPEN_REPLAY: "data_replayed",
    OPEN_LIMIT: "data_over_limit",
}
_NO_DATA = (OPEN_FOREIGN, OPEN_MALFORMED)  # of another session, or no data message at all: STUN may be shorter
_CHANNEL_DATA_MIN, _CHANNEL_DATA_MAX = CHANNEL_MIN >> 8, CHANNEL_MAX >> 8
_MARKED = (1, 3)
"""Outer ECN bits that matter for the inner packet: ECT(1) and CE (RFC 6040 §4.2)."""


class Inbound:
    """The receiving side of one device."""

    __slots__ = ("_admission", "_counters", "_delivery", "_handshakes", "_lengths", "_relays", "_roaming", "_sessions")

    def __init__(
        self,
        indices: IndexTable,
        handshakes: Handshakes,
        admission: Admission,
        roaming: Roaming,
        relays: Relays,
        delivery: Delivery,
        counters: dict[str, int],
    ) -> None:
        self._sessions = indices.sessions
        self._handshakes = handshakes
        self._admission = admission
        self._roaming = roaming
        self._relays = relays
        self._delivery = delivery
        self._counters = counters
        self._lengths = array("i", bytes(array("i").itemsize * _DATAGRAMS_MAX))

    def receive(
        self, buffer: bytearray, length: int, stride: int, source: SocketAddress, local: bytes, ecn: int, now: float
    ) -> None:
        """Take one train, ``buffer[:length]`` (at most 64 KB), of datagrams of ``stride`` bytes from ``source`` to
        ``local``.

        Data messages are opened in place. Never raises for what is in the datagrams.
        """
        if stride >= KEEPALIVE_BYTES and length >= KEEPALIVE_BYTES:
            kind, index = _header.unpack_from(buffer)
            if kind == DATA:
                pair = self._sessions.get(index)
                if pair is not None and now < pair.receive_until:
                    self._open(pair, buffer, 0, length, stride, source, local, ecn, now)
                    return
        elif stride < DATAGRAM_BYTES_MIN or length < DATAGRAM_BYTES_MIN:
            if length:
                self._counters["udp_malformed"] += -(-length // max(1, stride))
            return
        if _CHANNEL_DATA_MIN <= buffer[0] <= _CHANNEL_DATA_MAX:
            self._unwrap(buffer, length, stride, source, local, ecn, now)
        else:
            self._one_by_one(range(0, length, stride), buffer, length, stride, source, local, ecn, now)

    def _unwrap(
        self, buffer: bytearray, length: int, stride: int, source: SocketAddress, local: bytes, ecn: int, now: float
    ) -> None:
        """Take a train that begins with ChannelData."""
        if not self._relays.knows(source):
            self._counters["channel_data_refused"] += -(-length // stride)
            return
        runs, malformed = unwrap_train_untrusted(buffer, length, stride)
        self._counters["channel_data_malformed"] += malformed
        for channel, at, end, size in runs:
            if size == 0:
                self._counters["udp_malformed"] += 1
                continue
            behind = through_channel(source, channel) if channel else source
            self._take(buffer, at, end, size, behind, local, ecn, now)

    def _take(
        self,
        buffer: bytearray,
        at: int,
        end: int,
        stride: int,
        source: SocketAddress,
        local: bytes,
        ecn: int,
        now: float,
    ) -> None:
        """Take what was in ChannelData, or between it."""
        if stride >= KEEPALIVE_BYTES and end - at >= KEEPALIVE_BYTES:
            kind, index = _header.unpack_from(buffer, at)
            if kind == DATA:
                pair = self._sessions.get(index)
                if pair is not None and now < pair.receive_until:
                    self._open(pair, buffer, at, end, stride, source, local, ecn, now)
                    return
        self._one_by_one(range(at, end, stride), buffer, end, stride, source, local, ecn, now)

    def _open(
        self,
        pair: Keypair,
        buffer: bytearray,
        at: int,
        end: int,
        stride: int,
        source: SocketAddress,
        local: bytes,
        ecn: int,
        now: float,
    ) -> None:
        """Open a train that begins with a message of session ``pair``."""
        lengths = self._lengths
        opened = pair.opening.open(buffer, at, end, stride, lengths)
        count = (end - at + stride - 1) // stride
        size = end - at
        if opened == count:
            data = lengths[0] > 0
            foreign = None
        else:
            foreign, size, data = self._tally(at, end, stride, count)
        if opened:
            peer = pair.peer
            endpoint = peer.endpoint
            if endpoint is None or endpoint.address != source or endpoint.local != local:
                self._roaming.heard_from(peer, source, local, now)
            peer.rx_bytes += size
            keypairs = peer.keypairs
            if pair is keypairs.next:
                self._handshakes.confirm(peer, now)
            peer.timers.received(now, data)
            current = keypairs.current
            if current is not None and now > current.renew_receiving_after and not peer.renewing_for_receiving:
                peer.renewing_for_receiving = True
                self._handshakes.begin(peer, now)
            if data:
                if ecn in _MARKED:
                    self._counters["inner_congested"] += congestion.decapsulate(buffer, at, end, stride, lengths, ecn)
                self._delivery.add(peer, buffer, at, end, stride, lengths)
        if foreign:
            self._one_by_one(foreign, buffer, end, stride, source, local, ecn, now)

    def _tally(self, at: int, end: int, stride: int, count: int) -> tuple[list[int], int, bool]:
        """Of a train not opened completely: where foreign datagrams begin, the bytes that were opened, and whether
        data is among them.
        """
        foreign = []
        size = 0
        data = False
        for i, length in enumerate(self._lengths[:count]):
            if length >= 0:
                size += min(stride, end - at - i * stride)
                data = data or length > 0
            elif length in _NO_DATA:
                foreign.append(at + i * stride)
            else:
                self._counters[_FAILURES[length]] += 1
        return foreign, size, data

    def _one_by_one(
        self,
        starts: range | list[int],
        buffer: bytearray,
        end: int,
        stride: int,
        source: SocketAddress,
        local: bytes,
        ecn: int,
        now: float,
    ) -> None:
        """Take the datagrams that begin at ``starts``, each by itself."""
        for at in starts:
            limit = min(at + stride, end)
            if _CHANNEL_DATA_MIN <= buffer[at] <= _CHANNEL_DATA_MAX:
                self._unwrap(buffer[at:limit], limit - at, limit - at, source, local, ecn, now)
                continue
            if limit - at < DATAGRAM_BYTES_MIN:
                self._counters["udp_malformed"] += 1
                continue
            kind, index = _header.unpack_from(buffer, at)
            if kind != DATA or limit - at < KEEPALIVE_BYTES:
                with memoryview(buffer) as view:
                    self._admission.receive(view[at:limit], source, local, now)
                continue
            pair = self._sessions.get(index)
            if pair is None or now >= pair.receive_until:
                self._counters["udp_unknown_index"] += 1
            else:
                self._open(pair, buffer, at, limit, limit - at, source, local, ecn, now)
