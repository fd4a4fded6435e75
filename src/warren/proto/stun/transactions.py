"""Requests of ours that wait for an answer, sent again while none comes (RFC 8489 §6.2.1).

======================  =================================================================================
what happens            what follows
======================  =================================================================================
``start``               the request goes out
RTO passes, then 2 RTO  it goes out again, after twice the time each time, Rc times in all
Rm × RTO after the last TimedOut
an answer that counts   Answered; what comes later for the same request is not ours any more
``cancel``              nothing
======================  =================================================================================
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, NamedTuple

from warren.model.tunnel import TransportAddress
from warren.proto.stun.message import Class, Message
from warren.proto.wireguard.timers import Deadline

RTO_S: Final = 0.5
REQUESTS_MAX: Final = 7  # Rc
LAST_WAIT: Final = 16.0  # Rm, in units of the first RTO
TRANSACTIONS_MAX: Final = 1024
"""Requests under way at once: more than all checks of a large network at the pace at which they are sent."""


class Schedule(NamedTuple):
    """How patiently an answer is waited for. The RFC's own takes 39.5 s."""

    rto_s: float = RTO_S
    requests_max: int = REQUESTS_MAX
    last_wait: float = LAST_WAIT


@dataclass(frozen=True, slots=True)
class Request:
    """A request to be sent now, for the first time or again."""

    data: bytes
    remote: TransportAddress
    tag: Hashable


@dataclass(frozen=True, slots=True)
class Answered:
    """``message`` is of class SUCCESS or ERROR. ``rtt_s`` is None if the request had been sent more than once: nobody
    knows which of them was answered.
    """

    tag: Hashable
    message: Message
    remote: TransportAddress
    rtt_s: float | None


@dataclass(frozen=True, slots=True)
class TimedOut:
    tag: Hashable


class _Transaction:
    __slots__ = ("accepts", "at", "data", "interval_s", "remote", "schedule", "sent", "sent_at", "whose")

    def __init__(
        self,
        data: bytes,
        tag: Hashable,
        remote: TransportAddress,
        schedule: Schedule,
        accepts: Callable[[Message, TransportAddress], bool] | None,
    ) -> None:
        self.data = data
        self.whose = tag
        self.remote = remote
        self.schedule = schedule
        self.accepts = accepts
        self.sent = 0
        self.sent_at = 0.0
        self.interval_s = schedule.rto_s
        self.at = 0.0


class Transactions:
    """All requests of one kind of sender. Wrong answers leave a transaction as it was (§9.1.4, §9.2.5)."""

    def __init__(self, schedule: Schedule = Schedule(), ceiling: int = TRANSACTIONS_MAX) -> None:  # noqa: B008
        self._schedule = schedule
        self._ceiling = ceiling
        self._running: dict[bytes, _Transaction] = {}
        self._heap: list[tuple[float, bytes]] = []
        self._transmits: list[Request] = []
        self._events: list[Answered | TimedOut] = []

    def __len__(self) -> int:
        """How many requests wait for their answer."""
        return len(self._running)

    def start(
        self,
        data: bytes,
        tag: Hashable,
        remote: TransportAddress,
        now: float,
        *,
        schedule: Schedule | None = None,
        accepts: Callable[[Message, TransportAddress], bool] | None = None,
    ) -> bool:
        """Send the request ``data`` to ``remote``. False, and nothing happens, if too many are under way.

        An answer counts if its transaction and method are the request's and ``accepts`` it, or, without ``accepts``,
        if it comes from ``remote``. Check its integrity there: an answer that fails must be as if it never came.
        """
        if len(self._running) >= self._ceiling:
            return False
        transaction = _Transaction(data, tag, remote, schedule or self._schedule, accepts)
        self._running[data[8:20]] = transaction
        self._send(transaction, now)
        return True

    def receive(self, message: Message, remote: TransportAddress, now: float) -> bool:
        """Whether ``message`` is an answer to a request of ours; then there is an event."""
        if message.cls < Class.SUCCESS:
            return False
        transaction = self._running.get(message.transaction)
        if transaction is None or not _same_method(transaction.data, message.method):
            return False
        if transaction.accepts is None:
            if remote != transaction.remote:
                return False
        elif not transaction.accepts(message, remote):
            return False
        del self._running[message.transaction]
        rtt_s = now - transaction.sent_at if transaction.sent == 1 else None
        self._events.append(Answered(transaction.whose, message, remote, rtt_s))
        return True

    def cancel(self, whose: Hashable) -> None:
        """Forget the requests that were started with this tag; neither answers nor their absence are told."""
        for number in [number for number, running in self._running.items() if running.whose == whose]:
            del self._running[number]

    def handle_timeout(self, now: float) -> None:
        while self._heap and self._heap[0][0] <= now:
            at, number = heapq.heappop(self._heap)
            transaction = self._running.get(number)
            if transaction is None or transaction.at != at:
                continue
            if transaction.sent < transaction.schedule.requests_max:
                self._send(transaction, now)
            else:
                del self._running[number]
                self._events.append(TimedOut(transaction.whose))

    def next_deadline(self) -> Deadline | None:
        while self._heap:
            at, number = self._heap[0]
            transaction = self._running.get(number)
            if transaction is not None and transaction.at == at:
                return Deadline(at, "a STUN request was not answered")
            heapq.heappop(self._heap)
        return None

    def take_transmits(self) -> list[Request]:
        transmits, self._transmits = self._transmits, []
        return transmits

    def take_events(self) -> list[Answered | TimedOut]:
        events, self._events = self._events, []
        return events

    def _send(self, transaction: _Transaction, now: float) -> None:
        schedule = transaction.schedule
        transaction.sent += 1
        transaction.sent_at = now
        if transaction.sent < schedule.requests_max:
            transaction.at = now + transaction.interval_s
            transaction.interval_s *= 2
        else:
            transaction.at = now + schedule.last_wait * schedule.rto_s
        heapq.heappush(self._heap, (transaction.at, transaction.data[8:20]))
        self._transmits.append(Request(transaction.data, transaction.remote, transaction.whose))


def _same_method(request: bytes, method: int) -> bool:
    kind = int.from_bytes(request[:2])
    return method == (kind & 0xF | kind >> 1 & 0x70 | kind >> 2 & 0xF80)
