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
from warren.proto.stun.attributes import ErrorCode
from warren.proto.stun.message import Message, Method
from warren.proto.turn.client_credentials import Authentication, Login
from warren.proto.turn.client_events import ClientEvent, Failed, Lost, Ready
from warren.proto.turn.client_lifetimes import LIFETIME_S_MIN, NEVER, REFRESH_RETRY_S, Lifetimes, Timer
from warren.proto.turn.client_refusals import no_allocation
from warren.proto.turn.client_requests import NO_ANSWER, TRANSMISSIONS, UNREADABLE, Outcome, Requests
from warren.proto.turn.client_values import (
    FALLBACKS,
    FAMILY_ERRORS,
    GIVE_BACK,
    alternate_in,
    granted_untrusted,
    lifetime_in,
    mapped_in,
    wanted,
)

_LOGIN_ERRORS: Final = frozenset({401, 441})


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
        self._times = Lifetimes()
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
            self._times.succeeded()
            self._allocate_anew(now)

    def check(self, now: float) -> None:
        """Find out at once whether it is still there; what failed is tried again."""
        if self.phase in {Phase.READY, Phase.SILENT}:
            self.requests.cancel(Purpose.REFRESH)
            self._times.refresh_at = now
            self.proceed(now)
        elif self.phase is not Phase.CLOSED:
            self._times.succeeded()
            self._allocate_anew(now)

    def close(self, now: float) -> list[bytes]:
        """Give it back: the messages that do so, to be sent once."""
        held = self.phase in {Phase.READY, Phase.SILENT, Phase.CLEARING}
        self.phase = Phase.CLOSED
        self.requests.clear()
        self.requests.take_transmits()
        if not held:
            return []
        self.request(Method.REFRESH, Purpose.CLEAR, now, GIVE_BACK)
        self.requests.clear()
        return self.requests.take_transmits()

    # Time passes.

    def handle_timeout(self, now: float) -> None:
        if self.phase in {Phase.READY, Phase.SILENT} and now >= self._times.expires_at:
            self._lose(self.why or f"relay {self._name} did not renew the relayed address in time", now)
        if self.phase is Phase.WAITING and now >= self._times.retry_at:
            self._allocate_anew(now)
        self.proceed(now)

    def deadlines(self) -> list[tuple[float, Timer]]:
        deadlines = [(self.requests.next_deadline(), Timer.ANSWER)]
        if self.phase is Phase.WAITING:
            deadlines.append((self._times.retry_at, Timer.RETRY))
        if self.phase in {Phase.READY, Phase.SILENT}:
            deadlines += [(self._times.expires_at, Timer.EXPIRY), (self._times.refresh_at, Timer.REFRESH)]
        if self.phase is Phase.READY:
            deadlines.append((self._times.keepalive_at, Timer.KEEPALIVE))
        return deadlines

    # Requests begin.

    def proceed(self, now: float) -> None:
        """Begin what is due."""
        match self.phase:
            case Phase.ALLOCATING:
                if not len(self.requests):
                    self.request(Method.ALLOCATE, Purpose.ALLOCATE, now, *wanted(self._asked_families))
            case Phase.READY | Phase.SILENT:
                if self.phase is Phase.READY and now >= self._times.keepalive_at:
                    self._keep_alive(now)
                if now >= self._times.refresh_at:
                    self._times.refresh_at = NEVER
                    self.request(Method.REFRESH, Purpose.REFRESH, now, transmissions=4)
            case Phase.CLEARING | Phase.WAITING | Phase.CLOSED:
                pass

    def _keep_alive(self, now: float) -> None:
        self._times.kept_alive(now)
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
        self.refused_families = {}
        try:
            self.relayed, self.mapped, lifetime_s, self.refused_families = granted_untrusted(response)
        except MalformedPacket:
            self._fail(*no_allocation(self._name, UNREADABLE), now)
            return
        if lifetime_s < LIFETIME_S_MIN:
            self._fail(f"relay {self._name} grants relayed addresses for {lifetime_s} s only", False, now)
            return
        self._doubted = None
        self.generation += 1
        self._times.renewed(lifetime_s, now)
        self._become_ready()

    def _become_ready(self) -> None:
        self.phase = Phase.READY
        self._times.succeeded()
        self._cleared = False
        self.why = ""
        self._events.append(Ready(self.relayed, self.mapped))

    def _end_refused_allocation(self, outcome: Outcome, now: float) -> None:
        error = outcome.error or UNREADABLE
        if error.number == 437 and not self._cleared:
            self._cleared = True
            self.phase = Phase.CLEARING
            self.request(Method.REFRESH, Purpose.CLEAR, now, GIVE_BACK)
            return
        if error.number in FAMILY_ERRORS and len(self._families) > 1:
            further = FALLBACKS.get(self._asked_families)
            if further is not None:
                self.refused_families[4 if further == (6,) else 6] = error.number
                self._asked_families = further
                return
        alternate = alternate_in(outcome.response) if error.number == 300 and outcome.authentic else None
        self._fail(*no_allocation(self._name, error), now, alternate)

    def _end_refresh(self, outcome: Outcome, now: float) -> None:
        error = outcome.error
        if error is None and outcome.response is not None:
            lifetime_s = lifetime_in(outcome.response)
            if lifetime_s < LIFETIME_S_MIN:  # 0: it has deleted it (§8.2), which nobody asked for
                self._lose(f"relay {self._name} does not keep relayed addresses", now, at_once=False)
            else:
                self._login = outcome.authentication.login if outcome.authentication else self._login
                self._times.renewed(lifetime_s, now)
                if self.phase is Phase.SILENT:
                    self._become_ready()
            return
        if error is not None and error.number == NO_ANSWER:
            if self.phase is Phase.READY:
                self.phase = Phase.SILENT
                self.why = no_allocation(self._name, error)[0]
                self._events.append(Lost(self.why))
            self._times.refresh_at = now + self._times.pause()
            return
        # The name may have run out (401), or belong to another run (441). With a newer one the server may agree.
        if self._newest_login != self._login:
            self._login, self._newest_login = self._newest_login, self._login
        self._times.refresh_at = now + REFRESH_RETRY_S

    def _end_keepalive(self, outcome: Outcome, now: float) -> None:
        if outcome.error is not None and outcome.error.number == NO_ANSWER:
            # Servers may be told to answer no STUN; whether this one is alive, a refresh tells.
            self._binding_answered = False
            self._check_soon(now)
            return
        seen = mapped_in(outcome.response)
        if seen is not None and self.mapped is not None and seen not in {self.mapped, self._doubted}:
            # A NAT that forgot us gave us a new mapping, which the server does not know; or somebody says so.
            self._doubted = seen
            self._check_soon(now)

    def _check_soon(self, now: float) -> None:
        if self.phase is Phase.READY:
            self._times.refresh_soon(now)

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
        self._times.lost()
        self._asked_families = self._families
        if at_once:
            self._allocate_anew(now)
        else:
            self.requests.clear()
            self.phase = Phase.WAITING
            self._times.retry_later(now)

    def _fail(self, why: str, final: bool, now: float, alternate: TransportAddress | None = None) -> None:
        if why != self.why:
            self._events.append(Failed(why, final, alternate))
        self.why = why
        self.phase = Phase.WAITING
        self._cleared = False
        self._authentication = None
        self._asked_families = self._families
        self.requests.clear()
        self._times.retry_later(now, final=final)
