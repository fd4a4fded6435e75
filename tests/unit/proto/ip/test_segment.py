"""Cutting what the host hands over into slots of a train, the same in both twins."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.flows import NO_OFFLOAD, Ip, Tcp, Udp, without_sum
from tests.support.packets import rfc1071
from tests.support.twins import COMPILED, PURE, Twin, needs_both_twins, over_both_twins

MALFORMED, NO_ROOM = -1, -2
MTU = 1420
UNTOUCHED = 0xA5
TIMESTAMPS = b"\x01\x01\x08\x0a" + b"12345678"


def slots(twin: Twin, frame: bytes, mtu: int = MTU, at: int = 7, room: int = 1 << 17) -> list[bytes]:
    """Split a frame; return its slots' insides (packet and padding), after a check that nothing else was written."""
    out = bytearray([UNTOUCHED]) * (at + room)
    count, stride, end = twin.split(frame, len(frame), out, at, mtu)
    assert count > 0
    assert set(out[:at] + out[end:]) <= {UNTOUCHED}
    found = [bytes(out[start : min(start + stride, end)]) for start in range(at, end, stride)]
    assert len(found) == count
    assert all(set(slot[:16]) == {UNTOUCHED} == set(slot[-16:]) for slot in found)
    return [slot[16:-16] for slot in found]


def padded(packet: bytes, mtu: int = MTU) -> bytes:
    return packet + bytes(min(-len(packet) % 16, max(mtu - len(packet), 0)))


@over_both_twins
class TestASinglePacket:
    @pytest.mark.parametrize("version", [4, 6])
    @pytest.mark.parametrize("size", [0, 1, 11, 12, 13, 1000])
    def test_goes_into_one_slot_as_it_is(self, twin: Twin, version: int, size: int) -> None:
        packet = Udp(version=version, payload=bytes(range(256)) * 4).packet()[: 48 + size]
        assert slots(twin, NO_OFFLOAD + packet) == [padded(packet)]

    @pytest.mark.parametrize(("length", "mtu", "filled"), [
        (1419, 1420, 1420), (1420, 1420, 1420), (1500, 1420, 1500), (100, 1420, 112), (100, 0, 100), (112, 1420, 112),
    ])  # fmt: skip
    def test_is_padded_but_not_beyond_the_mtu(self, twin: Twin, length: int, mtu: int, filled: int) -> None:
        packet = Tcp(payload=b"\xff" * (length - 40)).packet()
        assert slots(twin, NO_OFFLOAD + packet, mtu) == [packet + bytes(filled - length)]

    @pytest.mark.parametrize("version", [4, 6])
    @pytest.mark.parametrize("size", [1, 2, 3, 700, 1301])
    def test_has_its_checksum_completed(self, twin: Twin, version: int, size: int) -> None:
        for packet in (Tcp(version=version, payload=b"\x5a" * size), Udp(version=version, payload=b"\xa5" * size)):
            frame = packet.frame(0, 0)
            assert slots(twin, frame) == [padded(packet.packet())]

    def test_never_says_that_udp_has_no_checksum(self, twin: Twin) -> None:
        packet = Udp(payload=b"odd one out!")
        complete = without_sum(packet)
        frame = packet.frame(0, 0)[:-2] + complete[-2:]
        assert complete[26:28] == b"\xff\xff"
        assert slots(twin, frame) == [padded(complete)]

    def test_fills_the_room_to_the_last_byte_or_writes_nothing(self, twin: Twin) -> None:
        frame = NO_OFFLOAD + Tcp(payload=bytes(8)).packet()
        exact = bytearray(b"\xa5" * 90)
        assert twin.split(frame, len(frame), exact, 10, MTU) == (1, 80, 90)
        short = bytearray(b"\xa5" * 89)
        assert twin.split(frame, len(frame), short, 10, MTU) == (0, NO_ROOM, 10)
        assert set(short) == {UNTOUCHED}

    def test_beyond_65535_bytes_is_refused(self, twin: Twin) -> None:
        for length, count in ((65535, 1), (65536, 0)):
            frame = NO_OFFLOAD + Udp(version=6, payload=bytes(65480)).packet()[:88] + bytes(length - 88)
            assert twin.split(frame, len(frame), bytearray(1 << 17), 0, MTU)[0] == count

    def test_may_have_its_checksum_anywhere_behind_the_ip_header(self, twin: Twin) -> None:
        packet = bytearray(Udp(payload=b"sctp, say, or GRE").packet())
        frame = struct.pack("=BBHHHH", 1, 0, 0, 0, 24, 10) + packet
        packet[34:36] = rfc1071(bytes(packet[24:])).to_bytes(2, "big")
        assert slots(twin, frame) == [padded(bytes(packet))]

    @pytest.mark.parametrize(("start", "offset"), [(19, 0), (0, 16), (20, 27), (46, 1), (0xFFFF, 0xFFFF), (47, 0)])
    def test_is_refused_if_the_checksum_lies_outside(self, twin: Twin, start: int, offset: int) -> None:
        packet = Udp(payload=bytes(20)).packet()
        out = bytearray(200)
        frame = struct.pack("=BBHHHH", 1, 0, 0, 0, start, offset) + packet
        assert twin.split(frame, len(frame), out, 5, MTU) == (0, MALFORMED, 5)
        assert not any(out)


