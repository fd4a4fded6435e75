"""From opened trains to frames for the host, none of which has a source address that its sender does not own.

All packets that a coalescer merges are of one peer, and all packets in one frame have the same source address, so one
look at each frame checks every packet (WireGuard §2, §3: cryptokey routing of what is received).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable

from warren.proto.datapath import Coalescer
from warren.proto.ip.coalesce import MAX_FRAME, MAX_RUNS, MAX_TRAIN
from warren.proto.ip.virtio import VNET
from warren.proto.wireguard.allowed_ips import AllowedIps
from warren.proto.wireguard.peer import Peer

COALESCERS = 3
"""Peers whose trains may be collected side by side before the owner has to take the frames."""
CAPACITY_BYTES = MAX_TRAIN + 2 * MAX_RUNS * MAX_FRAME
"""Of each, 1.1 MB: a train, and room for each open run to grow to a full frame twice."""


class Delivery:
    """The frames of one device that wait for the host. A change of peer moves on to the next of a few coalescers.

    ``drain`` is called when all of them are in use, to :meth:`take` the frames at once: a train of a relay may have
    packets of many peers.
    """

    __slots__ = ("_allowed_ips", "_coalescers", "_counters", "_frames", "_peer", "_used", "drain")

    def __init__(
        self, coalescer: type[Coalescer], udp: bool, allowed_ips: AllowedIps[Peer], counters: dict[str, int]
    ) -> None:
        self._allowed_ips = allowed_ips
        self._counters = counters
        self._coalescers = [coalescer(CAPACITY_BYTES, udp) for _ in range(COALESCERS)]
        self._used = 0  # coalescers already emptied since the last take; the next one is in use when _peer is set
        self._peer: Peer | None = None
        self._frames: list[memoryview] = []
        self.drain: Callable[[], None] | None = None

    def room(self) -> bool:
        """Whether one more train of any peer surely fits."""
        return self._peer is None or self._used + 1 < COALESCERS

    def add(self, peer: Peer, buffer: bytearray, at: int, end: int, stride: int, lengths: array[int]) -> None:
        """Take the plaintexts of a train of ``peer``, as :meth:`Coalescer.add` does."""
        if peer is not self._peer or not self._coalescers[self._used].room():
            if self._peer is not None:
                if self._used + 1 < COALESCERS:
                    self._collect()
                elif self.drain is not None:
                    self.drain()
                else:
                    self._counters["inner_no_room"] += 1
                    return
            self._peer = peer
        dropped = self._coalescers[self._used].add(buffer, at, end, stride, lengths)
        if dropped:
            self._counters["inner_malformed"] += dropped

    def take(self) -> list[memoryview]:
        """All frames, each with its virtio header, in order. They stay valid until the next :meth:`add`."""
        if self._peer is None:
            return []
        self._collect()
        self._used = 0
        frames, self._frames = self._frames, []
        return frames

    def _collect(self) -> None:
        """Empty the coalescer in use into the list of frames, without those whose source is not its peer's."""
        coalescer, peer, frames = self._coalescers[self._used], self._peer, self._frames
        self._peer = None
        self._used += 1
        cached, lookup = self._allowed_ips.cached, self._allowed_ips.lookup
        view = memoryview(coalescer.frames)
        for start, end in coalescer.flush():
            packet = start + VNET
            source = bytes(
                view[packet + 12 : packet + 16] if view[packet] >> 4 == 4 else view[packet + 8 : packet + 24]
            )
            if (cached.get(source) or lookup(source)) is peer:
                frames.append(view[start:end])
            else:
                self._counters["inner_spoofed"] += 1
