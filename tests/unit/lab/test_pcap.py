from __future__ import annotations

import pytest

from warren.lab import pcap


def one_file() -> bytes:
    packets = [(1_700_000_000_123_456_789, b"first", 5), (1_700_000_001_000_000_001, b"cut", 1500)]
    records = [pcap.record_header(at, len(data), original) + data for at, data, original in packets]
    return pcap.file_header(pcap.LINKTYPE_RAW, 65535) + b"".join(records)


def test_the_file_header_is_the_one_of_the_format() -> None:
    # draft-ietf-opsawg-pcap §4: magic, version 2.4, two reserved words, snapshot length, link type
    expected = "4d3cb2a1 0200 0400 00000000 00000000 ffff0000 65000000"
    assert pcap.file_header(pcap.LINKTYPE_RAW, 65535) == bytes.fromhex(expected)


def test_records_are_read_as_they_were_written() -> None:
    assert list(pcap.records(one_file())) == [
        pcap.Record(1_700_000_000_123_456_789, 5, b"first"),
        pcap.Record(1_700_000_001_000_000_001, 1500, b"cut"),
    ]


def test_a_file_that_ends_in_the_middle_of_a_record_gives_those_before() -> None:
    for length in range(len(one_file()) - 18, len(one_file())):
        assert [record.packet for record in pcap.records(one_file()[:length])] == [b"first"]


@pytest.mark.parametrize("data", [b"", b"\xd4\xc3\xb2\xa1" + bytes(20), b"\n\r\r\n" + bytes(40)])
def test_another_format_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="pcap"):
        list(pcap.records(data))
