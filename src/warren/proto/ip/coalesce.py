"""Inbound: the packets of opened trains become as few TUN frames as possible.

Consecutive packets of one flow are merged into a super-packet the way the kernel's GRO does it, so that the host's
stack handles 64 KB at a time. Merging is lossless: cut again, the frame gives the very packets it was made of (only a
run of IPv4 packets that all carry DF and one identification would be renumbered).
"""

from __future__ import annotations

import struct
from array import array
from typing import Final

from warren.proto.ip.checksum import MODULUS, complement, partial, word_sum
from warren.proto.ip.headers import (
    ACK,
    IPV4_HEADER,
    IPV6_HEADER,
    PSH,
    TCP,
    TCP_CSUM,
    TCP_HEADER,
    UDP,
    UDP_CSUM,
    UDP_HEADER,
    packet_length,
)
from warren.proto.ip.segment import HEADROOM, MAX_PACKET, TAILROOM
from warren.proto.ip.virtio import GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, HEADER, NEEDS_CSUM, NO_OFFLOAD, VNET

MAX_RUNS: Final = 8
"""Flows that may be merging at once: enough for a few interleaved bulk flows, few enough to search one by one."""
MAX_UDP_SEGMENTS: Final = 64
"""Datagrams merged into one: what the kernel's own GRO allows (UDP_GRO_CNT_MAX), as it charges a socket for each."""
MAX_FRAME: Final = VNET + MAX_PACKET
MAX_TRAIN: Final = 65536

_TCP4: Final = struct.Struct("!HHHI2x12sIQ")  # up to TOS, length, id, (fragment, TTL, protocol), flow, sequence, rest
_TCP6: Final = struct.Struct("!IHH36sIQ")  # up to flow label, length, (next header, hop limit), flow, sequence, rest
_UDP4: Final = struct.Struct("!HHHI2x12sHH")  # as above, but after the flow: length, checksum
_UDP6: Final = struct.Struct("!IHH36sHH")

# In "rest", the eight bytes from the TCP acknowledgement to the window:
_REST_PSH: Final = PSH << 16
_REST_FLAGS_SHIFT: Final = 16
_REST_FLAGS_BUT_PSH: Final = 0xFFF & ~PSH
_REST_OFFSET_SHIFT: Final = 28

_DF: Final = 0x4000 << 16
"""Don't Fragment, in the four bytes of fragment, TTL and protocol."""


