"""Merging received packets into super-packets, the same in both twins."""

from __future__ import annotations

from array import array
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.flows import NO_OFFLOAD, Ip, Tcp, Udp, segments, without_sum
from tests.support.packets import rfc1071
from tests.support.twins import COMPILED, PURE, Twin, needs_both_twins, over_both_twins

CAPACITY = 1 << 20
TIMESTAMPS = b"\x01\x01\x08\x0a" + b"12345678"


def train(packets: list[bytes], padding: int = 0) -> tuple[bytes, int, array[int]]:
    """The packets as an opened train: bytes, stride, lengths."""
    stride = 32 + max(map(len, packets)) + padding
    slots = [bytes(16) + packet + bytes(stride - 16 - len(packet)) for packet in packets]
    return b"".join(slots), stride, array("i", [len(packet) + padding for packet in packets])


def collect(coalescer: object, *trains: list[bytes]) -> list[bytes]:
    """The frames that a coalescer makes of these trains."""
    for packets in trains:
        buffer, stride, lengths = train(packets, padding=5)
        assert coalescer.add(buffer, 0, len(buffer), stride, lengths) == 0  # type: ignore[attr-defined]
    return [bytes(coalescer.frames[start:end]) for start, end in coalescer.flush()]  # type: ignore[attr-defined]


def merged(twin: Twin, *packets: Ip | bytes, udp: bool = True) -> list[int]:
    """How many packets are in each frame that the packets end up in; that none is changed is checked."""
    made = [packet if isinstance(packet, bytes) else packet.packet() for packet in packets]
    cut = [segments(frame) for frame in collect(twin.coalescer(CAPACITY, udp), made)]
    assert sorted(one for packets in cut for one in packets) == sorted(made)
    return [len(frame) for frame in cut]


def flow(packet: Tcp | Udp, *sizes: int) -> list[Tcp | Udp]:
    """Consecutive packets of these sizes."""
    made, at = [], 0
    for index, size in enumerate(sizes):
        made.append(replace(packet.later(index, at), payload=bytes((at + i) * 13 & 0xFF for i in range(size))))
        at += size
    return made


BOTH_VERSIONS = pytest.mark.parametrize("version", [4, 6])
BOTH_PROTOCOLS = pytest.mark.parametrize("kind", [Tcp, Udp])


