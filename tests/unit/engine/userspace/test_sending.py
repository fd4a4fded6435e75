"""Over a socket that takes as much as a test lets it."""

from __future__ import annotations

import errno
import select
from collections import Counter, deque
from typing import Any

from warren.engine.userspace.sending import Sending
from warren.proto.wireguard.outbound import Transmit
from warren.proto.wireguard.peer import Endpoint

HOST, SOCKET = 7, 9
READS = select.EPOLLIN
BOTH = select.EPOLLIN | select.EPOLLOUT
ADDRESS = ("192.0.2.1", 51820)
QUEUED = 256
"""How many transmits wait at the most."""


class FakePort:
    """A UDP port with one socket, and what it has sent. ``answers`` are those of the next calls, 0 once they are all
    given.
    """

    def __init__(self) -> None:
        self.answers: deque[int] = deque()
        self.full = False
        self.sent: list[tuple[bytes, bytes]] = []

    def send(self, train: memoryview | bytes, stride: int, address: tuple[object, ...], local: bytes, ecn: int) -> int:
        error = errno.EAGAIN if self.full else self.answers.popleft() if self.answers else 0
        if not error:
            self.sent.append((bytes(train), local))
        return error

    def socket_for(self, address: tuple[Any, ...]) -> FakePort:
        return self

    def fileno(self) -> int:
        return SOCKET


class World:
    """Poller, sockets and device in one."""

    def __init__(self) -> None:
        self.watched = {HOST: READS, SOCKET: READS}
        self.counters: Counter[str] = Counter()
        self.fake = FakePort()
        self.port: FakePort | None = self.fake
        self.by_fd = {SOCKET: (self.fake, 0)}
        self.forgotten: list[object] = []
        self.sending = Sending(self, self, self, HOST, self.counters)  # type: ignore[arg-type]

    def modify(self, fd: int, mask: int) -> None:
        self.watched[fd] = mask

    def forget_source(self, peer: object) -> None:
        self.forgotten.append(peer)

    def send(self, *numbers: int, local: bytes = b"") -> None:
        self.sending.send([transmit(number, local) for number in numbers])

    def arrived(self) -> list[int]:
        return [int.from_bytes(data) for data, _ in self.fake.sent]

    @property
    def waits(self) -> bool:
        """For room in the socket, and the host is not read; else neither."""
        assert (self.watched[HOST], self.watched[SOCKET]) in {(0, BOTH), (READS, READS)}
        return self.watched[HOST] == 0


def transmit(number: int, local: bytes = b"") -> Transmit:
    return Transmit(number.to_bytes(2), 2, Endpoint(ADDRESS, local), 0, None)


def test_what_the_socket_takes_is_sent_at_once() -> None:
    world = World()
    world.send(1, 2, 3)
    assert world.arrived() == [1, 2, 3]
    assert not world.waits
    assert world.counters.total() == 0


def test_what_a_full_socket_does_not_take_waits_and_so_does_the_host() -> None:
    world = World()
    world.fake.answers.extend([0, errno.EAGAIN])
    world.send(1, 2, 3)
    assert world.arrived() == [1]
    assert world.waits
    world.send(4)
    assert world.arrived() == [1], "nothing overtakes what waits"
    world.sending.resume()
    assert world.arrived() == [1, 2, 3, 4]
    assert not world.waits
    assert world.counters.total() == 0


def test_a_socket_that_is_full_again_is_waited_for_again() -> None:
    world = World()
    world.fake.full = True
    world.send(1, 2, 3)
    world.fake.full = False
    world.fake.answers.extend([0, errno.EAGAIN])
    world.sending.resume()
    assert world.arrived() == [1]
    assert world.waits
    world.sending.resume()
    assert world.arrived() == [1, 2, 3]
    assert not world.waits


def test_bytes_that_wait_are_not_those_of_the_buffer_that_is_used_again() -> None:
    world = World()
    buffer = bytearray(b"\0\1")
    world.fake.full = True
    world.sending.send([transmit(1)._replace(data=memoryview(buffer))])
    buffer[:] = b"\0\2"
    world.fake.full = False
    world.sending.resume()
    assert world.arrived() == [1]


def test_what_finds_no_room_in_the_queue_is_counted() -> None:
    world = World()
    world.fake.full = True
    world.send(*range(QUEUED - 1))
    world.send(1000, 1001, 1002)
    world.send(1003)
    assert len(world.sending.pending) == QUEUED
    assert world.counters == {"udp_queue_full": 3}
    world.fake.full = False
    world.sending.resume()
    assert world.arrived() == [*range(QUEUED - 1), 1000]


def test_an_error_costs_one_train_and_is_counted() -> None:
    world = World()
    world.fake.answers.extend([0, errno.ENETUNREACH])
    world.send(1, 2, 3)
    assert world.arrived() == [1, 3]
    assert world.counters == {"udp_send_ENETUNREACH": 1}


def test_an_address_of_ours_that_is_gone_is_forgotten_and_the_kernel_chooses_another() -> None:
    world = World()
    world.fake.answers.append(errno.EINVAL)
    world.send(1, local=b"pktinfo")
    assert world.fake.sent == [(b"\0\1", b"")]
    assert world.forgotten == [None]
    world.fake.answers.extend([errno.EINVAL, errno.EHOSTUNREACH])
    world.send(2, local=b"pktinfo")
    assert world.counters == {"udp_send_EHOSTUNREACH": 1}


def test_without_a_port_everything_is_counted() -> None:
    world = World()
    world.port = None
    world.send(1, 2)
    assert world.counters == {"udp_closed": 2}


def test_a_socket_that_is_gone_is_not_waited_for_and_one_that_stays_is() -> None:
    world = World()
    world.fake.full = True
    world.send(1)
    world.fake.full = False
    world.sending.sockets_changed()
    assert world.waits
    world.by_fd.clear()
    world.watched.pop(SOCKET)
    world.sending.sockets_changed()
    assert world.arrived() == [1]
    assert world.watched == {HOST: READS}, "a descriptor that is closed is not touched"


def test_what_waits_when_the_port_is_closed_is_counted_and_the_host_is_read_again() -> None:
    world = World()
    world.fake.full = True
    world.send(1)
    world.sending.drop()
    world.sending.drop()
    assert world.counters["udp_closed"] == 1
    assert not world.waits
    world.fake.full = False
    world.send(2)
    assert world.arrived() == [2]
