"""Lines of a control connection, whatever pieces they come in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.errors import MalformedPacket
from warren.proto.ftp.lines import COMMAND_BYTES_MAX, DISCARDED_BYTES_MAX, Line, Lines


def lines(*pieces: bytes, telnet: bool = True) -> list[Line]:
    taker = Lines(telnet=telnet)
    return [line for piece in pieces for line in taker.take_untrusted(piece)]


def test_lines_end_at_lf_with_or_without_cr() -> None:
    assert lines(b"NOOP\r\nPWD\nQUIT\r\n") == [Line(b"NOOP"), Line(b"PWD"), Line(b"QUIT")]


def test_a_line_may_come_byte_by_byte() -> None:
    assert lines(*(bytes([byte]) for byte in b"USER a\r\nNO")) == [Line(b"USER a")]


def test_a_line_that_readers_would_cut_differently_is_broken() -> None:
    assert lines(b"RETR a\rPORT 1,2,3,4,5,6\r\n") == [Line(b"RETR a\rPORT 1,2,3,4,5,6", broken=True)]
    assert lines(b"RETR a\0b\r\n") == [Line(b"RETR a\0b", broken=True)]
    assert lines(b"RETR a\r\0\r\n")[0].broken


def test_a_line_that_is_too_long_is_broken_and_the_next_is_well() -> None:
    for taken in (
        lines(b"A" * (COMMAND_BYTES_MAX + 1) + b"\nNOOP\n"),
        lines(*[b"A" * 4096] * 3, b"A\n", b"NOOP\n"),
        lines(b"A" * (COMMAND_BYTES_MAX + 1), b"\nNOOP\n"),
    ):
        assert taken == [Line(b"", broken=True), Line(b"NOOP")]
    assert lines(b"A" * COMMAND_BYTES_MAX + b"\r\n") == [Line(b"A" * COMMAND_BYTES_MAX)]


def test_a_line_that_never_ends_is_given_up_and_not_kept() -> None:
    taker = Lines(telnet=True)
    for _ in range(DISCARDED_BYTES_MAX // 65_536):
        assert taker.take_untrusted(b"A" * 65_536) == []
    with pytest.raises(MalformedPacket):
        taker.take_untrusted(b"A" * 65_536)


def test_telnet_commands_are_taken_out() -> None:
    assert lines(b"\xff\xf4\xff\xf2ABOR\r\n") == [Line(b"ABOR")]
    assert lines(b"\xff\xf4\xffABOR\r\n") == [Line(b"ABOR")]  # the urgent byte was lost on the way
    assert lines(b"NO\xff\xf1OP\r\n") == [Line(b"NOOP")]


def test_an_interruption_is_told_of_once() -> None:
    taker = Lines(telnet=True)
    taker.take_untrusted(b"\xff\xfd\x01NOOP \xff\xff\r\n")
    assert not taker.take_interruption()
    taker.take_untrusted(b"\xff\xf4\xffABOR\r\n")
    assert taker.take_interruption()
    assert not taker.take_interruption()


def test_the_byte_255_stays_doubled() -> None:
    assert lines(b"RETR \xff\xff\r\n") == [Line(b"RETR \xff\xff")]


def test_telnet_options_are_refused() -> None:
    taker = Lines(telnet=True)
    sent = b"\xff\xfd\x01\xff\xfb\x03\xff\xfc\x05\xff\xfe\x06NOOP\r\n"
    assert taker.take_untrusted(sent) == [Line(b"NOOP")]
    assert taker.take_refusals() == b"\xff\xfc\x01\xff\xfe\x03"
    assert taker.take_refusals() == b""


@given(st.lists(st.sampled_from([b"\xff", b"\xff\xfd", b"\xfd\x01", b"\xf4", b"A", b"\r", b"\n", b"\0"]), max_size=30))
def test_how_the_bytes_are_cut_makes_no_difference(pieces: list[bytes]) -> None:
    whole, cut = Lines(telnet=True), Lines(telnet=True)
    data = b"".join(pieces)
    one = whole.take_untrusted(data)
    assert [line for byte in data for line in cut.take_untrusted(bytes([byte]))] == one
    assert whole.take_refusals() == cut.take_refusals()
    assert whole.is_midline == cut.is_midline


def test_replies_have_no_telnet_commands() -> None:
    assert lines(b"257 \xff\xf4\r\n", telnet=False) == [Line(b"257 \xff\xf4")]


def test_it_is_known_whether_a_line_has_begun() -> None:
    taker = Lines(telnet=False)
    assert not taker.is_midline
    taker.take_untrusted(b"226 Tr")
    assert taker.is_midline
    taker.take_untrusted(b"ansfer complete\r\n")
    assert not taker.is_midline
    taker.take_untrusted(b"A" * (COMMAND_BYTES_MAX + 1))
    assert taker.is_midline