@over_both_twins
class TestARun:
    @BOTH_VERSIONS
    @BOTH_PROTOCOLS
    @pytest.mark.parametrize("sizes", [(100, 100), (100, 1), (99, 99, 99, 17), (1,) * 50, (1368,) * 40])
    def test_of_consecutive_packets_becomes_one_frame(
        self, twin: Twin, version: int, kind: type[Tcp], sizes: tuple[int, ...]
    ) -> None:
        assert merged(twin, *flow(kind(version=version), *sizes)) == [len(sizes)]

    @BOTH_VERSIONS
    def test_is_the_very_super_packet_that_was_split(self, twin: Twin, version: int) -> None:
        whole = Tcp(version=version, payload=bytes(40_001), flags=0x18, options=TIMESTAMPS, urgent=3)
        frame = whole.super_frame(1000)
        assert collect(twin.coalescer(CAPACITY, True), [one.packet() for one in whole.cut(1000)]) == [frame]

    @BOTH_PROTOCOLS
    def test_ends_with_a_shorter_payload(self, twin: Twin, kind: type[Tcp]) -> None:
        assert merged(twin, *flow(kind(), 100, 100, 99, 99)) == [3, 1]

    @BOTH_PROTOCOLS
    def test_does_not_take_a_longer_payload(self, twin: Twin, kind: type[Tcp]) -> None:
        assert merged(twin, *flow(kind(), 100, 101, 101)) == [1, 2]

    def test_ends_with_a_push_and_carries_it(self, twin: Twin) -> None:
        packets = [replace(one, flags=flags) for one, flags in
                   zip(flow(Tcp(), 50, 50, 50, 50), (0x10, 0x18, 0x10, 0x10), strict=True)]  # fmt: skip
        assert merged(twin, *packets) == [2, 2]

    def test_does_not_begin_with_a_push(self, twin: Twin) -> None:
        first, second = flow(Tcp(), 50, 50)
        assert merged(twin, replace(first, flags=0x18), second) == [1, 1]

    def test_goes_on_in_the_next_train(self, twin: Twin) -> None:
        packets = [one.packet() for one in flow(Tcp(), *[1000] * 9)]
        frames = collect(twin.coalescer(CAPACITY, True), packets[:4], packets[4:5], packets[5:])
        assert [len(segments(frame)) for frame in frames] == [9]

    def test_does_not_go_on_after_a_flush(self, twin: Twin) -> None:
        packets = [one.packet() for one in flow(Tcp(), *[1000] * 4)]
        coalescer = twin.coalescer(CAPACITY, True)
        for part in (packets[:2], packets[2:]):
            assert [segments(frame) for frame in collect(coalescer, part)] == [part]

    @BOTH_VERSIONS
    def test_stops_short_of_65535_bytes(self, twin: Twin, version: int) -> None:
        header = 40 if version == 4 else 60
        assert merged(twin, *flow(Tcp(version=version), *[1000] * 70)) == [65, 5]
        fitting = 65535 - header - 65 * 1000
        assert merged(twin, *flow(Tcp(version=version), *[1000] * 65, fitting)) == [66]
        assert merged(twin, *flow(Tcp(version=version), *[1000] * 65, fitting + 1)) == [65, 1]

    def test_of_udp_stops_at_64_datagrams(self, twin: Twin) -> None:
        assert merged(twin, *flow(Udp(), *[10] * 130)) == [64, 64, 2]

    def test_wraps_sequence_and_identification(self, twin: Twin) -> None:
        for version in (4, 6):
            start = Tcp(version=version, sequence=2**32 - 2500, identification=0xFFFE)
            assert merged(twin, *flow(start, *[1000] * 6)) == [6]

    def test_may_keep_its_identification_where_nothing_is_fragmented(self, twin: Twin) -> None:
        packets = [replace(one, identification=9) for one in flow(Udp(), *[100] * 4)]
        frames = collect(twin.coalescer(CAPACITY, True), [one.packet() for one in packets])
        assert len(frames) == 1
        fragmentable = [replace(one, dont_fragment=False) for one in packets]
        assert merged(twin, *fragmentable) == [1, 1, 1, 1]

    def test_settles_how_the_identification_rises(self, twin: Twin) -> None:
        a, b, c, d = flow(Tcp(), *[100] * 4)
        assert merged(twin, a, b, replace(c, identification=b.identification), d) == [2, 1, 1]
        same = [replace(one, identification=9) for one in (a, b)]
        frames = collect(twin.coalescer(CAPACITY, True), [p.packet() for p in (*same, replace(c, identification=10))])
        assert [len(segments(frame)) for frame in frames] == [2, 1]
        assert merged(twin, a, replace(b, identification=a.identification + 2)) == [1, 1]
        assert merged(twin, a, replace(b, identification=a.identification - 1)) == [1, 1]


TCP_DIFFERENCES = {
    "a gap": {"sequence": 102},
    "an overlap": {"sequence": 100},
    "another acknowledgement": {"acknowledgement": 8},
    "another window": {"window": 501},
    "an urgent pointer": {"urgent": 1},
    "other options": {"options": TIMESTAMPS[:-1] + b"9"},
    "fewer options": {"options": TIMESTAMPS[:-4]},
    "no options": {"options": b""},
    "SYN": {"flags": 0x12},
    "FIN": {"flags": 0x11},
    "RST": {"flags": 0x14},
    "URG": {"flags": 0x30},
    "ECE": {"flags": 0x50},
    "CWR": {"flags": 0x90},
    "no ACK": {"flags": 0x00},
}
IP_DIFFERENCES = {
    "another DSCP": {"traffic_class": 0xB8},
    "congestion experienced": {"traffic_class": 0x03},
    "another TTL": {"ttl": 63},
}
FLOW_DIFFERENCES = {
    "another source": {"source": 7},
    "another destination": {"destination": 7},
    "another source port": {"source_port": 7},
    "another destination port": {"destination_port": 7},
}


