"""Signals of this node and of others: made, sent by all ways there are, carried, taken in, within limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec import structs

from warren.errors import MalformedPacket
from warren.paths.checks import TRANSACTION_BYTES, key_of, names
from warren.paths.context import Context
from warren.paths.events import Check, Learned, SignalWanted
from warren.paths.pacing import Bucket
from warren.paths.peer import PeerPaths
from warren.paths.signals import (
    CANDIDATES_MAX,
    CARRIED_BYTES_MAX,
    CARRIED_FROM,
    CARRIERS_MAX,
    CARRY_TO,
    SIGNAL_BYTES_MAX,
    SIGNALS_BURST,
    SIGNALS_PER_S,
    Signal,
    places,
    read_signal_untrusted,
    seal_carried,
    seal_signal,
)
from warren.paths.values import RemoteCandidate
from warren.proto.stun.message import Attribute, Class, Message, Method, decode_untrusted

KEY_BYTES: Final = 32
BROUGHT_PER_S: Final = 20.0
BROUGHT_BURST: Final = 60.0
"""Signals of others that one member brings: each costs a look at its signature."""


class Signalling:
    """Owned by Connectivity."""

    def __init__(self, context: Context, peers: dict[bytes, PeerPaths]) -> None:
        self._context = context
        self._peers = peers
        self._received: dict[bytes, Bucket] = {}
        self._carried: dict[bytes, Bucket] = {}
        self._sent: dict[bytes, Bucket] = {}
        self._brought: dict[bytes, Bucket] = {}

    def forget(self, node: bytes) -> None:
        for buckets in (self._received, self._carried, self._sent, self._brought):
            buckets.pop(node, None)
        self._context.signals.pop(node, None)

    # Out

    def flush(self, now: float) -> None:
        """Send the signals that the peers' machines asked for."""
        while self._context.signals:
            node, (asks, sockets) = self._context.signals.popitem()
            peer = self._peers.get(node)
            if peer is not None and self._allowed(self._sent, node, now):
                self._send(peer, sockets, asks=asks)

    def _send(self, peer: PeerPaths, sockets: int, *, asks: bool) -> None:
        context = self._context
        context.signals_sent += 1
        signal = Signal(
            asks,
            places(self._own_candidates()),
            context.nat,
            sockets,
            epoch=context.epoch,
            order=context.signals_sent,
        )
        small = self._seal(peer, signal)
        pair = peer.choice.pair
        if pair is not None and peer.choice.is_sound():
            context.transmits.append(Check(pair.base, pair.remote, small))
            return
        whole = self._seal(peer, structs.replace(signal, record=context.record))
        context.events.append(SignalWanted(peer.node, whole if len(whole) <= SIGNAL_BYTES_MAX else small))
        if len(small) > CARRIED_BYTES_MAX:
            return
        able = [one for one in self._peers.values() if one is not peer and one.choice.is_sound()]
        able.sort(key=lambda one: -one.choice.since)
        for carrier in able[:CARRIERS_MAX]:
            self._hand_to(carrier, small, peer.node, onward=True)

    def _seal(self, peer: PeerPaths, signal: Signal) -> bytes:
        transaction = self._context.random(TRANSACTION_BYTES)
        return seal_signal(
            signal, key=peer.keys[0], transaction=transaction, receiver=peer.label, sender=self._context.label
        )

    def _own_candidates(self) -> tuple[RemoteCandidate, ...]:
        """What servers said lately, then what the record says."""
        fresh = [
            RemoteCandidate("srflx", address)
            for seen in self._context.mapped.values()
            for address, at in sorted(seen.values(), key=lambda one: -one[1])[:2]
        ]
        found: dict[object, RemoteCandidate] = {}
        relays = [RemoteCandidate("relay", address) for _, address in self._context.around.relayed]
        for one in (*fresh[: CANDIDATES_MAX // 2], *relays, *self._context.candidates):
            found.setdefault(one.address, one)
        return tuple(found.values())

    def _hand_to(self, hop: PeerPaths, signal: bytes, node: bytes, *, onward: bool) -> None:
        pair = hop.choice.pair
        if pair is None:
            return
        data = seal_carried(
            signal,
            node,
            onward=onward,
            key=hop.keys[0],
            transaction=self._context.random(TRANSACTION_BYTES),
            receiver=hop.label,
            sender=self._context.label,
        )
        self._context.transmits.append(Check(pair.base, pair.remote, data))

    # In

    def received(self, node: bytes, data: bytes, now: float) -> PeerPaths | None:
        """The coordinator, or a member, brought what is said to be a signal of ``node``. Returns whose it is."""
        peer = self._peers.get(node)
        if peer is None:
            return None
        try:
            message = decode_untrusted(data, SIGNAL_BYTES_MAX)
            if message.method != Method.CARRY or message.cls != Class.INDICATION:
                return None
            if names(message) != (self._context.label, peer.label) or key_of(message, peer.keys) is None:
                return None
            if not self._allowed(self._received, node, now):  # only now: others must not use up its share
                return None
            self._take(peer, read_signal_untrusted(message), now)
        except MalformedPacket:
            return None
        return peer

    def indication(self, hop: PeerPaths, message: Message, now: float) -> Iterator[PeerPaths]:
        """An authentic indication of ``hop``: a signal of its own, or one to carry, or one that it carried. Yields
        whose machine has something to do. Raises MalformedPacket.
        """
        to, come_from = message.get(CARRY_TO), message.get(CARRIED_FROM)
        data = message.get(Attribute.DATA) or b""
        if to is None and come_from is None:
            if self._allowed(self._received, hop.node, now):
                self._take(hop, read_signal_untrusted(message), now)
                yield hop
        elif come_from is not None:
            brought = self._brought.setdefault(hop.node, Bucket(BROUGHT_PER_S, BROUGHT_BURST, now))
            peer = self.received(come_from, data, now) if brought.take(now) else None
            if peer is not None:
                yield peer
        elif to is not None and len(to) == KEY_BYTES and len(data) <= CARRIED_BYTES_MAX:
            target = self._peers.get(to)
            able = target is not None and target is not hop and target.choice.is_sound()
            if target is not None and able and self._allowed(self._carried, hop.node, now):
                self._hand_to(target, data, hop.node, onward=False)

    def _take(self, peer: PeerPaths, signal: Signal, now: float) -> None:
        if signal.record:
            self._context.events.append(Learned(peer.node, signal.record))
        if peer.signal_order.accepts(signal.epoch, signal.order):
            peer.signalled(signal, now)

    def _allowed(self, buckets: dict[bytes, Bucket], node: bytes, now: float) -> bool:
        bucket = buckets.get(node)
        if bucket is None:
            bucket = buckets[node] = Bucket(SIGNALS_PER_S, SIGNALS_BURST, now)
        return bucket.take(now)
