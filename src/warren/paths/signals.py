"""Signals: "check me now", what a peer needs for it, and how a third member carries them (STUN indications, CARRY).

A signal is signed with the key of the two nodes that it is between, so it does not matter who brings it: the
coordinator, or a member to which both have a path. Such a carrier gets it inside another indication, signed with the
key of the carrier and its neighbour, and passes it on once: what it brings is never carried further.

==================  ==========================================================
attribute           is
==================  ==========================================================
USERNAME            label of the receiver ``:`` label of the sender, of this hop
DATA                the :class:`Signal` (msgpack), or a whole signal to carry
CARRY_TO (0x40F1)   please carry it to this node (key, 32 bytes)
CARRIED_FROM        it was carried, and this node sent it
(0x40F2)
==================  ==========================================================
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Final, get_args

import msgspec
from msgspec import Meta

from warren.errors import MalformedPacket
from warren.model.documents import is_place
from warren.model.tunnel import TransportAddress
from warren.paths.values import CandidateKind, RemoteCandidate
from warren.proto.stun.message import Attribute, Class, Message, Method, encode

CARRY_TO: Final = 0x40F1
CARRIED_FROM: Final = 0x40F2
SIGNAL_BYTES_MAX: Final = 8192
CARRIED_BYTES_MAX: Final = 1100
"""A signal that fits into one datagram on every path, inside the indication of its carrier."""
CANDIDATES_MAX: Final = 16
SIGNALS_PER_S: Final = 2.0
SIGNALS_BURST: Final = 6.0
"""Of one peer: received, or carried for it. A round of checks takes seconds."""
CARRIERS_MAX: Final = 3
"""Mutual members that are asked to carry one signal."""

_KINDS: Final[tuple[CandidateKind, ...]] = get_args(CandidateKind)


class Place(msgspec.Struct, frozen=True, array_like=True):
    """A candidate."""

    kind: Annotated[int, Meta(ge=0, lt=len(_KINDS))]
    ip: Annotated[bytes, Meta(min_length=4, max_length=16)]
    port: Annotated[int, Meta(ge=1, le=65_535)]


class Signal(msgspec.Struct, frozen=True, array_like=True):
    """What one node tells another so that both check at the same time."""

    asks: bool
    """The other is to signal back what it knows of itself."""
    places: Annotated[tuple[Place, ...], Meta(max_length=CANDIDATES_MAX)] = ()
    """Where the sender can be reached now."""
    nat: Annotated[str, Meta(max_length=256)] = ""
    sockets: Annotated[int, Meta(ge=0, le=1024)] = 0
    """A birthday: so many sockets of the sender's are open towards the receiver (paths/hard.py)."""
    record: Annotated[bytes, Meta(max_length=SIGNAL_BYTES_MAX)] = b""
    """The envelope of its NodeRecord, if there is room."""
    epoch: Annotated[int, Meta(ge=0)] = 0
    """The sender's, as in its checks; 0: of a program that does not number its signals."""
    order: Annotated[int, Meta(ge=0, lt=1 << 32)] = 0
    """Its number in that epoch. Who knows neither passes over both."""

    def candidates(self) -> tuple[RemoteCandidate, ...]:
        """As of a NodeRecord: none at which no other host can be."""
        found = ((one, _ip(one.ip)) for one in self.places if len(one.ip) in {4, 16})
        return tuple(
            RemoteCandidate(_KINDS[one.kind], TransportAddress(ip, one.port)) for one, ip in found if is_place(ip)
        )


def places(candidates: tuple[RemoteCandidate, ...]) -> tuple[Place, ...]:
    """The first of them that make sense: what relays and peers say of our addresses may be anything."""
    sound = [one for one in candidates if one.address.port and is_place(one.address.ip)]
    return tuple(
        Place(_KINDS.index(one.kind), one.address.ip.packed, one.address.port) for one in sound[:CANDIDATES_MAX]
    )


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Signal)


def seal_signal(signal: Signal, *, key: bytes, transaction: bytes, receiver: str, sender: str) -> bytes:
    attributes = [
        (int(Attribute.USERNAME), f"{receiver}:{sender}".encode()),
        (int(Attribute.DATA), _encoder.encode(signal)),
    ]
    return encode(Method.CARRY, Class.INDICATION, transaction, attributes, key=key)


def read_signal_untrusted(message: Message) -> Signal:
    """Of an indication that was found authentic. Raises MalformedPacket."""
    try:
        return _decoder.decode(message.get(Attribute.DATA) or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedPacket(f"not a signal: {error}") from None


def seal_carried(
    signal: bytes, node: bytes, *, onward: bool, key: bytes, transaction: bytes, receiver: str, sender: str
) -> bytes:
    """``onward``: a carrier is asked to bring it to ``node``; otherwise it was ``node`` that sent it."""
    attributes = [
        (int(Attribute.USERNAME), f"{receiver}:{sender}".encode()),
        (CARRY_TO if onward else CARRIED_FROM, node),
        (int(Attribute.DATA), signal),
    ]
    return encode(Method.CARRY, Class.INDICATION, transaction, attributes, key=key)


def _ip(packed: bytes) -> IPv4Address | IPv6Address:
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)
