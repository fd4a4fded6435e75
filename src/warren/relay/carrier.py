"""Moves data between clients and peers in whole trains; the server's tables say where to.

From one client to another of the same relay the way is short: no packet leaves the process between the two, and where
both have a channel only its number is rewritten.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Collection
from typing import Protocol

from warren.proto.turn.channel import (
    CHANNEL_MAX,
    HEADER_BYTES,
    PADDING_BYTES_MAX,
    channel_of_train,
    rechannel_train,
    unwrap_train_untrusted,
    wrap_train,
)
from warren.proto.turn.server import TurnServer
from warren.proto.turn.server_values import Allocation, Channel, RelayedPort, SocketAddress
from warren.relay.sockets import TrainSocket
from warren.relay.streams import Stream, frame_train

Bytes = bytes | bytearray | memoryview

# Channels of RFC 5766 that RFC 8656 has no more: datagram by datagram, for old clients only.
_OLD_FIRST_BYTES = range((CHANNEL_MAX >> 8) + 1, 0x80)
_header = struct.Struct("!HH")
_DIRECTIONS = {
    what: (f"{what}_bytes", f"{what}_datagrams") for what in ("client_to_peer", "peer_to_client", "client_to_client")
}


class End(Protocol):
    """How a client is reached."""

    def send_message(self, data: bytes) -> bool:
        """A STUN message; False: it was lost."""

    def send_channel(self, number: int, train: Bytes, stride: int, ecn: int) -> bool:
        """Datagrams, each as ChannelData."""


class UdpEnd:
    """A client by UDP: through its own connected socket (``remote`` None), or through the relay's port."""

    __slots__ = ("local", "remote", "socket")

    def __init__(self, sock: TrainSocket, remote: SocketAddress | None = None, local: bytes = b"") -> None:
        self.socket = sock
        self.remote = remote
        self.local = local

    def send_message(self, data: bytes) -> bool:
        return not self.socket.send(data, len(data), self.remote, self.local)

    def send_channel(self, number: int, train: Bytes, stride: int, ecn: int) -> bool:
        wrap = wrap_train if number <= CHANNEL_MAX else _wrapped
        data = wrap(train, stride or 1, number)
        return not self.socket.send(data, stride + HEADER_BYTES, self.remote, self.local, ecn)

    def send_train(self, train: memoryview, stride: int, ecn: int) -> bool:
        """ChannelData as it is."""
        return not self.socket.send(train, stride, self.remote, self.local, ecn)


class StreamEnd:
    """A client by TCP or TLS. That its connection has ended is noticed where it is read."""

    __slots__ = ("_follow", "stream")

    def __init__(self, stream: Stream, follow: Callable[[Stream], None]) -> None:
        """``follow`` is called after each send: the stream may have begun to wait for room."""
        self.stream = stream
        self._follow = follow

    def send_message(self, data: bytes) -> bool:
        return self._send(data)

    def send_channel(self, number: int, train: Bytes, stride: int, ecn: int) -> bool:  # noqa: ARG002 - TCP has its own
        return self._send(frame_train(number, train, stride))

    def _send(self, data: bytes) -> bool:
        try:
            return self.stream.send(data)
        except OSError:
            return False
        finally:
            self._follow(self.stream)


