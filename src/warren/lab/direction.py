"""One direction of an impaired link without sockets or clocks: packets and the time come in, packets come out."""

from __future__ import annotations

import heapq
import random
from collections import deque
from dataclasses import dataclass

from warren.lab.corruption import flip_one_bit
from warren.lab.impairment import Impairment

IN_FLIGHT_MAX = 1 << 16
"""Packets that a direction keeps at most: 0.5 s of 1,500-byte packets at 1.5 Gbit/s, 100 MB."""


@dataclass(slots=True)
class Counters:
    """What has become of the packets of one direction, in packets."""

    received: int = 0
    lost: int = 0
    too_big: int = 0
    queue_full: int = 0
    """Dropped because the queue before the rate limit, or the whole direction, was full."""
    corrupted: int = 0
    reordered: int = 0
    """Held back so that others overtake; some leave in their old place because none came."""
    duplicated: int = 0
    transmitted: int = 0
    """Handed on, copies included."""


class _Held:
    """A packet held back until the ``release_at``-th packet has come, or until ``expires_at``."""

    __slots__ = ("expires_at", "packet", "release_at")

    def __init__(self, release_at: int, expires_at: float, packet: bytes) -> None:
        self.release_at = release_at
        self.expires_at = expires_at
        self.packet: bytes | None = packet
        """None once it has been released."""

    def __lt__(self, other: _Held) -> bool:
        return self.release_at < other.release_at


class Direction:
    """Decides for every packet what becomes of it, and keeps it until it is due.

    ``now`` is a monotonic time in seconds that never goes back. Every fault draws from a random sequence of its own,
    which depends on ``seed`` alone, one step for each packet it sees: the same packets meet the same fate in every
    run, and switching one fault on does not change what another does. No input makes it fail.
    """

    def __init__(self, impairment: Impairment, seed: str) -> None:
        self.counters = Counters()
        self._loss, self._order, self._copy, self._damage, self._delay = (
            random.Random(f"{seed} {fault}") for fault in ("loss", "reorder", "duplicate", "corrupt", "jitter")
        )
        self._in_burst = False
        self._sent_by = 0.0
        self._queue: deque[float] = deque()
        """When each packet that waits before the rate limit will have been sent."""
        self._waiting: deque[tuple[float, bytes]] = deque()
        """Packets with the time they are due; never falling."""
        self._held_by_count: list[_Held] = []
        self._held_by_time: deque[_Held] = deque()
        self._held = 0
        self._seen = 0
        self.set(impairment)

    @property
    def is_idle(self) -> bool:
        """Nothing is kept and nothing is impaired: a packet given now would come out now, as it is."""
        return self._is_good and not self._waiting and not self._held

    def set(self, impairment: Impairment) -> None:
        """Change the faults for the packets that are received from now on; those on their way are not touched."""
        self._impairment = impairment
        self._is_good = impairment == Impairment()

    def receive(self, packet: bytes, now: float) -> None:
        """Take one IP packet that enters the link."""
        faults, counters = self._impairment, self.counters
        counters.received += 1
        if faults.mtu_drop is not None and len(packet) > faults.mtu_drop:
            counters.too_big += 1
            return
        if faults.loss and self._is_lost(faults):
            counters.lost += 1
            return
        if len(self._waiting) + self._held >= IN_FLIGHT_MAX:
            counters.queue_full += 1
            return
        leaves = now
        if faults.rate_bps is not None:
            if not self._has_room(now, faults.queue_packets):
                counters.queue_full += 1
                return
            leaves = self._sent_by = max(now, self._sent_by) + len(packet) * 8 / faults.rate_bps
            self._queue.append(leaves)
        if faults.corrupt and self._damage.random() < faults.corrupt:
            packet = flip_one_bit(packet, self._damage, pass_udp=faults.corrupt_passes_udp)
            counters.corrupted += 1
        leaves += faults.delay_s
        if faults.jitter_s:
            leaves = max(now, leaves + self._delay.uniform(-faults.jitter_s, faults.jitter_s))
        self._send_off(packet, leaves, faults)

    def take_transmits(self, now: float) -> list[bytes]:
        """The packets that leave the link by ``now``, in their order."""
        due: list[bytes] = []
        waiting = self._waiting
        while True:
            expires_at = self._next_expiry()
            if waiting and waiting[0][0] <= now and (expires_at is None or waiting[0][0] <= expires_at):
                due.append(waiting.popleft()[1])
            elif expires_at is not None and expires_at <= now:
                due.append(self._release(self._held_by_time.popleft()))
            else:
                break
        self.counters.transmitted += len(due)
        return due

    def next_deadline(self) -> float | None:
        """When :meth:`take_transmits` will have something; None: not before another packet is received."""
        expires_at = self._next_expiry()
        if not self._waiting:
            return expires_at
        return self._waiting[0][0] if expires_at is None else min(self._waiting[0][0], expires_at)

    def _is_lost(self, faults: Impairment) -> bool:
        chance = self._loss.random()
        if faults.loss_burst is None or faults.loss == 1:
            return chance < faults.loss
        # Gilbert 1960: leave the bad state with probability r = 1/burst, enter it with p so that p/(p+r) = loss.
        leave = 1 / faults.loss_burst
        if self._in_burst:
            self._in_burst = chance >= leave
        else:
            self._in_burst = chance < leave * faults.loss / (1 - faults.loss)
        return self._in_burst

    def _has_room(self, now: float, limit: int) -> bool:
        queue = self._queue
        while queue and queue[0] <= now:
            queue.popleft()
        return len(queue) < limit

    def _send_off(self, packet: bytes, leaves: float, faults: Impairment) -> None:
        waiting = self._waiting
        self._seen += 1
        if waiting and leaves < waiting[-1][0]:
            leaves = waiting[-1][0]
        is_doubled = bool(faults.duplicate) and self._copy.random() < faults.duplicate
        if faults.reorder and self._order.random() < faults.reorder:
            depth = self._order.randint(1, faults.reorder_depth)
            self._hold(_Held(self._seen + depth, leaves + faults.reorder_hold_s, packet))
        else:
            waiting.append((leaves, packet))
        if is_doubled:
            waiting.append((leaves, packet))
            self.counters.duplicated += 1
        self._release_overtaken(leaves)

    def _hold(self, held: _Held) -> None:
        heapq.heappush(self._held_by_count, held)
        self._held_by_time.append(held)
        self._held += 1
        self.counters.reordered += 1

    def _release_overtaken(self, leaves: float) -> None:
        while self._held_by_count and self._held_by_count[0].release_at <= self._seen:
            held = heapq.heappop(self._held_by_count)
            if held.packet is not None:
                self._waiting.append((leaves, self._release(held)))

    def _release(self, held: _Held) -> bytes:
        packet = held.packet or b""
        held.packet = None
        self._held -= 1
        return packet

    def _next_expiry(self) -> float | None:
        while self._held_by_time and self._held_by_time[0].packet is None:
            self._held_by_time.popleft()
        return self._held_by_time[0].expires_at if self._held_by_time else None