@over_both_twins
class TestNotMergedAre:
    @BOTH_VERSIONS
    @pytest.mark.parametrize("difference", TCP_DIFFERENCES | IP_DIFFERENCES | FLOW_DIFFERENCES)
    def test_tcp_packets_that_differ_in(self, twin: Twin, version: int, difference: str) -> None:
        first, second = flow(Tcp(version=version, options=TIMESTAMPS), 100, 100)
        changed = replace(second, **(TCP_DIFFERENCES | IP_DIFFERENCES | FLOW_DIFFERENCES)[difference])
        assert merged(twin, first, changed) == [1, 1]
        assert merged(twin, first, second) == [2]

    @BOTH_VERSIONS
    @pytest.mark.parametrize("difference", IP_DIFFERENCES | FLOW_DIFFERENCES)
    def test_udp_packets_that_differ_in(self, twin: Twin, version: int, difference: str) -> None:
        first, second = flow(Udp(version=version), 100, 100)
        changed = replace(second, **(IP_DIFFERENCES | FLOW_DIFFERENCES)[difference])
        assert merged(twin, first, changed) == [1, 1]

    @pytest.mark.parametrize("flags", [0x02, 0x11, 0x14, 0x30, 0x50, 0x90, 0x00])
    def test_tcp_packets_alike_in_odd_flags(self, twin: Twin, flags: int) -> None:
        assert merged(twin, *flow(Tcp(flags=flags), 100, 100)) == [1, 1]

    def test_tcp_packets_with_reserved_bits(self, twin: Twin) -> None:
        assert merged(twin, *(damaged(one, 32, 0x51) for one in flow(Tcp(), 100, 100))) == [1, 1]

    def test_packets_that_differ_in_dont_fragment(self, twin: Twin) -> None:
        first, second = flow(Tcp(), 100, 100)
        assert merged(twin, first, replace(second, dont_fragment=False)) == [1, 1]
        assert merged(twin, *(replace(one, dont_fragment=False) for one in (first, second))) == [2]

    def test_packets_that_differ_in_the_flow_label(self, twin: Twin) -> None:
        first, second = flow(Tcp(version=6), 100, 100)
        assert merged(twin, first, replace(second, flow_label=1)) == [1, 1]

    @BOTH_VERSIONS
    @BOTH_PROTOCOLS
    def test_packets_without_payload(self, twin: Twin, version: int, kind: type[Tcp]) -> None:
        assert merged(twin, *flow(kind(version=version), 0, 0)) == [1, 1]
        assert merged(twin, *flow(kind(version=version), 100, 0)) == [1, 1]

    @BOTH_VERSIONS
    @BOTH_PROTOCOLS
    @pytest.mark.parametrize("wrong", [0, 1, 2])
    def test_packets_with_a_wrong_checksum(self, twin: Twin, version: int, kind: type[Tcp], wrong: int) -> None:
        packets = [one.packet() for one in flow(kind(version=version), 100, 100, 100, 100)]
        packets[wrong] = packets[wrong][:-1] + bytes([packets[wrong][-1] ^ 1])
        expected = {0: [1, 3], 1: [1, 1, 2], 2: [2, 1, 1]}[wrong]
        assert merged(twin, *packets) == expected

    @pytest.mark.parametrize("wrong", [0, 1, 2])
    def test_packets_with_a_wrong_ipv4_header_checksum(self, twin: Twin, wrong: int) -> None:
        packets = [one.packet() for one in flow(Tcp(), 100, 100, 100, 100)]
        packets[wrong] = packets[wrong][:11] + bytes([packets[wrong][11] ^ 1]) + packets[wrong][12:]
        expected = {0: [1, 3], 1: [1, 1, 2], 2: [2, 1, 1]}[wrong]
        assert merged(twin, *packets) == expected

    @BOTH_VERSIONS
    def test_udp_packets_without_a_checksum(self, twin: Twin, version: int) -> None:
        at = 26 if version == 4 else 46
        bare = [one.packet() for one in flow(Udp(version=version), 100, 100, 100)]
        assert merged(twin, *(one[:at] + b"\0\0" + one[at + 2 :] for one in bare)) == [1, 1, 1]
        # Nor one whose words happen to sum up as if zero were its checksum.
        last = without_sum(flow(Udp(version=version), 100, 100)[1])
        assert merged(twin, bare[0], last[:at] + b"\0\0" + last[at + 2 :]) == [1, 1]
        assert merged(twin, bare[0], last) == [2]

    def test_udp_packets_whose_length_lies(self, twin: Twin) -> None:
        first, second = flow(Udp(), 100, 100)
        assert merged(twin, first, damaged(second, 25, 107)) == [1, 1]

    def test_udp_packets_where_the_host_takes_none(self, twin: Twin) -> None:
        assert merged(twin, *flow(Udp(), 100, 100), udp=False) == [1, 1]
        assert merged(twin, *flow(Tcp(), 100, 100), udp=False) == [2]

    @BOTH_PROTOCOLS
    @pytest.mark.parametrize("fragment", [b"\x20\x00", b"\x00\x01", b"\x01\x00", b"\x80\x00"])
    def test_fragments(self, twin: Twin, kind: type[Tcp], fragment: bytes) -> None:
        packets = [one.packet() for one in flow(kind(dont_fragment=False), 100, 100)]
        assert merged(twin, *(with_ipv4_header(one[:6] + fragment + one[8:20], one[20:]) for one in packets)) == [1, 1]
        assert merged(twin, *(with_ipv4_header(one[:20], one[20:]) for one in packets)) == [2]

    @BOTH_PROTOCOLS
    def test_packets_with_ipv4_options(self, twin: Twin, kind: type[Tcp]) -> None:
        packets = [one.packet() for one in flow(kind(), 100, 100)]
        optional = [b"\x46\0" + (len(one) + 4).to_bytes(2, "big") + one[4:20] + b"\x94\x04\0\0" for one in packets]
        made = [with_ipv4_header(header, one[20:]) for header, one in zip(optional, packets, strict=True)]
        assert merged(twin, *made) == [1, 1]

    @BOTH_VERSIONS
    def test_other_protocols(self, twin: Twin, version: int) -> None:
        at = 9 if version == 4 else 6
        packets = [one.packet() for one in flow(Udp(version=version), 100, 100)]
        assert merged(twin, *(one[:at] + b"\x01" + one[at + 1 :] for one in packets)) == [1, 1]

    @pytest.mark.parametrize("words", [0, 1, 4, 7, 8, 15])
    def test_tcp_headers_that_lie_about_their_length(self, twin: Twin, words: int) -> None:
        first = Tcp(payload=bytes(8))
        as_if = replace(first.later(1, 8 + 4 * (5 - words)), payload=bytes(8))
        assert merged(twin, *(damaged(one, 32, words << 4) for one in (first, as_if))) == [1, 1]