MALFORMATIONS = {
    "no segment size": (4, b"\0\0"),
    "unknown type": (1, b"\x02"),
    "TCPv6 in IPv4": (1, b"\x04"),
    "UDP in TCP": (1, b"\x05"),
    "checksum start before the transport header": (6, struct.pack("=H", 16)),
    "checksum start behind the transport header": (6, struct.pack("=H", 24)),
    "IPv4 header of 16 bytes": (10, b"\x44"),
    "IPv4 header of 24 bytes": (10, b"\x46"),
    "version 5": (10, b"\x55"),
    "a fragment": (16, b"\x20"),
    "a later fragment": (17, b"\x01"),
    "another protocol": (19, b"\x11"),
    "TCP header of 16 bytes": (42, b"\x40"),
}


@over_both_twins
class TestASuperPacket:
    @pytest.mark.parametrize("version", [4, 6])
    @pytest.mark.parametrize("size", [1, 999, 1000, 1001, 2000, 45_678])
    @pytest.mark.parametrize("gso_size", [1000, 501])
    def test_of_tcp_is_cut_as_the_kernel_would(self, twin: Twin, version: int, size: int, gso_size: int) -> None:
        whole = Tcp(version=version, payload=bytes(i * 7 & 0xFF for i in range(size)), flags=0x18, options=TIMESTAMPS)
        expected = [padded(one.packet()) for one in whole.cut(gso_size)]
        assert slots(twin, whole.super_frame(gso_size)) == expected

    @pytest.mark.parametrize("version", [4, 6])
    @pytest.mark.parametrize("size", [1, 999, 1000, 1001, 45_678])
    def test_of_udp_is_cut_as_the_kernel_would(self, twin: Twin, version: int, size: int) -> None:
        whole = Udp(version=version, payload=bytes(i * 11 & 0xFF for i in range(size)), traffic_class=0xB9)
        expected = [padded(one.packet()) for one in whole.cut(1000)]
        assert slots(twin, whole.super_frame(1000)) == expected

    def test_never_says_that_udp_has_no_checksum(self, twin: Twin) -> None:
        complete = without_sum(Udp(payload=b"odd one out!"))
        whole = Udp(payload=complete[-12:])
        assert slots(twin, whole.super_frame(1000)) == [padded(complete)]

    def test_wraps_sequence_and_identification(self, twin: Twin) -> None:
        whole = Tcp(payload=bytes(5000), sequence=0xFFFFFFFF - 1500, identification=0xFFFE)
        assert slots(twin, whole.super_frame(1000)) == [padded(one.packet()) for one in whole.cut(1000)]

    @pytest.mark.parametrize("flags", [0x19, 0x90, 0xD9, 0xFF])
    def test_keeps_fin_and_push_for_the_last_and_cwr_for_the_first(self, twin: Twin, flags: int) -> None:
        whole = Tcp(payload=bytes(2500), flags=flags)
        frame = bytearray(whole.super_frame(1000))
        frame[1] |= 0x80  # VIRTIO_NET_HDR_GSO_ECN
        assert slots(twin, bytes(frame)) == [padded(one.packet()) for one in whole.cut(1000)]

    def test_keeps_ipv4_options_on_every_segment(self, twin: Twin) -> None:
        whole = Tcp(payload=bytes(2500))
        frame = whole.super_frame(1000)
        options = b"\x94\x04\0\0"
        frame = struct.pack("=BBHHHH", 1, 1, 44, 1000, 24, 16) + b"\x46" + frame[11:30] + options + frame[30:]
        for found, one in zip(slots(twin, frame), whole.cut(1000), strict=True):
            plain = one.packet()
            header = bytearray(b"\x46" + plain[1:20] + options)
            header[2:4] = (len(plain) + 4).to_bytes(2, "big")
            header[10:12] = bytes(2)
            header[10:12] = rfc1071(bytes(header)).to_bytes(2, "big")
            assert found == padded(bytes(header) + plain[20:])

    def test_keeps_ipv6_options_on_every_segment(self, twin: Twin) -> None:
        whole = Tcp(version=6, payload=bytes(2500))
        frame = whole.super_frame(1000)
        options = b"\x06\0" + b"\x01\x04\0\0\0\0"
        frame = (
            struct.pack("=BBHHHH", 1, 4, 68, 1000, 48, 16) + frame[10:16] + b"\0" + frame[17:50] + options + frame[50:]
        )
        for found, one in zip(slots(twin, frame), whole.cut(1000), strict=True):
            plain = one.packet()
            length = (len(plain) - 40 + 8).to_bytes(2, "big")
            assert found == padded(plain[:4] + length + b"\0" + plain[7:40] + options + plain[40:])

    def test_may_claim_any_header_length(self, twin: Twin) -> None:
        whole = Tcp(payload=bytes(2500), options=TIMESTAMPS)
        frame = bytearray(whole.super_frame(1000))
        for claimed in (0, 54, 0xFFFF):
            frame[2:4] = struct.pack("=H", claimed)
            assert slots(twin, bytes(frame)) == [padded(one.packet()) for one in whole.cut(1000)]

    def test_fills_the_room_to_the_last_byte_or_writes_nothing(self, twin: Twin) -> None:
        frame = Tcp(payload=bytes(2500)).super_frame(1000)
        out = bytearray(b"\xa5" * 4000)
        count, stride, end = twin.split(frame, len(frame), out, 100, MTU)
        assert (count, stride, end) == (3, 16 + 1040 + 16, 100 + 2 * (16 + 1040 + 16) + 16 + 544 + 16)
        exact = bytearray(b"\xa5" * end)
        assert twin.split(frame, len(frame), exact, 100, MTU) == (count, stride, end)
        short = bytearray(b"\xa5" * (end - 1))
        assert twin.split(frame, len(frame), short, 100, MTU) == (0, NO_ROOM, 100)
        assert set(short) == {0xA5}

    def test_of_the_greatest_size_is_cut(self, twin: Twin) -> None:
        whole = Tcp(payload=bytes(65535 - 40))
        assert len(slots(twin, whole.super_frame(1380))) == 48

    @pytest.mark.parametrize("malformation", MALFORMATIONS)
    def test_that_contradicts_itself_is_refused(self, twin: Twin, malformation: str) -> None:
        at, octets = MALFORMATIONS[malformation]
        frame = bytearray(Tcp(payload=bytes(2500)).super_frame(1000))
        frame[at : at + len(octets)] = octets
        out = bytearray(5000)
        assert twin.split(frame, len(frame), out, 0, MTU) == (0, MALFORMED, 0)
        assert not any(out)

    @pytest.mark.parametrize("whole", [Tcp(), Tcp(version=6), Udp(), Udp(version=6)], ids=repr)
    def test_without_a_payload_or_a_whole_header_is_refused(self, twin: Twin, whole: Tcp | Udp) -> None:
        frame = whole.super_frame(1000)
        for length in range(len(frame) + 1):
            assert twin.split(frame, length, bytearray(200), 3, MTU) == (0, MALFORMED, 3)


