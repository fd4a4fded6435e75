"""Inbound: from a train of datagrams to frames for the host.

Data messages of a known session are opened in place, all of a train by one call. Everything else is judged one by one
and cheaply.
"""

from __future__ import annotations

import struct
from array import array

from warren.proto.ip import ecn as congestion
from warren.proto.wireguard.admission import Admission
from warren.proto.wireguard.constants import DATA, KEEPALIVE_BYTES
from warren.proto.wireguard.delivery import Delivery
from warren.proto.wireguard.events import SocketAddress
from warren.proto.wireguard.handshake import Handshakes
from warren.proto.wireguard.indices import IndexTable
from warren.proto.wireguard.keypairs import Keypair
from warren.proto.wireguard.transport import OPEN_AUTH, OPEN_FOREIGN, OPEN_LIMIT, OPEN_MALFORMED, OPEN_REPLAY

TRAIN_BYTES_MAX = 1 << 16
_DATAGRAMS_MAX = TRAIN_BYTES_MAX // KEEPALIVE_BYTES
"""Shorter datagrams than a keepalive are no data messages."""

_header = struct.Struct("<II")  # type and three zero bytes; receiver index
_FAILURES = {
    OPEN_AUTH: "data_forged",
    OPEN_REPLAY: "data_replayed",
    OPEN_MALFORMED: "udp_malformed",
    OPEN_LIMIT: "data_over_limit",
}
_MARKED = (1, 3)
"""Outer ECN bits that matter for the inner packet: ECT(1) and CE (RFC 6040 §4.2)."""


class Inbound:
    """The receiving side of one device."""

    __slots__ = ("_admission", "_counters", "_delivery", "_handshakes", "_lengths", "_sessions")

    def __init__(
        self,
        indices: IndexTable,
        handshakes: Handshakes,
        admission: Admission,
        delivery: Delivery,
        counters: dict[str, int],
    ) -> None:
        self._sessions = indices.sessions
        self._handshakes = handshakes
        self._admission = admission
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
        if stride < KEEPALIVE_BYTES or length < KEEPALIVE_BYTES:
            if length:
                self._counters["udp_malformed"] += -(-length // max(1, stride))
            return
        kind, index = _header.unpack_from(buffer)
        if kind == DATA:
            pair = self._sessions.get(index)
            if pair is not None and now < pair.receive_until:
                self._open(pair, buffer, 0, length, stride, source, local, ecn, now)
                return
        self._one_by_one(range(0, length, stride), buffer, length, stride, source, local, ecn, now)

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
                self._handshakes.heard_from(peer, source, local, now)
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
            elif length == OPEN_FOREIGN:
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
            if limit - at < KEEPALIVE_BYTES:
                self._counters["udp_malformed"] += 1
                continue
            kind, index = _header.unpack_from(buffer, at)
            if kind != DATA:
                with memoryview(buffer) as view:
                    self._admission.receive(view[at:limit], source, local, now)
                continue
            pair = self._sessions.get(index)
            if pair is None or now >= pair.receive_until:
                self._counters["udp_unknown_index"] += 1
            else:
                self._open(pair, buffer, at, limit, limit - at, source, local, ecn, now)