def with_ipv4_header(header: bytes, rest: bytes) -> bytes:
    """A packet with this IPv4 header, its checksum made right."""
    bare = header[:10] + bytes(2) + header[12:]
    return header[:10] + rfc1071(bare).to_bytes(2, "big") + header[12:] + rest


def damaged(packet: Ip, at: int, octet: int) -> bytes:
    """The packet with one byte changed and the IPv4 and transport checksums made to fit it."""
    made = bytearray(packet.packet())
    field = 36 if packet.protocol == 6 else 26
    before = made[at]
    made[at] = octet
    delta = (octet - before) * (1 if at % 2 else 256)
    checksum = 0xFFFF - int.from_bytes(made[field : field + 2], "big") + delta
    made[field : field + 2] = (-checksum % 0xFFFF).to_bytes(2, "big")
    return bytes(made)


@over_both_twins
class TestSeveralFlows:
    def test_are_merged_side_by_side(self, twin: Twin) -> None:
        flows = [flow(Tcp(source_port=port), *[1000] * 5) for port in range(8)]
        interleaved = [one for packets in zip(*flows, strict=True) for one in packets]
        assert merged(twin, *interleaved) == [5] * 8

    def test_of_equal_ports_but_other_protocol_are_two(self, twin: Twin) -> None:
        pairs = zip(flow(Tcp(), 100, 100, 100), flow(Udp(), 100, 100, 100), strict=True)
        assert merged(twin, *(one for pair in pairs for one in pair)) == [3, 3]

    def test_take_turns_when_there_are_too_many(self, twin: Twin) -> None:
        flows = [flow(Tcp(source_port=port), *[100] * 3) for port in range(9)]
        interleaved = [one for packets in zip(*flows, strict=True) for one in packets]
        assert merged(twin, *interleaved) == [1] * 27
        assert merged(twin, *flows[0][:1], *interleaved[1:8], *flows[0][1:2]) == [2] + [1] * 7

    def test_do_not_mind_packets_of_another_that_are_not_merged(self, twin: Twin) -> None:
        bulk, answers = flow(Tcp(), *[1000] * 6), flow(Tcp(source=2, destination=1), 0, 0, 0)
        assert merged(twin, bulk[0], answers[0], *bulk[1:4], answers[1], *bulk[4:], answers[2]) == [6, 1, 1, 1]

    def test_keep_the_order_of_each(self, twin: Twin) -> None:
        bulk = flow(Tcp(), *[1000] * 4)
        finish = replace(bulk[2], flags=0x11)
        frames = collect(twin.coalescer(CAPACITY, True), [one.packet() for one in (*bulk[:2], finish, bulk[3])])
        assert [segments(frame)[-1] for frame in frames] == [bulk[1].packet(), finish.packet(), bulk[3].packet()]

    def test_all_end_at_a_packet_of_no_flow(self, twin: Twin) -> None:
        a, b = flow(Tcp(), 100, 100, 100), flow(Udp(), 100, 100, 100)
        ping = Udp(payload=b"ping").packet()
        ping = ping[:9] + b"\x01" + ping[10:]
        assert merged(twin, a[0], b[0], a[1], b[1], ping, a[2], b[2]) == [2, 2, 1, 1, 1]


