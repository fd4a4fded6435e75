"""Answers to Binding requests: what a STUN server does (RFC 8489 §6.3, RFC 5780 §6).

Nobody proves anything to it, so sources may be forged, and it must be of no use against others: no answer is longer
than its request, none carries more than asked for, and one network gets only so many. Warren's requests are padded
(``binding.pack_binding_request``); bare ones of other programs are only answered where the operator says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from warren.errors import MalformedPacket
from warren.model.tunnel import IPAddress, TransportAddress
from warren.proto.stun.attributes import (
    ChangeRequest,
    pack_address,
    pack_error_code,
    pack_unknown_attributes,
    pack_xor_address,
    unpack_change_request_untrusted,
    unpack_port_untrusted,
)
from warren.proto.stun.message import Attribute, Class, Message, Method, encode, unknown_required
from warren.proto.wireguard.ratelimit import RateLimiter

PREFIX_ANSWERS_PER_S: Final = 100.0
PREFIX_BURST: Final = 500.0
"""Answers to one IPv4 /24 or IPv6 /48: a carrier's NAT with hundreds of members behind it, all starting at once."""
ANSWERS_PER_S: Final = 20_000.0
"""All answers together: what half a core makes."""

BAD_REQUEST: Final = 400
UNKNOWN_ATTRIBUTE: Final = 420

_KNOWN: Final = frozenset({Attribute.USERNAME, Attribute.USERHASH, Attribute.REALM, Attribute.NONCE})
"""Credentials are understood, and not needed (§6.3.1)."""
_KNOWN_WITH_DISCOVERY: Final = _KNOWN | {Attribute.RESPONSE_PORT, Attribute.PADDING}


@dataclass(frozen=True, slots=True)
class Discovery:
    """The addresses and ports, all combinations of them, at which a server listens for RFC 5780.

    With one address it answers to other ports (RESPONSE-PORT), but has no OTHER-ADDRESS and refuses CHANGE-REQUEST.
    """

    addresses: tuple[IPAddress, ...]
    """One or two, of one family."""
    ports: tuple[int, ...]
    """One or two; two with two addresses."""

    def other(self, local: TransportAddress, change: ChangeRequest) -> TransportAddress:
        """From where to answer what came to ``local``."""
        return TransportAddress(
            next(ip for ip in self.addresses if (ip == local.ip) != change.address),
            next(port for port in self.ports if (port == local.port) != change.port),
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """``data`` goes to ``remote`` from ``source``, one of the server's own addresses."""

    data: bytes
    remote: TransportAddress
    source: TransportAddress


class BindingServer:
    """A server at any number of addresses. It keeps nothing of its clients but how much their networks asked."""

    def __init__(self, *, discovery: Iterable[Discovery] = (), any_size: bool = False) -> None:
        """``any_size``: answers may be longer than their requests (up to 5 times), as every other STUN server's."""
        self._discovery = tuple(discovery)
        self._any_size = any_size
        self._prefixes = RateLimiter(PREFIX_ANSWERS_PER_S, PREFIX_BURST)
        self._all = RateLimiter(ANSWERS_PER_S, ANSWERS_PER_S)
        self.counters = {"answered": 0, "refused": 0, "too_small": 0, "too_many": 0}

    def answer(self, message: Message, remote: TransportAddress, local: TransportAddress, now: float) -> Reply | None:
        """What to reply to ``message``, decoded from what ``remote`` sent to our ``local``; None: nothing.

        Only Binding requests are answered, so that two servers never answer each other.
        """
        if message.cls != Class.REQUEST or message.method != Method.BINDING or not remote.port:
            return None
        if not (self._prefixes.allows(_network(remote.ip), now) and self._all.allows(0, now)):
            self.counters["too_many"] += 1
            return None
        try:
            reply = self._reply(message, remote, local)
        except MalformedPacket:
            reply = _refusal(message, remote, local, BAD_REQUEST)
        if len(reply.data) > len(message.raw) and not self._any_size:
            self.counters["too_small"] += 1
            return None
        return reply

    def _reply(self, message: Message, remote: TransportAddress, local: TransportAddress) -> Reply:
        discovery = self._discovery_at(local)
        alternates = discovery is not None and len(discovery.addresses) == len(discovery.ports) == 2
        known = _KNOWN if discovery is None else _KNOWN_WITH_DISCOVERY
        unknown = unknown_required(message, known | {Attribute.CHANGE_REQUEST} if alternates else known)
        if unknown:
            self.counters["refused"] += 1
            listed = (Attribute.UNKNOWN_ATTRIBUTES, pack_unknown_attributes(unknown))
            return _refusal(message, remote, local, UNKNOWN_ATTRIBUTE, listed)
        attributes = [(int(Attribute.XOR_MAPPED_ADDRESS), pack_xor_address(remote, message.transaction))]
        source = local
        padding = port = None
        if discovery is not None:
            padding, port = message.get(Attribute.PADDING), message.get(Attribute.RESPONSE_PORT)
            if padding is not None and port is not None:  # RFC 5780 §6.1
                raise MalformedPacket("an answer to another port is not padded")
            change = message.get(Attribute.CHANGE_REQUEST)
            if change is not None:
                source = discovery.other(local, unpack_change_request_untrusted(change))
            attributes.append((Attribute.RESPONSE_ORIGIN, pack_address(source)))
            if alternates:
                other = discovery.other(local, ChangeRequest(address=True, port=True))
                attributes.append((Attribute.OTHER_ADDRESS, pack_address(other)))
            if self._any_size:  # for clients of RFC 3489; RFC 5780 §6.1 wants it
                attributes.append((Attribute.MAPPED_ADDRESS, pack_address(remote)))
        if padding is not None:
            attributes.append((Attribute.PADDING, bytes(_room(message, attributes, len(padding)))))
        self.counters["answered"] += 1
        to = remote if port is None else TransportAddress(remote.ip, unpack_port_untrusted(port), remote.scope)
        return Reply(_encode(message, Class.SUCCESS, attributes), to, source)

    def _discovery_at(self, local: TransportAddress) -> Discovery | None:
        for discovery in self._discovery:
            if local.ip in discovery.addresses and local.port in discovery.ports:
                return discovery
        return None


def _refusal(
    message: Message,
    remote: TransportAddress,
    local: TransportAddress,
    number: int,
    *attributes: tuple[int, bytes],
) -> Reply:
    return Reply(
        _encode(message, Class.ERROR, [(Attribute.ERROR_CODE, pack_error_code(number)), *attributes]), remote, local
    )


def _encode(message: Message, cls: Class, attributes: list[tuple[int, bytes]]) -> bytes:
    fingerprint = message.get(Attribute.FINGERPRINT) is not None
    return encode(Method.BINDING, cls, message.transaction, attributes, fingerprint=fingerprint)


def _room(message: Message, attributes: list[tuple[int, bytes]], wanted: int) -> int:
    """How much padding makes the answer no longer than the request."""
    bare = len(_encode(message, Class.SUCCESS, attributes))
    return max(0, min(wanted, len(message.raw) - bare - 4) & ~3)


def _network(ip: IPAddress) -> int:
    if ip.version == 4:
        return int(ip) >> 8
    return int(ip) >> 80 | 1 << 128
