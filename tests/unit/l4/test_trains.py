"""Trains as values."""

from __future__ import annotations

from warren.l4.trains import Train, cut, train_of


def test_a_train_is_taken_apart_at_its_stride_and_only_its_last_may_be_shorter() -> None:
    train = Train(None, b"", (b"aabb", b"ccd"), 2, 7)
    assert [*train.datagrams()] == [b"aa", b"bb", b"cc", b"d"]
    assert [*train.held().datagrams()] == [b"aa", b"bb", b"cc", b"d"]


def test_an_empty_datagram_is_a_train_too() -> None:
    train = train_of(b"")
    assert (train.length, [*train.datagrams()]) == (0, [b""])


def test_parts_are_cut_in_order_and_nothing_is_lost() -> None:
    assert [*cut((b"aabbc", b"dd"), 4)] == [b"aabb", b"c", b"dd"]
