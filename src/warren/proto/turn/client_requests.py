"""Requests of a TURN client: retransmitted, authenticated, and decided only by whom they were meant for.

A request ends by an answer whose integrity holds, or by silence. Answers 401 and 438 carry no integrity (RFC 8489
§9.2.4), so anybody who sees a request can forge them. They therefore end nothing: they add an *attempt* with the nonce
they bring, beside those before, and any attempt may still be answered properly. Other errors without integrity are
kept as a hint: it counts only when nothing better has come a moment later, and the outcome says that nobody vouches
for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.proto.stun.attributes import ErrorCode, pack_xor_address, unpack_error_code_untrusted
from warren.proto.stun.message import TRANSACTION_BYTES, Attribute, Class, Message, Method, encode
from warren.proto.turn.client_credentials import Authentication, Challenge, Login

RTO_S: Final = 0.5  # RFC 8489 §6.2.1
TRANSMISSIONS: Final = 5  # Rc is 7 there: half a minute more, in which nobody learns that the relay is dead
BACKOFF_MAX: Final = 8  # Rm is 16: so many RTO pass after a transmission at most
RELIABLE_S: Final = 15.0  # Ti is 39.5 s, for lines slower than any that carries a tunnel
ATTEMPTS_MAX: Final = 4  # the first without credentials, one with them, one for a stale nonce, one to spare
HINT_COUNTS_AFTER_S: Final = 1.0  # in which a proper answer overtakes a forged one; at least two round trips
_FILLER: Final = b"warren".ljust(76)  # a server that amplifies nothing answers only requests as long as a challenge
_TRANSMITS_MAX: Final = 256  # nobody sends them, it seems: the eldest are of no use any more

_CHALLENGES: Final = frozenset({401, 438})
UNREADABLE: Final = ErrorCode(500, "an answer that cannot be read")
NO_ANSWER: Final = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended. ``error`` is None after success; its number is NO_ANSWER when nobody answered."""

    purpose: object
    response: Message | None
    error: ErrorCode | None
    authentic: bool
    """The server has proved that it knows the password."""
    authentication: Authentication | None
    """What the answered attempt was sent with; its nonce is good for what comes next."""
    rtt_s: float | None = None
    """Of an answer to a request that was sent once."""


class _Attempt:
    __slots__ = ("authentication", "data", "first_at", "next_at", "transaction", "transmissions")

    def __init__(self, transaction: bytes, data: bytes, authentication: Authentication | None, now: float) -> None:
        self.transaction = transaction
        self.data = data
        self.authentication = authentication
        self.first_at = self.next_at = now
        self.transmissions = 0


class _Request:
    __slots__ = ("attempts", "attributes", "hint", "hint_at", "login", "method", "peers", "purpose", "transmissions")

    def __init__(
        self,
        method: Method,
        attributes: tuple[tuple[int, bytes], ...],
        peers: tuple[TransportAddress, ...],
        purpose: object,
        login: Login | None,
        transmissions: int,
    ) -> None:
        self.method = method
        self.attributes = attributes
        self.peers = peers
        self.purpose = purpose
        self.login = login
        self.transmissions = transmissions
        self.attempts: list[_Attempt] = []
        self.hint: Outcome | None = None
        self.hint_at = 0.0


