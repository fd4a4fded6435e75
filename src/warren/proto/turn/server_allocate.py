"""How an Allocate request becomes relayed ports, or an error number (RFC 8656 §7.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.proto.stun.attributes import (
    UDP,
    AddressErrorCode,
    pack_address_error_code,
    unpack_even_port_untrusted,
    unpack_family_untrusted,
    unpack_requested_transport_untrusted,
    unpack_uint32_untrusted,
)
from warren.proto.stun.message import Attribute, Message
from warren.proto.turn.server_auth import Attributes
from warren.proto.turn.server_values import (
    LIFETIME_MAX_S,
    LIFETIME_S,
    RESERVATION_S,
    Allocation,
    RelayedPort,
    Settings,
    Sockets,
    socket_address,
)

_TRIES: Final = 64  # random ports, before a range counts as full
_TOKEN_BYTES: Final = 8
_RESERVATIONS_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Wish:
    """What a valid Allocate request asks for."""

    families: tuple[int, ...]
    """The first must be had; the second is ADDITIONAL-ADDRESS-FAMILY."""
    even: bool
    reserve_next: bool
    token: bytes
    """RESERVATION-TOKEN; empty: none."""


def wish_of(request: Message) -> Wish | int:
    """What is asked for, or the error number that a request like this gets."""
    try:
        transport = request.get(Attribute.REQUESTED_TRANSPORT)
        if transport is None:
            return 400
        if unpack_requested_transport_untrusted(transport) != UDP:
            return 442
        family, additional = (
            request.get(Attribute.REQUESTED_ADDRESS_FAMILY),
            request.get(Attribute.ADDITIONAL_ADDRESS_FAMILY),
        )
        even, token = request.get(Attribute.EVEN_PORT), request.get(Attribute.RESERVATION_TOKEN)
        reserve_next = even is not None and unpack_even_port_untrusted(even)
        if token is not None and (even, family, additional) != (None, None, None):
            return 400
        if token is not None and len(token) != _TOKEN_BYTES:
            return 400
        if additional is not None and (family is not None or reserve_next or unpack_family_untrusted(additional) != 6):
            return 400
    except MalformedPacket:
        return 400
    try:
        first = 4 if family is None else unpack_family_untrusted(family)
    except MalformedPacket:
        return 440
    families = (first,) if additional is None else (first, 6)
    return Wish(families, even is not None, reserve_next, token or b"")


def lifetime_of_untrusted(request: Message) -> int:
    """Seconds: what is asked for within our bounds; 0 stays 0 (§7.2, §8.2). Raises MalformedPacket."""
    value = request.get(Attribute.LIFETIME)
    asked = LIFETIME_S if value is None else unpack_uint32_untrusted(value)
    return asked and min(max(asked, LIFETIME_S), LIFETIME_MAX_S)


class Ports:
    """The relayed ports of one server. They are random ones (RFC 6056): hard to guess for who would forge a source."""

    def __init__(self, settings: Settings, sockets: Sockets, random: Callable[[int], bytes]) -> None:
        self._settings = settings
        self._sockets = sockets
        self._random = random
        self._reserved: dict[bytes, tuple[int, int, object, float, str]] = {}

    def grant(self, allocation: Allocation, wish: Wish, now: float) -> tuple[list[RelayedPort], Attributes, int]:
        """The ports for what was asked, what the answer says of them besides their addresses, and an error number.

        Of two families one may be missing (ADDRESS-ERROR-CODE then says so); without any port the error counts.
        """
        ports: list[RelayedPort] = []
        extra: Attributes = []
        error = 0
        for family in wish.families:
            if wish.token:
                opened = self.claim(allocation, wish.token, now)
            elif wish.reserve_next:
                opened, token = self.open_pair(allocation, family, now)
                if token:
                    extra.append((Attribute.RESERVATION_TOKEN, token))
            else:
                opened = self.open(allocation, family, even=wish.even)
            if isinstance(opened, RelayedPort):
                ports.append(opened)
                continue
            error = opened
            if len(wish.families) > 1:
                extra.append((Attribute.ADDRESS_ERROR_CODE, pack_address_error_code(AddressErrorCode(family, error))))
        return ports, extra, error

    def open(self, allocation: Allocation, family: int, *, even: bool = False) -> RelayedPort | int:
        """A fresh port, or the error number: 440 without this family, 508 when none is free."""
        if self._settings.address_of(family) is None:
            return 440
        for _ in range(_TRIES):
            port = self._draw()
            if even:
                port &= ~1
            if port not in self._settings.ports:
                continue
            handle = self._sockets.open_relayed(family, port)
            if handle is not None:
                return self._made(allocation, family, port, handle)
        return 508

    def open_pair(self, allocation: Allocation, family: int, now: float) -> tuple[RelayedPort | int, bytes]:
        """An even port, and the token by which the one above it can be had within 30 s."""
        self.expire(now)
        if len(self._reserved) >= _RESERVATIONS_MAX:
            return 508, b""
        for _ in range(_TRIES):
            first = self.open(allocation, family, even=True)
            if isinstance(first, int):
                return first, b""
            second = first.port + 1
            handle = self._sockets.open_relayed(family, second) if second in self._settings.ports else None
            if handle is not None:
                token = self._random(_TOKEN_BYTES)
                self._reserved[token] = (family, second, handle, now + RESERVATION_S, allocation.identity)
                return first, token
            self.close(first)
        return 508, b""

    def claim(self, allocation: Allocation, token: bytes, now: float) -> RelayedPort | int:
        """The port that was reserved for the same user."""
        self.expire(now)
        reserved = self._reserved.get(token)
        if reserved is None or reserved[4] != allocation.identity:
            return 508
        del self._reserved[token]
        family, port, handle, _, _ = reserved
        return self._made(allocation, family, port, handle)

    def close(self, relayed: RelayedPort) -> None:
        self._sockets.close_relayed(relayed.handle)

    def expire(self, now: float) -> None:
        """Give back what was reserved and not claimed."""
        for token in [token for token, one in self._reserved.items() if one[3] <= now]:
            self._sockets.close_relayed(self._reserved.pop(token)[2])

    def next_expiry(self) -> float | None:
        return min((one[3] for one in self._reserved.values()), default=None)

    def _draw(self) -> int:
        ports = self._settings.ports
        return ports[int.from_bytes(self._random(4)) % len(ports)]

    def _made(self, allocation: Allocation, family: int, port: int, handle: object) -> RelayedPort:
        ip = self._settings.address_of(family)
        if ip is None:
            raise ValueError(f"no relayed address of family {family}")
        return RelayedPort(allocation, family, port, socket_address(TransportAddress(ip, port)), handle)
