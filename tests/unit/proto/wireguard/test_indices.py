from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from warren.proto.wireguard.indices import IndexTable


def test_an_index_in_use_is_not_given_again() -> None:
    drawn = iter([b"\1\0\0\0", b"\1\0\0\0", b"\2\0\0\0", b"\1\0\0\0", b"\2\0\0\0", b"\3\0\0\0"])
    table = IndexTable(lambda count: next(drawn))
    peer: Any = object()
    assert [table.allocate(peer), table.allocate(peer)] == [1, 2]
    session: Any = SimpleNamespace(own_index=1, peer=peer)
    table.begin_session(session)
    assert table.allocate(peer) == 3


def test_an_index_belongs_to_a_handshake_then_to_its_session() -> None:
    table = IndexTable(lambda count: b"\7\0\0\0")
    peer: Any = object()
    index = table.allocate(peer)
    assert table.handshaking(index) is table.peer_of(index) is peer
    session: Any = SimpleNamespace(own_index=index, peer=peer)
    table.begin_session(session)
    assert table.handshaking(index) is None
    assert table.sessions == {index: session}
    assert table.peer_of(index) is peer
    table.release_session(index)
    assert table.peer_of(index) is None


def test_a_released_handshake_is_gone() -> None:
    table = IndexTable(lambda count: b"\7\0\0\0")
    peer: Any = object()
    table.release_handshake(table.allocate(peer))
    assert table.peer_of(7) is None