class _Run:
    """An open run: a frame in the arena that the next packet of its flow may be appended to."""

    __slots__ = (
        "end", "fixed", "flow", "headers", "identification", "index", "limit",
        "offset", "segments", "sequence", "size", "start", "step",
    )  # fmt: skip

    start: int
    """Where the frame's virtio header is in the arena; ``end`` is behind its payload."""
    end: int
    limit: int
    """How far the frame may grow."""
    index: int
    """Its place in the order of frames."""
    flow: bytes
    """The key it is open under."""
    fixed: tuple[int | bytes, ...]
    """All header fields that a further packet must repeat."""
    offset: int
    """The length of the IP header."""
    headers: int
    """The length of IP and transport header."""
    size: int
    """Payload of each segment (gso_size)."""
    segments: int
    sequence: int
    """The TCP sequence number that continues the run; unused for UDP."""
    identification: int
    """The IPv4 identification of the last packet."""
    step: int
    """By how much it rises: 1, or 0 for atomic packets (RFC 6864) and IPv6."""


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
        self._udp = udp
        self._reserves = min(MAX_RUNS, (capacity - MAX_TRAIN) // MAX_FRAME // 2)
        self._open: dict[bytes, _Run] = {}
        self._reset()

    def _reset(self) -> None:
        self._spans: list[tuple[int, int]] = []
        self._tail = 0
        self._last: _Run | None = None
        self._spare = self._reserves

    def room(self) -> bool:
        """Whether the packets of one more train surely fit."""
        return len(self.frames) - self._tail - self._spare * MAX_FRAME >= MAX_TRAIN

    def add(
        self, buffer: bytes | bytearray | memoryview, at: int, end: int, stride: int, lengths: array[int]
    ) -> int:
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
        for i in range(count):
            length = lengths[i]
            if length > 0:
                first = i * stride + HEADROOM
                limit = min((i + 1) * stride, end - at) - TAILROOM
                total = packet_length(data, first, first + length) if first + length <= limit else 0
                if total == 0 or not self._take(data, first, total):
                    dropped += 1
        return dropped

    def flush(self) -> list[tuple[int, int]]:
        """End all runs; return the (start, end) of each frame in ``frames``, in order, and start afresh."""
        for run in list(self._open.values()):
            self._close(run)
        spans = self._spans
        self._reset()
        return spans

    def _take(self, data: bytes, first: int, total: int) -> bool:
        """Sort one whole packet: into a run, or alone. False if there is no room for it."""
        lead = data[first]
        if lead == 0x45:
            protocol, offset = data[first + 9], IPV4_HEADER
            fragment = data[first + 6] & 0xBF or data[first + 7]
        else:
            protocol, offset = data[first + 6], IPV6_HEADER
            fragment = lead >> 4 == 4  # with IPv4 options: as little to be merged as a fragment
        if not fragment and protocol == TCP and total >= offset + TCP_HEADER:
            return self._take_tcp(data, first, total, offset)
        if not fragment and protocol == UDP and total >= offset + UDP_HEADER:
            return self._take_udp(data, first, total, offset)
        for run in list(self._open.values()):
            self._close(run)
        return self._place(data, first, total) >= 0

    def _take_tcp(self, data: bytes, first: int, total: int, offset: int) -> bool:
        if offset == IPV4_HEADER:
            head, _, identification, middle, flow, sequence, rest = _TCP4.unpack_from(data, first)
        else:
            head, _, middle, flow, sequence, rest = _TCP6.unpack_from(data, first)
            identification = 0
        headers = offset + (rest >> _REST_OFFSET_SHIFT & 15) * 4
        size = total - headers
        mergeable = (
            rest >> _REST_FLAGS_SHIFT & _REST_FLAGS_BUT_PSH == ACK
            and headers >= offset + TCP_HEADER
            and size > 0
            and _valid(data, first, total, offset, TCP)
        )
        run = self._open.get(flow)
        fixed = (head, middle, rest & ~_REST_PSH, data[first + offset + TCP_CSUM + 2 : first + headers])
        if run is not None:
            if (
                mergeable
                and run.sequence == sequence
                and run.fixed == fixed
                and self._append(run, data, first, size, identification, middle)
            ):
                run.sequence = sequence + size & 0xFFFFFFFF
                if rest & _REST_PSH:
                    self.frames[run.start + VNET + offset + 13] |= PSH
                    self._close(run)
                elif size < run.size:
                    self._close(run)
                return True
            self._close(run)
        index = self._place(data, first, total)
        if index >= 0 and mergeable and not rest & _REST_PSH:
            self._begin(flow, fixed, index, offset, headers, identification).sequence = sequence + size & 0xFFFFFFFF
        return index >= 0

    def _take_udp(self, data: bytes, first: int, total: int, offset: int) -> bool:
        if offset == IPV4_HEADER:
            head, _, identification, middle, flow, length, checksum = _UDP4.unpack_from(data, first)
        else:
            head, _, middle, flow, length, checksum = _UDP6.unpack_from(data, first)
            identification = 0
        flow += b"u"
        headers = offset + UDP_HEADER
        size = total - headers
        mergeable = (
            self._udp
            and checksum != 0
            and length == total - offset
            and size > 0
            and _valid(data, first, total, offset, UDP)
        )
        run = self._open.get(flow)
        fixed = (head, middle)
        if run is not None:
            if mergeable and run.fixed == fixed and self._append(run, data, first, size, identification, middle):
                if size < run.size or run.segments == MAX_UDP_SEGMENTS:
                    self._close(run)
                return True
            self._close(run)
        index = self._place(data, first, total)
        if index >= 0 and mergeable:
            self._begin(flow, fixed, index, offset, headers, identification)
        return index >= 0

    def _begin(
        self, flow: bytes, fixed: tuple[int | bytes, ...], index: int, offset: int, headers: int, identification: int
    ) -> _Run:
        """Open a run with the frame just placed as number ``index``. The oldest open run gives way if need be."""
        if len(self._open) == MAX_RUNS:
            self._close(next(iter(self._open.values())))
        run = _Run()
        run.flow, run.fixed, run.index, run.offset, run.headers = flow, fixed, index, offset, headers
        run.start, run.end = self._spans[index]
        run.limit = min(run.start + MAX_FRAME, len(self.frames))
        run.size = run.end - run.start - VNET - headers
        run.segments = 1
        run.identification = identification
        run.step = 0
        self._open[flow] = self._last = run
        return run

    def _append(self, run: _Run, data: bytes, first: int, size: int, identification: int, middle: int) -> bool:
        """Add a packet's ``size`` bytes of payload to the run if size, room and identification allow it."""
        end = run.end + size
        if size > run.size or end > run.limit:
            return False
        step = identification - run.identification & 0xFFFF
        if run.segments > 1:
            if step != run.step:
                return False
        elif run.offset == IPV4_HEADER and step != 1 and not (step == 0 and middle & _DF):
            return False
        payload = first + run.headers
        self.frames[run.end : end] = data[payload : payload + size]
        run.step, run.identification = step, identification
        run.end = end
        run.segments += 1
        if run is self._last:
            self._tail = end
        return True

    def _place(self, data: bytes, first: int, total: int) -> int:
        """Write a packet as a frame of its own at the tail; return its number, or -1 if there is no room.

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
            return -1
        self.frames[start:end] = NO_OFFLOAD + data[first : first + total]
        self._tail = end
        self._spans.append((start, end))
        return len(self._spans) - 1

    def _close(self, run: _Run) -> None:
        """End a run; one of several packets becomes a super-packet, its checksum left to the device to complete."""
        del self._open[run.flow]
        if run is self._last:
            self._last = None
        if run.segments == 1:
            return
        self._spans[run.index] = (run.start, run.end)
        frames, packet = self.frames, run.start + VNET
        length = run.end - packet
        transport = packet + run.offset
        segment = length - run.offset
        tcp = len(run.fixed) == 4
        if run.offset == IPV4_HEADER:
            gso_type = GSO_TCPV4 if tcp else GSO_UDP_L4
            addresses = frames[packet + 12 : packet + 20]
            frames[packet + 2 : packet + 4] = length.to_bytes(2, "big")
            frames[packet + 10 : packet + 12] = bytes(2)
            frames[packet + 10 : packet + 12] = complement(word_sum(frames[packet:transport])).to_bytes(2, "big")
        else:
            gso_type = GSO_TCPV6 if tcp else GSO_UDP_L4
            addresses = frames[packet + 8 : packet + 40]
            frames[packet + 4 : packet + 6] = segment.to_bytes(2, "big")
        protocol, csum_offset = (TCP, TCP_CSUM) if tcp else (UDP, UDP_CSUM)
        if not tcp:
            frames[transport + 4 : transport + 6] = segment.to_bytes(2, "big")
        field = transport + csum_offset
        frames[field : field + 2] = partial(word_sum(addresses) + protocol + segment).to_bytes(2, "big")
        HEADER.pack_into(frames, run.start, NEEDS_CSUM, gso_type, run.headers, run.size, run.offset, csum_offset)


def _valid(data: bytes, first: int, total: int, offset: int, protocol: int) -> bool:
    """Whether the packet's transport checksum, and that of an IPv4 header, hold."""
    end = first + total
    if offset == IPV4_HEADER:
        if word_sum(data[first : first + IPV4_HEADER]):
            return False
        addresses = first + 12
    else:
        addresses = first + 8
    # The addresses lie right before the transport header: the two sum up in one go.
    return (word_sum(data[addresses:end]) + protocol + total - offset) % MODULUS == 0