class Carrier:
    """``own_hosts`` are the relay's addresses as peers see them, ``own_ports`` those of its ports that are peers."""

    def __init__(self, server: TurnServer, own_hosts: Collection[str], own_ports: Collection[int]) -> None:
        self._server = server
        self._relayed = server.relayed
        self._own_hosts = frozenset(own_hosts)
        self._own_ports = frozenset(own_ports)
        self.counters: Counter[str] = Counter()

    def from_client(
        self, allocation: Allocation, buffer: bytearray, length: int, stride: int, ecn: int, now: float
    ) -> None:
        """What a UDP client sent: ChannelData, STUN, or both. ``buffer`` may be reused on return."""
        allocation.heard_at = now
        number = channel_of_train(buffer, length, stride)
        if number:
            channel = allocation.channels.get(number)
            if channel is None or not channel.is_open(now):
                self.counters["no_channel"] += 1
                return
            if self._across(channel, buffer, length, stride, ecn, now):
                return
            if length == stride:  # the most frequent case of small datagrams
                size = _header.unpack_from(buffer)[1]
                data = memoryview(buffer)[HEADER_BYTES : HEADER_BYTES + size]
                self._outward(channel.relayed, channel.peer, data, size, ecn, now)
                return
        runs, malformed = unwrap_train_untrusted(buffer, length, stride)
        if malformed:
            self.counters["malformed"] += malformed
        view = memoryview(buffer)
        for run in runs:
            if run.channel:
                self.from_channel(allocation, run.channel, view[run.at : run.end], run.stride, ecn, now)
                continue
            for at in range(run.at, run.end, run.stride or 1):
                message = bytes(view[at : min(at + run.stride, run.end)])
                if len(message) >= HEADER_BYTES and message[0] in _OLD_FIRST_BYTES:
                    self._from_old_channel(allocation, message, ecn, now)
                else:
                    self._server.receive(message, allocation.client, now)

    def _from_old_channel(self, allocation: Allocation, message: bytes, ecn: int, now: float) -> None:
        number, size = _header.unpack_from(message)
        if not 0 <= len(message) - HEADER_BYTES - size <= PADDING_BYTES_MAX:
            self.counters["malformed"] += 1
            return
        self.from_channel(allocation, number, message[HEADER_BYTES : HEADER_BYTES + size], size, ecn, now)

    def _across(self, channel: Channel, buffer: bytearray, length: int, stride: int, ecn: int, now: float) -> bool:
        """From channel to channel, when both clients have one and use UDP."""
        target = self._relayed.get(channel.peer)
        if target is None:
            return False
        other = target.allocation.channel_of.get(channel.relayed.address)
        end = target.allocation.handle
        if other is None or other.number > CHANNEL_MAX or not other.is_open(now) or not isinstance(end, UdpEnd):
            return False
        rechannel_train(buffer, length, stride, other.number)
        sent = end.send_train(memoryview(buffer)[:length], stride, ecn)
        self._count("client_to_client", length, stride, sent=sent)
        return True

    def from_channel(
        self, allocation: Allocation, number: int, train: Bytes, stride: int, ecn: int, now: float
    ) -> None:
        """Datagrams that a client sent into a channel, without their headers."""
        channel = allocation.channels.get(number)
        if channel is None or not channel.is_open(now):
            self.counters["no_channel"] += 1
            return
        self._outward(channel.relayed, channel.peer, train, stride, ecn, now)

    def to_peer(self, relayed: RelayedPort, peer: SocketAddress, data: bytes, now: float, *, whole: bool) -> None:
        """The datagram of a Send indication."""
        if whole and peer not in self._relayed and self._is_outside(peer) and isinstance(relayed.handle, TrainSocket):
            sent = not relayed.handle.send_whole(data, peer)
            self._count("client_to_peer", len(data), len(data), sent=sent)
            return
        self._outward(relayed, peer, data, len(data), 0, now)

    def _outward(
        self, relayed: RelayedPort, peer: SocketAddress, train: Bytes, stride: int, ecn: int, now: float
    ) -> None:
        target = self._relayed.get(peer)
        if target is not None:
            self._inward(target, relayed.address, train, stride, ecn, now)
        elif self._is_outside(peer) and isinstance(relayed.handle, TrainSocket):
            sent = not relayed.handle.send(train, stride, peer, b"", ecn)
            self._count("client_to_peer", len(train), stride, sent=sent)
        else:
            self.counters["nobody_there"] += 1  # our own address, and no allocation has this port

    def _is_outside(self, peer: SocketAddress) -> bool:
        return peer[0] not in self._own_hosts or peer[1] in self._own_ports

    def from_peer(
        self, relayed: RelayedPort, source: SocketAddress, train: Bytes, stride: int, ecn: int, now: float
    ) -> None:
        """What arrived at a relayed address."""
        self._inward(relayed, source, train, stride, ecn, now)

    def _inward(
        self, relayed: RelayedPort, source: SocketAddress, train: Bytes, stride: int, ecn: int, now: float
    ) -> None:
        allocation = relayed.allocation
        channel = allocation.channel_of.get(source)
        end = allocation.handle
        if channel is not None and channel.is_open(now) and channel.relayed is relayed:
            sent = isinstance(end, UdpEnd | StreamEnd) and end.send_channel(channel.number, train, stride, ecn)
            self._count("peer_to_client", len(train), stride, sent=sent)
        elif allocation.permits(source[0], now):
            for at in range(0, len(train) or 1, stride or 1):
                self._server.from_peer(relayed, source, bytes(train[at : at + stride]), now)
            self._count("peer_to_client", len(train), stride, sent=True)
        else:
            self.counters["not_permitted"] += 1

    def _count(self, what: str, length: int, stride: int, *, sent: bool) -> None:
        counters = self.counters
        datagrams = -(-length // stride) if stride else 1
        if sent:
            in_bytes, in_datagrams = _DIRECTIONS[what]
            counters[in_bytes] += length
            counters[in_datagrams] += datagrams
        else:
            counters["send_refused_datagrams"] += datagrams


def _wrapped(train: Bytes, stride: int, number: int) -> bytes:
    """As :func:`wrap_train`, with any channel number."""
    view = memoryview(train)
    pieces = [view[at : at + stride] for at in range(0, len(view) or 1, stride)]
    return b"".join(part for piece in pieces for part in (_header.pack(number, len(piece)), piece))