class Requests:
    """All requests under way to one server. The owner limits how many there are."""

    def __init__(self, random: Callable[[int], bytes], *, reliable: bool) -> None:
        """``reliable``: the way to the server loses nothing (TCP), so nothing is sent twice (RFC 8489 §6.2.2)."""
        self._random = random
        self._reliable = reliable
        self._requests: list[_Request] = []
        self._by_transaction: dict[bytes, tuple[_Request, _Attempt]] = {}
        self._transmits: deque[bytes] = deque(maxlen=_TRANSMITS_MAX)
        self.rtt_s: float | None = None
        """Smoothed; None until known."""

    def __len__(self) -> int:
        return len(self._requests)

    def start(
        self,
        method: Method,
        attributes: tuple[tuple[int, bytes], ...],
        purpose: object,
        now: float,
        *,
        login: Login | None,
        authentication: Authentication | None,
        peers: tuple[TransportAddress, ...] = (),
        transmissions: int = TRANSMISSIONS,
    ) -> None:
        """Send a request, with an XOR-PEER-ADDRESS for each of ``peers``. ``login`` answers challenges; None: the
        method needs no credentials.

        ``purpose`` comes back in the outcome and can be given to :meth:`cancel`. Silence counts ``transmissions``
        later: after 3.5 s with three of them, 7.5 s with four, 11.5 s with five.
        """
        request = _Request(method, attributes, peers, purpose, login, transmissions)
        self._requests.append(request)
        self._attempt(request, authentication, now)

    def cancel(self, purpose: object) -> None:
        """Forget the requests of this purpose: no outcome comes."""
        for request in [one for one in self._requests if one.purpose == purpose]:
            self._end(request)

    def clear(self) -> None:
        self._requests.clear()
        self._by_transaction.clear()

    def knows(self, transaction: bytes) -> bool:
        return transaction in self._by_transaction

    def receive(self, message: Message, now: float) -> Outcome | None:
        """An answer from the server; None: nothing is decided by it."""
        known = self._by_transaction.get(message.transaction)
        if known is None or message.cls not in (Class.SUCCESS, Class.ERROR):
            return None
        request, attempt = known
        if message.method != request.method:
            return None
        authentication = attempt.authentication
        authentic = authentication is not None and authentication.vouches_for(message)
        if message.cls is Class.SUCCESS:
            # §9.2.5: without integrity it was never received.
            if request.login is not None and not authentic:
                return None
            return self._decide(request, attempt, message, None, authentic, now)
        try:
            error = unpack_error_code_untrusted(message.get(Attribute.ERROR_CODE) or b"")
        except MalformedPacket:
            error = UNREADABLE
        if authentic or request.login is None:
            return self._decide(request, attempt, message, error, authentic, now)
        if error.number in _CHALLENGES and self._rise_to(request, attempt, message, error.number, now):
            return None
        if request.hint is None:
            request.hint_at = now + max(HINT_COUNTS_AFTER_S, 2 * (self.rtt_s or 0.0))
        request.hint = Outcome(request.purpose, message, error, False, authentication)
        return None

    def _rise_to(self, request: _Request, attempt: _Attempt, message: Message, number: int, now: float) -> bool:
        """Answer a challenge with a further attempt; False when there is no use in that.

        A copy of a challenge that was answered before is of no interest, and not a hint either: True.
        """
        answered = attempt.authentication
        try:
            challenge = Challenge.from_untrusted(message, answered.challenge.realm if answered else None)
        except MalformedPacket:
            return False
        if request.login is None:
            return False
        used = [one.authentication for one in request.attempts]
        if any(one is not None and one is not answered and one.challenge == challenge for one in used):
            return True
        if answered is not None and number == 401:
            # §9.2.5: with the same name and realm the same comes out again. Only the first attempt may have used a
            # nonce from before the server forgot us.
            first = attempt is request.attempts[0] and answered.challenge != challenge
            if not first and answered.challenge.realm == challenge.realm:
                return False
        if len(request.attempts) >= ATTEMPTS_MAX:
            return False
        self._attempt(request, request.login.answer(challenge), now)
        return True

    def _attempt(self, request: _Request, authentication: Authentication | None, now: float) -> None:
        transaction = self._random(TRANSACTION_BYTES)
        peers = [(int(Attribute.XOR_PEER_ADDRESS), pack_xor_address(peer, transaction)) for peer in request.peers]
        attributes = [*request.attributes, *peers]
        if authentication is None:
            if request.login is not None:
                attributes.append((int(Attribute.SOFTWARE), _FILLER))
            data = encode(request.method, Class.REQUEST, transaction, attributes)
        else:
            strong = authentication.strong
            attributes += authentication.attributes
            data = encode(
                request.method,
                Class.REQUEST,
                transaction,
                attributes,
                key=authentication.key,
                sha256=strong,
                sha1=not strong,
            )
        attempt = _Attempt(transaction, data, authentication, now)
        request.attempts.append(attempt)
        self._by_transaction[transaction] = request, attempt
        self._transmit(attempt, now)

    def _transmit(self, attempt: _Attempt, now: float) -> None:
        self._transmits.append(attempt.data)
        attempt.transmissions += 1
        if self._reliable:
            attempt.next_at = now + RELIABLE_S
        else:
            attempt.next_at = now + RTO_S * min(2 ** (attempt.transmissions - 1), BACKOFF_MAX)

    def _decide(
        self,
        request: _Request,
        attempt: _Attempt,
        message: Message,
        error: ErrorCode | None,
        authentic: bool,
        now: float,
    ) -> Outcome:
        rtt_s = None
        if attempt.transmissions == 1:  # else nobody knows which one was answered (Karn's algorithm)
            rtt_s = max(now - attempt.first_at, 0.0)
            self.rtt_s = rtt_s if self.rtt_s is None else 0.75 * self.rtt_s + 0.25 * rtt_s
        self._end(request)
        return Outcome(request.purpose, message, error, authentic, attempt.authentication, rtt_s)

    def _end(self, request: _Request) -> None:
        self._requests.remove(request)
        for attempt in request.attempts:
            del self._by_transaction[attempt.transaction]

    def handle_timeout(self, now: float) -> list[Outcome]:
        """Send again what is due; what nobody answered, or only with a hint, has its outcome."""
        ended = []
        for request in list(self._requests):
            attempt = request.attempts[-1]
            if now < _due(request):
                continue
            if request.hint is not None:
                self._end(request)
                ended.append(request.hint)
                continue
            if not self._reliable and attempt.transmissions < request.transmissions:
                self._transmit(attempt, now)
                continue
            self._end(request)
            ended.append(Outcome(request.purpose, None, ErrorCode(NO_ANSWER, ""), False, attempt.authentication))
        return ended

    def next_deadline(self) -> float:
        """When ``handle_timeout`` is due at the latest; infinity: never."""
        return min((_due(request) for request in self._requests), default=float("inf"))

    def take_transmits(self) -> list[bytes]:
        taken = list(self._transmits)
        self._transmits.clear()
        return taken


def _due(request: _Request) -> float:
    return request.attempts[-1].next_at if request.hint is None else request.hint_at
