from __future__ import annotations

import struct

import pytest

from warren.linux.nft_removals import tells_of_removal

NEW_TABLE, DELETE_TABLE, NEW_CHAIN, DELETE_CHAIN, NEW_RULE, DELETE_RULE, NEW_GENERATION = 0, 2, 3, 5, 6, 8, 15


def message(kind: int, body: bytes = b"", subsystem: int = 10) -> bytes:
    """As the kernel writes it: padded to four bytes, which its length does not count."""
    header = struct.pack("=IHHII", 16 + len(body), subsystem << 8 | kind, 0, 1, 0)
    return header + body + bytes(-len(body) % 4)


@pytest.mark.parametrize("kind", [DELETE_TABLE, DELETE_CHAIN, DELETE_RULE])
def test_what_was_taken_away_is_heard_of_wherever_it_stands(kind: int) -> None:
    assert tells_of_removal(message(kind))
    assert tells_of_removal(message(NEW_RULE, b"12345") + message(kind, b"1") + message(NEW_GENERATION))


def test_what_was_added_is_not() -> None:
    assert not tells_of_removal(b"".join(message(kind, b"x") for kind in (NEW_TABLE, NEW_CHAIN, NEW_RULE)))
    assert not tells_of_removal(message(DELETE_TABLE, subsystem=1))  # of connection tracking
    assert not tells_of_removal(b"")


def test_a_message_without_a_length_ends_it() -> None:
    assert tells_of_removal(bytes(64))