@over_both_twins
class TestAnyFrame:
    def test_outside_its_buffer_is_the_callers_fault(self, twin: Twin) -> None:
        frame = Tcp().super_frame(1000)
        for length, at, mtu in ((len(frame) + 1, 0, MTU), (-1, 0, MTU), (10, -1, MTU), (10, 101, MTU), (10, 0, -1)):
            with pytest.raises(ValueError, match="outside"):
                twin.split(frame, length, bytearray(100), at, mtu)

    @given(
        header=st.builds(
            struct.pack,
            st.just("=BBHHHH"),
            st.sampled_from([0, 1, 255]),
            st.sampled_from([0, 1, 4, 5, 0x81, 0x84, 3]),
            st.integers(0, 0xFFFF),
            st.integers(0, 300),
            st.sampled_from([0, 20, 40, 48, 60, 99]),
            st.sampled_from([0, 6, 16, 0xFFFF]),
        ),
        start=st.sampled_from(
            [b"", b"\x45", b"\x46", b"\x60", *(p.packet()[:66] for p in (Tcp(), Tcp(version=6), Udp()))]
        ),
        rest=st.binary(max_size=400),
        at=st.integers(0, 40),
        room=st.integers(0, 2000),
        mtu=st.sampled_from([0, 100, 1420]),
    )
    def test_writes_only_where_it_says(
        self, twin: Twin, header: bytes, start: bytes, rest: bytes, at: int, room: int, mtu: int
    ) -> None:
        frame = header + start + rest
        out = bytearray([UNTOUCHED]) * (at + room + 50)
        with memoryview(out)[: at + room] as view:
            count, stride, end = twin.split(frame, len(frame), view, at, mtu)
        if count == 0:
            assert end == at
            assert stride in (MALFORMED, NO_ROOM)
        else:
            assert (count - 1) * stride < end - at <= count * stride
            assert end <= at + room
        assert set(out[:at] + out[end:]) <= {UNTOUCHED}


