"""The life of an allocation at a TURN server (RFC 8656 §6–8): made, kept, doubted, made again.

Phases, and what leads from one to the next::

    ALLOCATING ──granted──▶ READY ◀──answers again── SILENT
      ▲  │  ▲                 │ └────no answer─────────▲
      │  │  └────gone─────────┴──gone, or run out──────┘
      │  ├──437──▶ CLEARING ──deleted──▶ ALLOCATING
      │  └──refused──▶ WAITING
      └───after a pause──┘

Nothing that anybody on the way can forge ends an allocation: only answers with integrity count (client_requests). What
cannot be proved, as silence or a changed mapping, makes us ask the server, authenticated.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import Final

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.proto.stun.attributes import (
    ErrorCode,
    pack_family,
    pack_requested_transport,
    pack_uint32,
    unpack_address_error_code_untrusted,
    unpack_address_untrusted,
    unpack_uint32_untrusted,
    unpack_xor_address_untrusted,
)
from warren.proto.stun.message import Attribute, Message, Method
from warren.proto.turn.client_credentials import Authentication, Login
from warren.proto.turn.client_events import ClientEvent, Failed, Lost, Ready
from warren.proto.turn.client_refusals import no_allocation
from warren.proto.turn.client_requests import NO_ANSWER, TRANSMISSIONS, UNREADABLE, Outcome, Requests

LIFETIME_S: Final = 600  # RFC 8656 §3.2: what a server grants unless asked for something else
LIFETIME_S_MIN: Final = 30
"""RFC 8656 §7.2 has servers grant 600 s at the least; with less than this nobody would keep up."""
LIFETIME_S_MAX: Final = 3600
"""The most that servers should grant (§7.2). Whoever says more is asked again as if he had said this."""
REFRESH_BEFORE_S: Final = 60.0  # RFC 8656 §3.2
REFRESH_RETRY_S: Final = 5.0
KEEPALIVE_S: Final = 20.0  # below the 30 s after which some NATs forget a UDP mapping (RFC 4787 §4.3)
RETRY_S: Final = 1.0  # the first pause after a failure; each further one is twice as long
RETRY_S_MAX: Final = 30.0
RETRY_FINAL_S: Final = 300.0

_LOGIN_ERRORS: Final = frozenset({401, 441})
_FAMILY_ERRORS: Final = frozenset({400, 420, 440})
_FALLBACKS: Final = {(4, 6): (6,), (6,): (4,)}  # when a server has no IPv4, or knows nothing of RFC 6156

# The numbers of drafts, which coturn before 4.8 has instead.
_ADDITIONAL_ADDRESS_FAMILY_OLD: Final = 0x8032
_ADDRESS_ERROR_CODE_OLD: Final = 0x8033

NEVER: Final = float("inf")


class Phase(enum.Enum):
    ALLOCATING = enum.auto()
    CLEARING = enum.auto()
    """The server keeps an allocation of an earlier run: it is being deleted."""
    READY = enum.auto()
    SILENT = enum.auto()
    """There is an allocation, but the server does not answer."""
    WAITING = enum.auto()
    """Before the next attempt to allocate."""
    CLOSED = enum.auto()


class Purpose(enum.Enum):
    """What a request is for."""

    ALLOCATE = enum.auto()
    CLEAR = enum.auto()
    REFRESH = enum.auto()
    KEEPALIVE = enum.auto()


class Timer(enum.Enum):
    """Why an allocation wants to wake. The value is the sentence that a Deadline shows."""

    ANSWER = "a request to the relay was not answered"
    REFRESH = "the allocation is to be refreshed"
    EXPIRY = "the allocation has not been refreshed for too long"
    KEEPALIVE = "the NAT on the way to the relay shall not forget us"
    RETRY = "the relay is asked again for an allocation"


class Allocation:
    """``relayed`` counts in phase READY only; ``generation`` grows with each new allocation."""

    def __init__(
        self,
        login: Login,
        families: tuple[int, ...],
        name: str,
        random: Callable[[int], bytes],
        *,
        reliable: bool,
        events: deque[ClientEvent],
        now: float,
    ) -> None:
        """What happens is appended to ``events``."""
        self.phase = Phase.ALLOCATING
        self.why = ""
        self.generation = 0
        self.relayed: tuple[TransportAddress, ...] = ()
        self.mapped: TransportAddress | None = None
        self.refused_families: dict[int, int] = {}
        self.requests = Requests(random, reliable=reliable)
        self._name = name
        self._families = self._asked_families = families
        self._login = self._newest_login = login
        self._authentication: Authentication | None = None
        self._failures = 0
        self._expires_at = self._refresh_at = self._keepalive_at = self._retry_at = NEVER
        self._binding_answered = True
        self._doubted: TransportAddress | None = None
        self._cleared = False
        self._events = events
        self.proceed(now)

    # What is wanted.

    def log_in_as(self, login: Login, now: float) -> None:
        """A living allocation stays with the login it was made with (RFC 8656 §5), as long as the server takes it."""
        if login == self._newest_login:
            return
        self._newest_login = login
        if self.phase in {Phase.ALLOCATING, Phase.CLEARING, Phase.WAITING}:
            self._failures = 0
            self._allocate_anew(now)

    def check(self, now: float) -> None:
        """Find out at once whether it is still there; what failed is tried again."""
        if self.phase in {Phase.READY, Phase.SILENT}:
            self.requests.cancel(Purpose.REFRESH)
            self._refresh_at = now
            self.proceed(now)
        elif self.phase is not Phase.CLOSED:
            self._failures = 0
            self._allocate_anew(now)

    def close(self, now: float) -> list[bytes]:
        """Give it back: the messages that do so, to be sent once."""
        held = self.phase in {Phase.READY, Phase.SILENT, Phase.CLEARING}
        self.phase = Phase.CLOSED
        self.requests.clear()
        self.requests.take_transmits()
        if not held:
            return []
        self.request(Method.REFRESH, Purpose.CLEAR, now, (int(Attribute.LIFETIME), pack_uint32(0)))
        self.requests.clear()
        return self.requests.take_transmits()

    # Time passes.

    def handle_timeout(self, now: float) -> None:
        if self.phase in {Phase.READY, Phase.SILENT} and now >= self._expires_at:
            self._lose(self.why or f"relay {self._name} did not renew the relayed address in time", now)
        if self.phase is Phase.WAITING and now >= self._retry_at:
            self._allocate_anew(now)
        self.proceed(now)

    def deadlines(self) -> list[tuple[float, Timer]]:
        deadlines = [(self.requests.next_deadline(), Timer.ANSWER)]
        if self.phase is Phase.WAITING:
            deadlines.append((self._retry_at, Timer.RETRY))
        if self.phase in {Phase.READY, Phase.SILENT}:
            deadlines += [(self._expires_at, Timer.EXPIRY), (self._refresh_at, Timer.REFRESH)]
        if self.phase is Phase.READY:
            deadlines.append((self._keepalive_at, Timer.KEEPALIVE))
        return deadlines

    # Requests begin.

    def proceed(self, now: float) -> None:
        """Begin what is due."""
        match self.phase:
            case Phase.ALLOCATING:
                if not len(self.requests):
                    self.request(Method.ALLOCATE, Purpose.ALLOCATE, now, *self._wanted())
            case Phase.READY | Phase.SILENT:
                if self.phase is Phase.READY and now >= self._keepalive_at:
                    self._keep_alive(now)
                if now >= self._refresh_at:
                    self._refresh_at = NEVER
                    self.request(Method.REFRESH, Purpose.REFRESH, now, transmissions=4)
            case Phase.CLEARING | Phase.WAITING | Phase.CLOSED:
                pass

    def _keep_alive(self, now: float) -> None:
        self._keepalive_at = now + KEEPALIVE_S
        if self._binding_answered:
            self.requests.start(
                Method.BINDING, (), Purpose.KEEPALIVE, now, login=None, authentication=None, transmissions=3
            )
        else:
            self._check_soon(now)

    def request(
        self,
        method: Method,
        purpose: object,
        now: float,
        *attributes: tuple[int, bytes],
        peers: tuple[TransportAddress, ...] = (),
        transmissions: int = TRANSMISSIONS,
    ) -> None:
        authentication = self._authentication
        if authentication is not None and authentication.login != self._login:
            authentication = self._login.answer(authentication.challenge)
        self.requests.start(
            method,
            attributes,
            purpose,
            now,
            login=self._login,
            authentication=authentication,
            peers=peers,
            transmissions=transmissions,
        )

    def _wanted(self) -> list[tuple[int, bytes]]:
        attributes = [(int(Attribute.REQUESTED_TRANSPORT), pack_requested_transport())]
        if self._asked_families == (6,):
            attributes.append((int(Attribute.REQUESTED_ADDRESS_FAMILY), pack_family(6)))
        elif self._asked_families == (4, 6):
            attributes += [
                (int(Attribute.ADDITIONAL_ADDRESS_FAMILY), pack_family(6)),
                (_ADDITIONAL_ADDRESS_FAMILY_OLD, pack_family(6)),
            ]
        return attributes

    # Requests end.

    def end(self, outcome: Outcome, now: float) -> bool:
        """A request was answered, or not; returns whether the outcome was only the allocation's business."""
        if outcome.authentic:
            self._authentication = outcome.authentication
        error = outcome.error
        match outcome.purpose:
            case Purpose.ALLOCATE:
                if error is None and outcome.response is not None:
                    self._end_allocation(outcome.response, now)
                else:
                    self._end_refused_allocation(outcome, now)
            case Purpose.CLEAR:
                if error is None or error.number == 437:
                    self._allocate_anew(now)
                else:
                    self._fail(*no_allocation(self._name, ErrorCode(437, "")), now)
            case Purpose.KEEPALIVE:
                self._end_keepalive(outcome, now)
            case _ if error is not None and error.number == 437 and outcome.authentic:
                self._lose(f"relay {self._name} has forgotten us, after a restart of it or of a NAT on the way", now)
            case Purpose.REFRESH:
                self._end_refresh(outcome, now)
            case _:
                if error is not None and error.number in _LOGIN_ERRORS and self._newest_login != self._login:
                    self._check_soon(now)
                return False
        return True

    def _end_allocation(self, response: Message, now: float) -> None:
        try:
            relayed, mapped, lifetime_s = self._read_allocation_untrusted(response)
        except MalformedPacket:
            self._fail(*no_allocation(self._name, UNREADABLE), now)
            return
        self.relayed, self.mapped = relayed, mapped
        if lifetime_s < LIFETIME_S_MIN:
            self._fail(f"relay {self._name} grants relayed addresses for {lifetime_s} s only", False, now)
            return
        self._doubted = None
        self.generation += 1
        self._renewed(lifetime_s, now)
        self._keepalive_at = now + KEEPALIVE_S
        self._become_ready()

    def _read_allocation_untrusted(
        self, response: Message
    ) -> tuple[tuple[TransportAddress, ...], TransportAddress | None, int]:
        relayed: list[TransportAddress] = []
        mapped = None
        lifetime_s = LIFETIME_S
        self.refused_families = {}
        for kind, value in response.attributes:
            if kind == Attribute.XOR_RELAYED_ADDRESS:
                address = unpack_xor_address_untrusted(value, response.transaction)
                if address.port and not address.ip.is_unspecified:
                    relayed.append(address)
            elif kind == Attribute.XOR_MAPPED_ADDRESS:
                mapped = unpack_xor_address_untrusted(value, response.transaction)
            elif kind == Attribute.LIFETIME:
                lifetime_s = unpack_uint32_untrusted(value)
            elif kind in {Attribute.ADDRESS_ERROR_CODE, _ADDRESS_ERROR_CODE_OLD}:
                refused = unpack_address_error_code_untrusted(value)
                self.refused_families[refused.family] = refused.number
        if not 1 <= len(relayed) <= 2:
            raise MalformedPacket("an allocation without an address")
        return tuple(sorted(relayed, key=lambda address: address.ip.version)), mapped, lifetime_s

    def _become_ready(self) -> None:
        self.phase = Phase.READY
        self._failures = 0
        self._cleared = False
        self.why = ""
        self._events.append(Ready(self.relayed, self.mapped))

    def _renewed(self, lifetime_s: int, now: float) -> None:
        lifetime_s = min(lifetime_s, LIFETIME_S_MAX)
        self._expires_at = now + lifetime_s
        self._refresh_at = now + max(lifetime_s - REFRESH_BEFORE_S, lifetime_s / 2)

    def _end_refused_allocation(self, outcome: Outcome, now: float) -> None:
        error = outcome.error or UNREADABLE
        if error.number == 437 and not self._cleared:
            self._cleared = True
            self.phase = Phase.CLEARING
            self.request(Method.REFRESH, Purpose.CLEAR, now, (int(Attribute.LIFETIME), pack_uint32(0)))
            return
        if error.number in _FAMILY_ERRORS and len(self._families) > 1:
            further = _FALLBACKS.get(self._asked_families)
            if further is not None:
                self.refused_families[4 if further == (6,) else 6] = error.number
                self._asked_families = further
                return
        alternate = None
        value = outcome.response.get(Attribute.ALTERNATE_SERVER) if outcome.response is not None else None
        if error.number == 300 and outcome.authentic and value is not None:
            try:
                alternate = unpack_address_untrusted(value)
            except MalformedPacket:
                alternate = None
        self._fail(*no_allocation(self._name, error), now, alternate)

    def _end_refresh(self, outcome: Outcome, now: float) -> None:
        error = outcome.error
        if error is None and outcome.response is not None:
            value = outcome.response.get(Attribute.LIFETIME)
            try:
                lifetime_s = LIFETIME_S if value is None else unpack_uint32_untrusted(value)
            except MalformedPacket:
                lifetime_s = LIFETIME_S  # it did agree
            if lifetime_s < LIFETIME_S_MIN:  # 0: it has deleted it (§8.2), which nobody asked for
                self._lose(f"relay {self._name} does not keep relayed addresses", now, at_once=False)
            else:
                self._login = outcome.authentication.login if outcome.authentication else self._login
                self._renewed(lifetime_s, now)
                self._keepalive_at = now + KEEPALIVE_S
                if self.phase is Phase.SILENT:
                    self._become_ready()
            return
        if error is not None and error.number == NO_ANSWER:
            if self.phase is Phase.READY:
                self.phase = Phase.SILENT
                self.why = no_allocation(self._name, error)[0]
                self._events.append(Lost(self.why))
            self._refresh_at = now + self._pause()
            return
        # The name may have run out (401), or belong to another run (441). With a newer one the server may agree.
        if self._newest_login != self._login:
            self._login, self._newest_login = self._newest_login, self._login
        self._refresh_at = now + REFRESH_RETRY_S

    def _end_keepalive(self, outcome: Outcome, now: float) -> None:
        if outcome.error is not None and outcome.error.number == NO_ANSWER:
            # Servers may be told to answer no STUN; whether this one is alive, a refresh tells.
            self._binding_answered = False
            self._check_soon(now)
            return
        value = outcome.response.get(Attribute.XOR_MAPPED_ADDRESS) if outcome.response is not None else None
        try:
            seen = (
                unpack_xor_address_untrusted(value, outcome.response.transaction)
                if value and outcome.response
                else None
            )
        except MalformedPacket:
            return
        if seen is not None and self.mapped is not None and seen not in {self.mapped, self._doubted}:
            # A NAT that forgot us gave us a new mapping, which the server does not know; or somebody says so.
            self._doubted = seen
            self._check_soon(now)

    def _check_soon(self, now: float) -> None:
        if self.phase is Phase.READY and self._refresh_at != NEVER:
            self._refresh_at = now

    # From one phase to another.

    def _allocate_anew(self, now: float) -> None:
        self.requests.clear()
        self.phase = Phase.ALLOCATING
        if self._login != self._newest_login:
            self._login = self._newest_login
            self._authentication = None
        self.proceed(now)

    def _lose(self, why: str, now: float, *, at_once: bool = True) -> None:
        """It is made again ``at_once``, or after a pause."""
        told = self.phase is Phase.SILENT
        self.why = why
        if not told:
            self._events.append(Lost(why))
        self._expires_at = self._refresh_at = self._keepalive_at = NEVER
        self._asked_families = self._families
        if at_once:
            self._allocate_anew(now)
        else:
            self.requests.clear()
            self.phase, self._retry_at = Phase.WAITING, now + self._pause()

    def _fail(self, why: str, final: bool, now: float, alternate: TransportAddress | None = None) -> None:
        if why != self.why:
            self._events.append(Failed(why, final, alternate))
        self.why = why
        self.phase = Phase.WAITING
        self._cleared = False
        self._authentication = None
        self._asked_families = self._families
        self.requests.clear()
        self._retry_at = now + (RETRY_FINAL_S if final else self._pause())

    def _pause(self) -> float:
        self._failures += 1
        return float(min(RETRY_S * 2 ** min(self._failures - 1, 16), RETRY_S_MAX))
