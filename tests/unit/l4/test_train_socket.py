"""Datagrams in a row: joined when received, taken apart and cut when sent, and never changed."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.l4.train_socket import JOIN_AT, LOOK_FURTHER, ONES_MIN, TrainSocket
from warren.l4.trains import DATAGRAMS_MAX, TRAIN_BYTES_MAX, Train, train_of


def udp() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


@pytest.fixture
def pair() -> Iterator[tuple[TrainSocket, socket.socket]]:
    """One that receives, and one that is connected to it."""
    with (
        udp() as one,
        udp() as two,
    ):
        one.setblocking(False)
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        two.connect(one.getsockname())
        one.connect(two.getsockname())
        yield TrainSocket(one), two


def taken_apart(found: list[Train]) -> list[bytes]:
    for train in found:
        assert sum(map(len, train.parts)) == train.length <= max(TRAIN_BYTES_MAX, train.stride)
        lengths = [len(one) for one in train.datagrams()]
        assert len(lengths) <= DATAGRAMS_MAX
        assert all(length == train.stride for length in lengths[:-1])
        assert lengths[-1] <= train.stride
    return [bytes(one) for train in found for one in train.datagrams()]


@pytest.mark.parametrize(
    ("lengths", "rows"),
    [
        ([10, 10, 10], [3]),
        ([10, 10, 5], [3]),
        ([10, 5, 5], [2, 1]),
        ([5, 10], [1, 1]),
        ([10, 5, 10], [2, 1]),
        ([0, 0], [1, 1]),
        ([10, 0, 10], [1, 1, 1]),
        ([60_000, 60_000], [1, 1]),
        ([30_000, 30_000, 30_000], [2, 1]),
        ([1] * 64, [64]),
        ([65_507], [1]),
    ],
)
def test_datagrams_in_a_row_are_one_train_where_they_can_be_sent_as_one(
    pair: tuple[TrainSocket, socket.socket], lengths: list[int], rows: list[int]
) -> None:
    receiver, sender = pair
    sent = [bytes((number % 256,)) * length for number, length in enumerate(lengths)]
    for data in sent:
        sender.send(data)
    found = receiver.receive()
    assert taken_apart(found) == sent
    assert [len([*train.datagrams()]) for train in found] == rows
    assert receiver.problem is None
    assert receiver.receive() == []


def test_what_the_kernel_has_joined_is_joined_no_further_than_can_be_sent(
    pair: tuple[TrainSocket, socket.socket],
) -> None:
    receiver, sender = pair
    assert receiver.receive() == []  # from now on the kernel joins
    row = [bytes((1, one)) for one in range(60)]
    sender.sendmsg(row, [(17, 103, struct.pack("=H", 2))])
    alone = [bytes((2, one)) for one in range(30)]
    for data in alone:
        sender.send(data)
    assert taken_apart(receiver.receive()) == row + alone


def test_those_of_another_sender_are_another_train() -> None:
    with udp() as one:
        one.setblocking(False)
        one.bind(("127.0.0.1", 0))
        receiver = TrainSocket(one)
        senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in "12"]
        for sender in (senders[0], senders[1], senders[1], senders[0]):
            sender.sendto(b"same", one.getsockname())
        found = receiver.receive()
        assert [train.source[1] for train in found] == [senders[number].getsockname()[1] for number in (0, 1, 0)]
        for sender in senders:
            sender.close()


def test_those_for_another_local_address_are_another_train() -> None:
    with (
        udp() as one,
        udp() as two,
    ):
        one.setblocking(False)
        one.bind(("", 0))
        receiver = TrainSocket(one)
        receiver.ask_where_to()
        two.bind(("127.0.0.1", 0))
        for host in ("127.0.0.1", "127.0.0.5", "127.0.0.5"):
            two.sendto(b"same", (host, one.getsockname()[1]))
        assert [train.local[8:12] for train in receiver.receive()] == [b"\x7f\0\0\1", b"\x7f\0\0\5"]


@given(st.lists(st.integers(0, 40), max_size=40), st.integers(0, 3), st.booleans())
def test_whatever_the_lengths_all_arrive_in_order(lengths: list[int], joined: int, waited_for: bool) -> None:
    with (
        udp() as one,
        udp() as two,
    ):
        one.setblocking(False)
        one.bind(("127.0.0.1", 0))
        two.connect(one.getsockname())
        sent = []
        for number, length in enumerate(lengths):
            data = bytes((number,)) * length
            if joined and length:
                two.sendmsg([data * joined], [(17, 103, struct.pack("=H", length))])
                sent += [data] * joined
            else:
                two.send(data)
                sent.append(data)
        receiver, got = TrainSocket(one), []
        if not waited_for:
            while found := receiver.receive():
                got += taken_apart(found)
        for _ in range(len(sent) + 1 if waited_for else 0):
            for train in receiver.trains():
                got += taken_apart([train])
        assert got == sent


def test_one_that_comes_by_itself_is_there_before_it_is_known_that_there_are_no_more(
    pair: tuple[TrainSocket, socket.socket],
) -> None:
    receiver, sender = pair
    for number in range(ONES_MIN + 2 * LOOK_FURTHER):
        sender.send(bytes((number,)))
        coming = receiver.trains()
        assert bytes(next(coming).parts[0]) == bytes((number,))
        assert list(coming) == []
        assert receiver.alone
    assert list(receiver.trains()) == []
    assert receiver.problem is None


@pytest.mark.parametrize("where_to", [False, True])
def test_rows_are_noticed_soon_and_so_is_that_they_have_ended(
    pair: tuple[TrainSocket, socket.socket], where_to: bool
) -> None:
    receiver, sender = pair
    if where_to:
        receiver.ask_where_to()
    for _ in range(ONES_MIN):
        sender.send(b"x")
        assert sum(train.length for train in receiver.trains()) == 1
    sent = [bytes((number,)) for number in range(JOIN_AT - 1)]
    for data in sent:
        sender.send(data)
    turns, got = 0, []
    while found := [bytes(one) for train in receiver.trains() for one in train.datagrams()]:
        turns, got = turns + 1, got + found
    assert got == sent
    assert turns <= LOOK_FURTHER + 1
    assert receiver.alone is not where_to
    for data in sent:
        sender.send(data)
    assert sum(train.length for _ in range(2) for train in receiver.trains()) == len(sent)  # another one is expected


def test_in_long_rows_the_kernel_is_asked_to_join_and_then_says_where_each_ends(
    pair: tuple[TrainSocket, socket.socket],
) -> None:
    receiver, sender = pair
    for _ in range(3):
        sender.sendmsg([b"ab" * 40], [(17, 103, struct.pack("=H", 2))])
        while sum(train.length for train in receiver.trains()):
            pass
    assert not receiver.alone
    sender.sendmsg([b"ab" * 40], [(17, 103, struct.pack("=H", 2))])
    (train,) = receiver.trains()
    assert (train.stride, train.length, len(train.parts)) == (2, 80, 1)
    sender.send(b"last")
    assert [(train.stride, train.length) for _ in range(2) for train in receiver.trains()] == [(4, 4)]


def test_what_icmp_says_of_one_that_was_sent_alone_is_told(pair: tuple[TrainSocket, socket.socket]) -> None:
    receiver, sender = pair
    receiver.of_one = True
    sender.send(b"1")
    assert receiver.receive_one() == (b"1", None)
    sender.close()
    receiver.send_one(memoryview(b"2"), (), None)
    assert list(receiver.trains()) == []
    assert receiver.problem is not None
    assert receiver.problem.errno == errno.ECONNREFUSED
    assert list(receiver.trains()) == []
    assert receiver.problem is None


@pytest.mark.parametrize("stride", [1, 100, 1400])
@pytest.mark.parametrize("count", [1, 63, 64, 65, 80])
def test_a_train_of_any_length_is_sent(pair: tuple[TrainSocket, socket.socket], count: int, stride: int) -> None:
    sender, receiver = pair
    receiver.settimeout(10)
    whole = b"".join(bytes((number % 256,)) * stride for number in range(count)) + b"x" * (stride - 1)
    parts = (whole[: 7 * stride], whole[7 * stride :])
    assert sender.send(Train(None, b"", [part for part in parts if part], stride, len(whole))) == 0
    expected = [whole[at : at + stride] for at in range(0, len(whole), stride)]
    assert [receiver.recv(65535) for _ in expected] == expected


@pytest.mark.parametrize("number", [errno.EIO, errno.EINVAL, errno.EMSGSIZE])
def test_where_the_kernel_cannot_segment_the_datagrams_go_one_by_one(
    pair: tuple[TrainSocket, socket.socket], number: int
) -> None:
    class Refusing(socket.socket):
        refused = 0

        def sendmsg(self, buffers: Any, control: Any = (), *rest: Any) -> int:
            if any(kind == 103 for _, kind, _ in control):
                Refusing.refused += 1
                raise OSError(number, "no")
            data = b"".join(buffers)
            return self.send(data)

    receiver = pair[1]
    receiver.settimeout(10)
    inner = pair[0].sock
    sock = Refusing(inner.family, inner.type, inner.proto, inner.fileno())
    try:
        sender = TrainSocket(sock)
        for _ in "12":
            assert sender.send(Train(None, b"", (b"aaabbbc",), 3, 7)) == 0
            assert [receiver.recv(99) for _ in "123"] == [b"aaa", b"bbb", b"c"]
        assert Refusing.refused == 1  # it has learned
        assert sender.send(Train(None, b"", (b"ab",), 1, 2)) == 0
        assert Refusing.refused == (1 if number == errno.EIO else 2)  # shorter ones may still fit
        assert [receiver.recv(99) for _ in "12"] == [b"a", b"b"]
    finally:
        sock.detach()


def test_what_icmp_reports_comes_after_what_was_received() -> None:
    with udp() as one:
        one.setblocking(False)
        one.bind(("127.0.0.1", 0))
        with udp() as two:
            two.bind(("127.0.0.1", 0))
            one.connect(two.getsockname())
        sock = TrainSocket(one)
        assert sock.send(train_of(b"x")) == 0
        assert sock.receive() == []
        assert sock.problem is not None
        assert sock.problem.errno == errno.ECONNREFUSED
        assert sock.receive() == []
        assert sock.problem is None


def test_too_long_for_ip_is_an_errno(pair: tuple[TrainSocket, socket.socket]) -> None:
    assert pair[0].send(train_of(bytes(65_508))) == errno.EMSGSIZE


def test_held_trains_outlive_what_is_received_next(pair: tuple[TrainSocket, socket.socket]) -> None:
    receiver, sender = pair
    sender.send(b"first")
    (train,) = receiver.receive()
    held = train.held()
    sender.send(b"other")
    receiver.receive()
    assert [*held.datagrams()] == [b"first"]
