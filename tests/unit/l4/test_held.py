"""What flows hold has a ceiling, and is given back."""

from __future__ import annotations

import pytest

from warren.l4 import held
from warren.l4.held import Held, Room
from warren.l4.trains import train_of


def test_trains_come_back_in_order_even_when_they_are_released_meanwhile() -> None:
    one = Held(Room())
    one.keep(train_of(b"first"))
    one.keep(train_of(b"second"))
    trains = iter(one)
    one.release()
    assert [bytes(datagram) for train in trains for datagram in train.datagrams()] == [b"first", b"second"]
    assert [*one] == []


def test_what_one_flow_holds_has_a_ceiling() -> None:
    room = Room()
    one = Held(room)
    for _ in range(held.HELD_MAX + 1):
        one.keep(train_of(b"x"))
    assert (len([*one]), room.used) == (held.HELD_MAX, held.HELD_MAX)


def test_flows_share_the_room_of_their_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "HELD_BYTES_MAX", 10)
    room = Room()
    one, other = Held(room), Held(room)
    one.keep(train_of(bytes(8)))
    other.keep(train_of(bytes(3)))
    assert ([*other], room.used) == ([], 8)
    one.release()
    one.release()
    other.keep(train_of(bytes(3)))
    assert (len([*other]), room.used) == (1, 3)
