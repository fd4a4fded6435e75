"""Packets of TFTP, as far as a helper looks at them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.errors import MalformedPacket
from warren.proto import tftp


def test_requests_have_a_file_a_mode_and_options() -> None:
    assert tftp.request_untrusted(b"\0\1boot.img\0Octet\0") == tftp.Request(False, b"boot.img", b"octet", ())
    request = tftp.request_untrusted(b"\0\2a\0netascii\0blksize\0001428\0tsize\0000\0")
    assert request.write
    assert request.options == ((b"blksize", b"1428"), (b"tsize", b"0"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\0\1",
        b"\0\1\0",
        b"\0\1a\0",
        b"\0\1a\0octet",
        b"\0\1\0octet\0",
        b"\0\1a\0binary\0",
        b"\0\1a\0octet\0blksize\0",
        b"\0\3a\0octet\0",
        b"\1\1a\0octet\0",
        b"\0\1" + b"a" * 504 + b"\0octet\0",
    ],
)
def test_what_does_not_begin_a_transfer_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedPacket):
        tftp.request_untrusted(data)


def test_a_transfer_has_data_acknowledgements_errors_and_from_the_server_options() -> None:
    for from_server in (False, True):
        for opcode in (tftp.DATA, tftp.ACK, tftp.ERROR):
            assert tftp.transfer_opcode_untrusted(bytes((0, opcode, 0, 1)), from_server=from_server) == opcode
    assert tftp.transfer_opcode_untrusted(b"\0\6blksize\x008\0", from_server=True) == tftp.OACK


@pytest.mark.parametrize("data", [b"", b"\0\3", b"\0\3\0", b"\0\1ab", b"\0\2ab", b"\0\6ab", b"\0\7ab", b"\1\3ab"])
def test_a_client_sends_nothing_else_during_a_transfer(data: bytes) -> None:
    with pytest.raises(MalformedPacket):
        tftp.transfer_opcode_untrusted(data, from_server=False)


def test_no_packet_is_longer_than_the_largest_block() -> None:
    assert tftp.transfer_opcode_untrusted(b"\0\3\0\1" + bytes(65_464), from_server=True) == tftp.DATA
    with pytest.raises(MalformedPacket):
        tftp.transfer_opcode_untrusted(b"\0\3\0\1" + bytes(65_465), from_server=True)


def test_an_error_is_no_longer_than_it_may_be() -> None:
    assert tftp.error("no", bytes_max=99) == b"\0\5\0\0no\0"
    assert tftp.error("refused: nobody", bytes_max=12) == b"\0\5\0\0refused\0"
    assert tftp.error("é", bytes_max=12) == b"\0\5\0\0?\0"


@given(st.binary(max_size=600), st.booleans())
def test_whatever_comes_is_parsed_or_malformed(data: bytes, from_server: bool) -> None:
    for prefix in (b"", b"\0\1"):
        try:
            request = tftp.request_untrusted(prefix + data)
        except MalformedPacket:
            continue
        assert request.filename
    try:
        opcode = tftp.transfer_opcode_untrusted(data, from_server=from_server)
    except MalformedPacket:
        return
    assert opcode == data[1]