packets = st.one_of(
    st.builds(
        Tcp,
        version=st.sampled_from([4, 6]),
        payload=st.binary(min_size=1, max_size=3000),
        sequence=st.integers(0, 2**32 - 1),
        identification=st.integers(0, 0xFFFF),
        flags=st.integers(0, 255),
        options=st.integers(0, 10).map(lambda words: bytes(range(4 * words))),
        traffic_class=st.integers(0, 255),
        urgent=st.integers(0, 0xFFFF),
    ),
    st.builds(
        Udp,
        version=st.sampled_from([4, 6]),
        payload=st.binary(min_size=1, max_size=3000),
        identification=st.integers(0, 0xFFFF),
        dont_fragment=st.booleans(),
    ),
)


@over_both_twins
@given(whole=packets, gso_size=st.integers(60, 3100), mtu=st.integers(0, 1600))
def test_every_super_packet_is_cut_into_what_it_stands_for(
    twin: Twin, whole: Tcp | Udp, gso_size: int, mtu: int
) -> None:
    frame = whole.super_frame(gso_size)
    assert slots(twin, frame, mtu) == [padded(one.packet(), mtu) for one in whole.cut(gso_size)]


@needs_both_twins
@given(
    whole=packets,
    gso_size=st.integers(1, 2000),
    at=st.integers(0, 90),
    octets=st.binary(max_size=3),
    mtu=st.integers(0, 2000),
)
def test_both_twins_make_the_same_of_a_damaged_frame(
    whole: Ip, gso_size: int, at: int, octets: bytes, mtu: int
) -> None:
    assert COMPILED is not None
    frame = bytearray(replace(whole).super_frame(gso_size))  # type: ignore[attr-defined]
    frame[at : at + len(octets)] = octets
    results = []
    for twin in (PURE, COMPILED):
        out = bytearray(60_000)
        results.append((twin.split(frame, len(frame), out, 9, mtu), out))
    assert results[0] == results[1]
