"""Replies of several lines, and what may not end them."""

from __future__ import annotations

import pytest

from warren.errors import MalformedPacket
from warren.proto.ftp.lines import Line
from warren.proto.ftp.replies import Part, Replies


def parts(*texts: bytes) -> list[Part]:
    replies = Replies()
    return [replies.part_untrusted(Line(text)) for text in texts]


def test_a_reply_of_one_line_is_final() -> None:
    assert parts(b"226 Done.", b"220", b"150 Here it comes") == [
        Part(226, b"226 Done.", final=True),
        Part(220, b"220", final=True),
        Part(150, b"150 Here it comes", final=True),
    ]
    assert parts(b"150 x")[0].is_preliminary
    assert not parts(b"226 x")[0].is_preliminary


def test_a_reply_of_several_lines_ends_with_its_own_code() -> None:
    found = parts(b"211-Features:", b" EPSV", b"211-still", b"not yet", b"211 End")
    assert [part.final for part in found] == [False, False, False, False, True]
    assert {part.code for part in found} == {211}


def test_a_line_that_looks_like_another_reply_is_moved_in() -> None:
    """Clients differ in what ends a reply, and names of files stand in there."""
    found = parts(b"213-Status:", b"227 Entering Passive Mode (10,0,0,5,0,22)", b"229-x", b"2134", b"213 End")
    assert [part.text for part in found] == [
        b"213-Status:",
        b" 227 Entering Passive Mode (10,0,0,5,0,22)",
        b" 229-x",
        b"2134",
        b"213 End",
    ]
    assert [part.code for part in found] == [213] * 5


@pytest.mark.parametrize("text", [b"", b"SSH-2.0-OpenSSH_9.2", b"99 x", b"620 x", b"2260 x", b"226x", b" 226 x"])
def test_what_is_no_reply_is_refused(text: bytes) -> None:
    with pytest.raises(MalformedPacket):
        parts(text)


def test_characters_that_move_a_cursor_to_the_start_are_made_visible() -> None:
    assert Replies().part_untrusted(Line(b"257 a\r227 b\0", broken=True)).text == b"257 a?227 b?"


def test_a_line_too_long_is_no_reply_but_may_stand_inside_one() -> None:
    replies = Replies()
    with pytest.raises(MalformedPacket):
        replies.part_untrusted(Line(b"", broken=True))
    replies.part_untrusted(Line(b"211-x"))
    assert replies.is_midreply
    assert replies.part_untrusted(Line(b"", broken=True)).text == b""