@over_both_twins
class TestTheArena:
    def test_of_less_than_a_train_is_refused(self, twin: Twin) -> None:
        with pytest.raises(ValueError, match="train"):
            twin.coalescer(65535, True)

    @pytest.mark.parametrize("capacity", [1 << 16, 1 << 17, 1 << 18, 9 << 16, 1 << 20])
    def test_has_room_for_a_whole_train_whenever_it_says_so(self, twin: Twin, capacity: int) -> None:
        coalescer = twin.coalescer(capacity, True)
        trains = 0
        flows = [Tcp(source_port=port, payload=bytes(1300)) for port in range(47)]
        assert coalescer.room()
        while coalescer.room():
            buffer, stride, lengths = train([one.packet() for one in flows])
            assert len(buffer) <= 65535
            assert coalescer.add(buffer, 0, len(buffer), stride, lengths) == 0
            trains += 1
        assert 1 <= trains <= capacity >> 15
        assert len(coalescer.flush()) == 47 * trains
        assert coalescer.room()

    def test_never_overflows(self, twin: Twin) -> None:
        coalescer = twin.coalescer(1 << 16, True)
        sizes = [1000] * 65
        buffer, stride, lengths = train([one.packet() for one in flow(Tcp(), *sizes)])
        other, other_stride, other_lengths = train([Udp(payload=bytes(1000)).packet()] * 65)
        assert coalescer.add(buffer, 0, len(buffer), stride, lengths) == 0
        assert coalescer.add(other, 0, len(other), other_stride, other_lengths) == 65
        ((start, end),) = coalescer.flush()
        assert (start, end) == (0, 50 + 65 * 1000)

    def test_is_filled_to_the_last_byte(self, twin: Twin) -> None:
        for length, dropped in ((65536 - 10, 0), (65536 - 9, 1)):
            coalescer = twin.coalescer(1 << 16, True)
            packet = Tcp(payload=bytes(length - 40), flags=0x11).packet()
            buffer, stride, lengths = train([packet])
            assert coalescer.add(buffer, 0, len(buffer), stride, lengths) == dropped
            assert coalescer.flush() == ([] if dropped else [(0, 65536)])

    def test_stays_valid_until_the_next_train(self, twin: Twin) -> None:
        coalescer = twin.coalescer(CAPACITY, True)
        packet = Tcp(payload=b"abc").packet()
        assert collect(coalescer, [packet]) == [NO_OFFLOAD + packet]
        assert bytes(coalescer.frames[10 : 10 + len(packet)]) == packet
        assert coalescer.flush() == []


