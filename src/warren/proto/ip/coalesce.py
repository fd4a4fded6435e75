"""Inbound: the packets of opened trains become as few TUN frames as possible.

Consecutive packets of one flow are merged into a super-packet the way the kernel's GRO does it, so that the host's
stack handles 64 KB at a time. Merging is lossless: cut again, the frame gives the very packets it was made of (only a
run of IPv4 packets that all carry DF and one identification would be renumbered).
"""

from __future__ import annotations

from array import array
from typing import Final

from warren.proto.ip.headers import packet_length
from warren.proto.ip.run import Packet, Run, parse
from warren.proto.ip.segment import HEADROOM, MAX_PACKET, TAILROOM
from warren.proto.ip.virtio import NO_OFFLOAD, VNET

MAX_RUNS: Final = 8
"""Flows that may be merging at once: enough for a few interleaved bulk flows, few enough to search one by one."""
MAX_FRAME: Final = VNET + MAX_PACKET
MAX_TRAIN: Final = 65536


class Coalescer:
    """Merges the packets of one peer's trains into TUN frames, kept in ``frames`` until the next :meth:`add`.

    ``capacity`` is the size of ``frames`` in bytes, at least MAX_TRAIN; ``udp`` says whether the TUN takes USO frames.
    Raises ValueError for a smaller capacity. For one thread at a time.

    Merged are TCP segments with ACK and perhaps PSH set, and UDP datagrams with a checksum, whose checksums hold, that
    follow each other in sequence and differ in nothing else. A shorter payload or PSH ends a run. All other packets,
    those with a wrong checksum among them, pass as they are for the host to judge. Packets of one flow keep their
    order; what cannot be told to belong to a flow (a fragment, ICMP …) stays behind all that came before it.
    """

    def __init__(self, capacity: int, udp: bool) -> None:
        if capacity < MAX_TRAIN:
            raise ValueError(f"a coalescer needs room for a train, {MAX_TRAIN} bytes")
        self.frames = bytearray(capacity)
        self._view = memoryview(self.frames)
        self._udp = udp
        self._reserves = min(MAX_RUNS, (capacity - MAX_TRAIN) // MAX_FRAME // 2)
        self._open: dict[bytes, Run] = {}
        """By flow, oldest first."""
        self._reset()

    def _reset(self) -> None:
        self._spans: list[tuple[int, int]] = []
        self._tail = 0
        self._last: Run | None = None
        """The open run that ends at the tail."""
        self._spare = self._reserves

    def room(self) -> bool:
        """Whether the packets of one more train surely fit."""
        return len(self.frames) - self._tail - self._spare * MAX_FRAME >= MAX_TRAIN

    def add(self, buffer: bytes | bytearray | memoryview, at: int, end: int, stride: int, lengths: array[int]) -> int:
        """Take the plaintexts of an opened train; return how many were dropped as malformed, or for want of room.

        The plaintext of datagram i starts at ``buffer[at + i * stride + 16]`` and has ``lengths[i]`` bytes; lengths of
        0 and below are skipped. Padding is trimmed by the IP header's own length. The buffer is free for other use on
        return. Raises ValueError for a train that does not fit its buffer or ``lengths``, an ``array('i')``.
        """
        if not 0 <= at <= end <= len(buffer) or stride <= 0:
            raise ValueError("the train lies outside its buffer or has no stride")
        count = -(-(end - at) // stride)
        if count > len(lengths) or lengths.typecode != "i":
            raise ValueError("lengths must be an array('i') with an item for each datagram")
        data = bytes(memoryview(buffer)[at:end])
        dropped = 0
        room, stop = stride - HEADROOM - TAILROOM, len(data) - TAILROOM
        for i in range(count):
            length = lengths[i]
            if length <= 0:
                continue
            first = i * stride + HEADROOM
            run = self._last
            if length > room or first + length > stop:
                dropped += 1
            elif run is not None and run.follows(data, first, length):
                more = run.extend(self._view, data, first)
                self._tail = run.end
                if not more:
                    self._close(run)
            elif not self._take(data, first, length):
                dropped += 1
        return dropped

    def flush(self) -> list[tuple[int, int]]:
        """End all runs; return the (start, end) of each frame in ``frames``, in order, and start afresh."""
        self._close_all()
        spans = self._spans
        self._reset()
        return spans

    def _take(self, data: bytes, first: int, length: int) -> bool:
        """Sort one packet: into the run of its flow, or alone. False if it is malformed or there is no room."""
        total = packet_length(data, first, first + length)
        if total == 0:
            return False
        packet = parse(data, first, total, self._udp)
        if packet is None:
            self._close_all()
            return self._place(data, first, total)
        run = self._open.get(packet.flow)
        if run is not None:
            if run.admits(packet):
                more = run.append(self._view, packet, data, first)
                if run is self._last:
                    self._tail = run.end
                if not more:
                    self._close(run)
                return True
            self._close(run)
        if not self._place(data, first, total):
            return False
        if packet.mergeable and not packet.pushed:
            self._begin(packet, data, first)
        return True

    def _begin(self, packet: Packet, data: bytes, first: int) -> None:
        """Open a run with the frame just placed. The oldest open run gives way if need be."""
        if len(self._open) == MAX_RUNS:
            self._close(next(iter(self._open.values())))
        start, end = self._spans[-1]
        limit = min(start + MAX_FRAME, len(self.frames))
        self._last = Run(packet, data, first, len(self._spans) - 1, start, end, limit)
        self._open[packet.flow] = self._last

    def _place(self, data: bytes, first: int, total: int) -> bool:
        """Write a packet as a frame of its own at the tail; False if there is no room for it.

        An open run at the tail keeps room to grow to its full size, as long as there are such reserves.
        """
        start = self._tail
        if self._last is not None:
            if self._spare and self._last.limit + VNET + total <= len(self.frames):
                start = self._last.limit
                self._spare -= 1
            else:
                self._last.limit = self._last.end
            self._last = None
        end = start + VNET + total
        if end > len(self.frames):
            return False
        self._view[start:end] = NO_OFFLOAD + data[first : first + total]
        self._tail = end
        self._spans.append((start, end))
        return True

    def _close(self, run: Run) -> None:
        """End a run; one of several packets becomes a super-packet."""
        del self._open[run.packet.flow]
        if run is self._last:
            self._last = None
        self._spans[run.index] = (run.start, run.end)
        run.finish(self._view)

    def _close_all(self) -> None:
        for run in list(self._open.values()):
            self._close(run)
