"""The timers of a peer (WireGuard §6) and the queue that finds the next one due.

The data path sets timers for every train of packets, so setting one only stores a number. The queue holds one entry
per peer, at or before its earliest timer: a timer that moved later leaves the entry alone, and the entry is corrected
when it comes up. A peer without timers is not in the queue at all.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from warren.proto.wireguard.constants import (
    KEEPALIVE_TIMEOUT_S,
    REKEY_TIMEOUT_S,
    SILENCE_S,
    ZERO_KEYS_AFTER_S,
)

Owner = TypeVar("Owner")
NEVER = float("inf")
_CEILING_MIN = 256  # entries kept before overtaken ones are cleared out; twice the number of peers if that is more


class Timer(enum.Enum):
    """Why a peer wakes. The value is the sentence that :class:`Deadline` shows."""

    RETRANSMIT_HANDSHAKE = "our handshake initiation was not answered"  # §6.4
    SEND_KEEPALIVE = "data came in and nothing went out since"  # §6.5
    NEW_HANDSHAKE = "data went out and nothing came in since"  # §6.5
    ZERO_KEYS = "no new session was made for a long time"  # §6.3
    PERSISTENT_KEEPALIVE = "the persistent keepalive is due"  # wg(8)


class Deadline(NamedTuple):
    """When to call ``handle_timeout`` at the latest, and why. May be earlier than needed, never later."""

    at: float
    why: str


class PeerTimers(Generic[Owner]):
    """The five timers of one peer: each attribute ``…_at`` is when it fires, NEVER while it does not run.

    ``attempts`` counts retransmissions of the present handshake; ``persistent_keepalive_s`` is 0 when switched off;
    ``queued_at`` belongs to the queue.
    """

    __slots__ = (
        "_draw_jitter",
        "_jitter_s",
        "_more_data_came",
        "_queue",
        "attempts",
        "new_handshake_at",
        "owner",
        "persistent_keepalive_at",
        "persistent_keepalive_s",
        "queued_at",
        "retransmit_handshake_at",
        "send_keepalive_at",
        "zero_keys_at",
    )

    def __init__(self, owner: Owner, queue: TimerQueue[Owner], draw_jitter: Callable[[], float]) -> None:
        """``draw_jitter`` returns a fresh random number of seconds, up to a third of a second (§6.1)."""
        self.owner = owner
        self._queue = queue
        self._draw_jitter = draw_jitter
        self._jitter_s = draw_jitter()
        self.persistent_keepalive_s = 0
        self.queued_at = NEVER
        self.stop()

    def stop(self) -> None:
        """Stop all timers."""
        self.attempts = 0
        self._more_data_came = False
        self.retransmit_handshake_at = self.send_keepalive_at = self.new_handshake_at = NEVER
        self.zero_keys_at = self.persistent_keepalive_at = NEVER

    # What happens to a peer, and what it starts and stops. "Message" is an authenticated one: handshake, data or
    # keepalive.

    def sent(self, now: float, data: bool) -> None:
        """A message is being sent; ``data``: it carries a packet."""
        self.send_keepalive_at = NEVER
        if self.persistent_keepalive_s:
            self.persistent_keepalive_at = at = now + self.persistent_keepalive_s
            if at < self.queued_at:
                self._queue.push(self, at)
        if data and self.new_handshake_at == NEVER:
            self.new_handshake_at = at = now + SILENCE_S + self._jitter_s
            if at < self.queued_at:
                self._queue.push(self, at)

    def received(self, now: float, data: bool) -> None:
        """A message was received; ``data``: it carries a packet."""
        self.new_handshake_at = NEVER
        if self.persistent_keepalive_s:
            self.persistent_keepalive_at = at = now + self.persistent_keepalive_s
            if at < self.queued_at:
                self._queue.push(self, at)
        if not data:
            return
        if self.send_keepalive_at == NEVER:
            self.send_keepalive_at = at = now + KEEPALIVE_TIMEOUT_S
            if at < self.queued_at:
                self._queue.push(self, at)
        else:
            self._more_data_came = True

    def handshake_begins(self) -> None:
        """A handshake is wanted for a new reason: the 90 seconds start anew."""
        self.attempts = 0

    def initiation_sent(self, now: float) -> None:
        self._jitter_s = self._draw_jitter()
        self.retransmit_handshake_at = now + REKEY_TIMEOUT_S + self._jitter_s
        self._wake(self.retransmit_handshake_at)

    def handshake_void(self, now: float) -> None:
        """What was said in a handshake under way counts no more: let RETRANSMIT_HANDSHAKE fire at once, if it runs."""
        if self.retransmit_handshake_at != NEVER:
            self.attempts = 0
            self.retransmit_handshake_at = now
            self._wake(now)

    def handshake_completed(self) -> None:
        """A response was accepted, or the first data message confirmed our response."""
        self.retransmit_handshake_at = NEVER
        self.attempts = 0

    def session_derived(self, now: float) -> None:
        """New keys exist, confirmed or not."""
        self.zero_keys_at = now + ZERO_KEYS_AFTER_S
        self._wake(self.zero_keys_at)

    def gave_up(self, now: float) -> None:
        """The handshake was abandoned: what is left of it goes in nine minutes, unless that was due earlier."""
        self.send_keepalive_at = NEVER
        if self.zero_keys_at == NEVER:
            self.session_derived(now)

    def passive_keepalive_sent(self, now: float) -> None:
        """SEND_KEEPALIVE fired and was obeyed: again in ten seconds if more than one train of data had come."""
        if self._more_data_came:
            self._more_data_came = False
            self.send_keepalive_at = now + KEEPALIVE_TIMEOUT_S
            self._wake(self.send_keepalive_at)

    def keepalive_wanted(self, now: float) -> None:
        """Let PERSISTENT_KEEPALIVE fire at once."""
        self.persistent_keepalive_at = now
        self._wake(now)

    def _wake(self, at: float) -> None:
        if at < self.queued_at:
            self._queue.push(self, at)

    def earliest(self) -> tuple[float, Timer]:
        """The timer that fires next, and when (NEVER: none runs)."""
        return min(self._all(), key=_moment)

    def take_due(self, now: float) -> list[Timer]:
        """Stop the timers that are due and return them, earliest first."""
        due = sorted((pair for pair in self._all() if pair[0] <= now), key=_moment)
        for _, timer in due:
            setattr(self, _ATTRIBUTES[timer], NEVER)
        return [timer for _, timer in due]

    def _all(self) -> tuple[tuple[float, Timer], ...]:
        return (
            (self.retransmit_handshake_at, Timer.RETRANSMIT_HANDSHAKE),
            (self.send_keepalive_at, Timer.SEND_KEEPALIVE),
            (self.new_handshake_at, Timer.NEW_HANDSHAKE),
            (self.zero_keys_at, Timer.ZERO_KEYS),
            (self.persistent_keepalive_at, Timer.PERSISTENT_KEEPALIVE),
        )


_ATTRIBUTES = {timer: f"{timer.name.lower()}_at" for timer in Timer}


def _moment(pair: tuple[float, Timer]) -> float:
    return pair[0]


class TimerQueue(Generic[Owner]):
    """All peers that have a timer running, the earliest first."""

    __slots__ = ("_attribute", "_ceiling", "_deadline", "_heap", "_serial", "_top")

    def __init__(self) -> None:
        self._ceiling = _CEILING_MIN
        self._heap: list[tuple[float, int, PeerTimers[Owner]]] = []
        self._serial = 0  # orders entries of the same moment
        # The answer of next_deadline, right as long as that entry is first and the timer it stands for has not moved.
        self._top: tuple[float, int, PeerTimers[Owner]] | None = None
        self._attribute = ""
        self._deadline: Deadline | None = None

    def __len__(self) -> int:
        """How many entries there are, overtaken ones included."""
        return len(self._heap)

    def push(self, timers: PeerTimers[Owner], at: float) -> None:
        """Let ``timers`` come up at ``at``, which is before any entry of theirs."""
        self._serial += 1
        timers.queued_at = at
        heapq.heappush(self._heap, (at, self._serial, timers))
        if len(self._heap) > self._ceiling:
            self._compact()

    def wake_at(self) -> float:
        """The earliest timer of all peers or some moment before it, NEVER if none runs: cheap enough for every packet.

        :meth:`next_deadline`, which finds the exact moment, has to put right what moved since it was last asked.
        """
        return self._heap[0][0] if self._heap else NEVER

    def next_deadline(self) -> Deadline | None:
        """The earliest timer of all peers."""
        heap = self._heap
        top = self._top
        if top is not None and top is heap[0] and getattr(top[2], self._attribute) == top[0]:
            return self._deadline
        while heap:
            top = heap[0]
            at, _, timers = top
            if at != timers.queued_at:  # a later entry of the same peer came before this one
                heapq.heappop(heap)
                continue
            due_at, timer = timers.earliest()
            if due_at <= at:
                self._top, self._attribute, self._deadline = top, _ATTRIBUTES[timer], Deadline(at, timer.value)
                return self._deadline
            self._requeue(timers)
        self._top = self._deadline = None
        return None

    def pop_due(self, now: float) -> PeerTimers[Owner] | None:
        """Some peer with a timer due at ``now``; None when there is none. :meth:`settle` it after its timers were
        taken.
        """
        deadline = self.next_deadline()
        if deadline is None or deadline.at > now:
            return None
        timers = heapq.heappop(self._heap)[2]
        timers.queued_at = NEVER
        self._top = None
        return timers

    def settle(self, timers: PeerTimers[Owner]) -> None:
        """Queue ``timers``, popped before, again if one of them runs and nothing else queued them meanwhile."""
        at, _ = timers.earliest()
        if at < timers.queued_at:
            self.push(timers, at)

    def _compact(self) -> None:
        """Drop entries that were overtaken by an earlier one of the same peer."""
        valid = {entry[2]: entry for entry in self._heap if entry[0] == entry[2].queued_at}
        self._heap = list(valid.values())
        heapq.heapify(self._heap)
        self._ceiling = max(_CEILING_MIN, 2 * len(self._heap))
        self._top = None

    def _requeue(self, timers: PeerTimers[Owner]) -> None:
        heapq.heappop(self._heap)
        timers.queued_at = NEVER
        self.settle(timers)