@over_both_twins
class TestATrain:
    def test_is_read_where_it_lies(self, twin: Twin) -> None:
        packets = [one.packet() for one in flow(Tcp(), 500, 500, 77)]
        buffer, stride, lengths = train(packets)
        coalescer = twin.coalescer(CAPACITY, True)
        end = 33 + len(buffer) - stride + 32 + len(packets[2])
        assert coalescer.add(bytearray(33) + buffer, 33, end, stride, lengths) == 0
        ((start, end),) = coalescer.flush()
        assert segments(bytes(coalescer.frames[start:end])) == packets

    def test_may_have_holes(self, twin: Twin) -> None:
        packets = [one.packet() for one in flow(Tcp(), 500, 500, 500)]
        buffer, stride, lengths = train([packets[0], bytes(540), packets[1], bytes(540), packets[2]])
        lengths[1], lengths[3] = 0, -1
        coalescer = twin.coalescer(CAPACITY, True)
        assert coalescer.add(buffer, 0, len(buffer), stride, lengths) == 0
        assert len(coalescer.flush()) == 1

    @pytest.mark.parametrize("packet", [
        b"\x45", bytes(60), b"\x50" + bytes(59), Tcp().packet()[:19], Tcp().packet()[:-1], Tcp(version=6).packet()[:39],
        Udp(version=6, payload=b"1").packet()[:-1], b"\x44" + Tcp().packet()[1:], b"\x4f" + Tcp().packet()[1:],
    ], ids=bytes.hex)  # fmt: skip
    def test_drops_malformed_packets_and_counts_them(self, twin: Twin, packet: bytes) -> None:
        buffer, stride, lengths = train([packet, Tcp().packet(), packet])
        coalescer = twin.coalescer(CAPACITY, True)
        assert coalescer.add(buffer, 0, len(buffer), stride, lengths) == 2
        assert len(coalescer.flush()) == 1

    def test_drops_what_does_not_fit_its_slot(self, twin: Twin) -> None:
        buffer, stride, lengths = train([one.packet() for one in flow(Tcp(), 100, 100, 100)])
        for slot in range(3):
            coalescer = twin.coalescer(CAPACITY, True)
            too_long = lengths[:]
            too_long[slot] += 1
            assert coalescer.add(buffer, 0, len(buffer), stride, too_long) == 1
            too_long[slot] = 2**31 - 1
            assert coalescer.add(buffer, 0, len(buffer), stride, too_long) == 1

    def test_is_not_read_beyond_the_lengths_it_comes_with(self, twin: Twin) -> None:
        buffer, stride, lengths = train([one.packet() for one in flow(Tcp(), 100, 100, 100)])
        lengths[1] -= 1
        coalescer = twin.coalescer(CAPACITY, True)
        assert coalescer.add(buffer, 0, len(buffer), stride, lengths) == 1
        assert len(coalescer.flush()) == 2

    def test_that_is_none_is_the_callers_fault(self, twin: Twin) -> None:
        buffer, stride, lengths = train([Tcp().packet()] * 3)
        coalescer = twin.coalescer(CAPACITY, True)
        for at, end, step in ((0, len(buffer) + 1, stride), (-1, 9, stride), (9, 8, stride), (0, 9, 0), (0, 9, -1)):
            with pytest.raises(ValueError, match="outside"):
                coalescer.add(buffer, at, end, step, lengths)
        for wrong in (lengths[:2], array("q", lengths), array("I", lengths)):
            with pytest.raises(ValueError, match="lengths"):
                coalescer.add(buffer, 0, len(buffer), stride, wrong)
        assert coalescer.add(buffer, 0, 0, stride, lengths) == 0
        assert coalescer.flush() == []


wholes = st.builds(
    lambda kind, extra, **fields: kind(**fields, **(extra if kind is Tcp else {})),
    st.sampled_from([Tcp, Udp]),
    st.fixed_dictionaries({
        "sequence": st.one_of(st.integers(0, 2**32 - 1), st.integers(2**32 - 5000, 2**32 - 1)),
        "flags": st.sampled_from([0x10, 0x18]),
        "options": st.integers(0, 10).map(lambda words: bytes(range(4 * words))),
        "window": st.integers(0, 0xFFFF),
    }),
    version=st.sampled_from([4, 6]),
    payload=st.integers(2, 6000).map(lambda size: bytes(i * 17 & 0xFF for i in range(size))),
    identification=st.one_of(st.integers(0, 0xFFFF), st.integers(0xFFF0, 0xFFFF)),
    traffic_class=st.integers(0, 255),
    dont_fragment=st.booleans(),
    source_port=st.integers(0, 0xFFFF),
)  # fmt: skip


@over_both_twins
@given(whole=wholes, gso_size=st.integers(100, 3000), at=st.integers(0, 40))
def test_what_was_split_is_coalesced_to_what_it_was(twin: Twin, whole: Tcp | Udp, gso_size: int, at: int) -> None:
    frame = whole.super_frame(gso_size)
    buffer = bytearray(1 << 16)
    count, stride, end = twin.split(frame, len(frame), buffer, at, 1420)
    lengths = array("i", [stride - 32] * (count - 1) + [end - at - (count - 1) * stride - 32])
    coalescer = twin.coalescer(CAPACITY, True)
    assert coalescer.add(buffer, at, end, stride, lengths) == 0
    ((start, stop),) = coalescer.flush()
    made = bytes(coalescer.frames[start:stop])
    assert made == (frame if count > 1 else NO_OFFLOAD + whole.packet())


steps = st.lists(
    st.tuples(
        st.integers(0, 3),  # the flow
        st.sampled_from([100, 100, 100, 100, 37, 140, 0]),
        st.sampled_from([{}] * 12 + [
            {"flags": 0x18}, {"flags": 0x11}, {"flags": 0x50}, {"ttl": 9}, {"traffic_class": 3}, {"window": 1},
            {"identification": 7}, {"sequence": 5}, {"dont_fragment": False}, {"options": TIMESTAMPS}, {"urgent": 2},
            {"flow_label": 5},
        ]),
        st.one_of(st.none(), st.none(), st.none(), st.none(), st.tuples(st.integers(0, 70), st.integers(1, 255))),
    ),
    max_size=60,
)  # fmt: skip
KINDS = (Tcp(), Tcp(version=6), Udp(source_port=9), Udp(version=6, source_port=9))


def traffic(script: list[tuple[int, int, dict[str, int], tuple[int, int] | None]]) -> list[bytes]:
    """Packets of a few flows, most of them in order, some of them odd and some damaged."""
    packets, state = [], dict.fromkeys(range(len(KINDS)), (0, 0))
    for number, size, oddity, damage in script:
        count, sent = state[number]
        one = replace(KINDS[number].later(count, sent), payload=bytes((sent + i) & 0xFF for i in range(size)))
        fields = {name: value for name, value in oddity.items() if hasattr(one, name)}
        packet = bytearray(replace(one, **fields).packet())
        if damage and damage[0] < len(packet):
            packet[damage[0]] ^= damage[1]
        packets.append(bytes(packet))
        state[number] = (count + 1, sent + size)
    return packets


def conversation(packet: bytes) -> bytes:
    """What a packet has in common with those that it must stay in order with, at least."""
    if packet[0] >> 4 == 4:
        return packet[9:10] + packet[12:20] + (packet[20:24] if packet[0] == 0x45 and not packet[6] & 0x3F else b"")
    return packet[6:7] + packet[8:44]


@over_both_twins
@given(script=steps, cuts=st.lists(st.integers(0, 60), max_size=3), udp=st.booleans())
def test_no_packet_is_changed_lost_or_overtaken_by_one_of_its_flow(
    twin: Twin, script: list[tuple[int, int, dict[str, int], tuple[int, int] | None]], cuts: list[int], udp: bool
) -> None:
    sent = [one for one in traffic(script) if PURE.coalesce.packet_length(one, 0, len(one)) == len(one)]
    bounds = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
    trains = [sent[start:end] for start, end in pairwise(bounds)]
    received = [one for frame in collect(twin.coalescer(CAPACITY, udp), *trains) for one in segments(frame)]
    queues = defaultdict(list)
    for one in sent:
        queues[conversation(one)].append(one)
    for one in received:
        queue = queues[conversation(one)]
        expected = queue.pop(0)
        # A run that kept one identification is renumbered; it has DF, so that nobody needs the number.
        assert one == expected or (one[6] & 0x40 and one[:4] + one[12:] == expected[:4] + expected[12:])
    assert not any(queues.values())


@needs_both_twins
@given(script=steps, udp=st.booleans(), capacity=st.sampled_from([1 << 16, 1 << 18, 1 << 20]))
def test_both_twins_make_the_same_of_odd_traffic(
    script: list[tuple[int, int, dict[str, int], tuple[int, int] | None]], udp: bool, capacity: int
) -> None:
    assert COMPILED is not None
    packets = traffic(script) or [b"E"]
    buffer, stride, lengths = train(packets, padding=3)
    assert outcome(PURE, capacity, udp, buffer, stride, lengths) == outcome(
        COMPILED, capacity, udp, buffer, stride, lengths
    )


@needs_both_twins
@given(
    data=st.lists(st.one_of(st.binary(max_size=90), st.sampled_from([one.packet() for one in KINDS])), max_size=9),
    stride=st.integers(1, 120),
    lengths=st.lists(st.integers(-3, 200), min_size=1, max_size=10),
)
def test_both_twins_make_the_same_of_any_bytes(data: list[bytes], stride: int, lengths: list[int]) -> None:
    assert COMPILED is not None
    buffer, items = b"".join(data), array("i", lengths * 1000)
    assert outcome(PURE, 1 << 16, True, buffer, stride, items) == outcome(
        COMPILED, 1 << 16, True, buffer, stride, items
    )


def outcome(
    twin: Twin, capacity: int, udp: bool, buffer: bytes, stride: int, lengths: array[int]
) -> tuple[int, int, bool, bool, list[tuple[int, int]], list[bytes]]:
    """All that can be seen of a coalescer that takes a train twice."""
    coalescer = twin.coalescer(capacity, udp)
    dropped = coalescer.add(buffer, 0, len(buffer), stride, lengths)
    between = coalescer.room()
    again = coalescer.add(buffer, 0, len(buffer), stride, lengths)
    room, spans = coalescer.room(), coalescer.flush()
    return dropped, again, between, room, spans, [bytes(coalescer.frames[start:end]) for start, end in spans]
