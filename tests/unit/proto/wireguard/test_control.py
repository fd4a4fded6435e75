"""Control datagrams are bounded in number and pace, and strangers cannot use up what is kept for answers."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from warren.model.datagrams import DATAGRAM_BYTES_MAX, ControlDatagram
from warren.model.tunnel import TransportAddress, Way
from warren.proto.stun.message import Class, Method, encode
from warren.proto.wireguard.addresses import SocketAddress, pack_local, through_channel
from warren.proto.wireguard.control import STRANGERS_PER_S, WAITING_MAX, WRITTEN_TO_MAX, ControlQueue, routed
from warren.proto.wireguard.counters import new_counters
from warren.proto.wireguard.relays import Relays

FRIEND, STRANGER, SERVER = ("192.0.2.1", 7), ("198.51.100.1", 7), ("192.0.2.9", 3478)
MESSAGE = encode(Method.BINDING, Class.REQUEST, bytes(12), [])


class Box:
    def __init__(self, *, listening: bool = True) -> None:
        self.counters = new_counters()
        self.relays = Relays({})
        self.queue = ControlQueue(self.relays, self.counters)
        self.queue.listen(listening)

    def receive(self, source: SocketAddress, count: int = 1, now: float = 0.0, data: bytes = MESSAGE) -> int:
        """How many of ``count`` get through when the controller takes each at once."""
        before = self.counters["control_received"]
        for _ in range(count):
            self.queue.receive(memoryview(data), source, b"", now)
            self.queue.take()
        return self.counters["control_received"] - before


def test_what_arrives_is_taken_once_and_says_where_it_came_from() -> None:
    box = Box()
    local = pack_local(Way(ip_address("192.0.2.5"), 3), "192.0.2.1")
    box.queue.receive(memoryview(bytearray(MESSAGE)), through_channel(SERVER, 0x4001), b"", 0.0)
    (arrival,) = box.queue.take()
    assert box.queue.take() == []
    assert arrival.datagram(local) == ControlDatagram(
        MESSAGE,
        TransportAddress(ip_address("192.0.2.9"), 3478),
        Way(ip_address("192.0.2.5"), 3, 0x4001),
    )


def test_nothing_is_kept_while_nobody_listens() -> None:
    box = Box(listening=False)
    assert box.receive(FRIEND, 3) == 0
    assert box.counters["control_unheard"] == 3


def test_what_waits_is_bounded() -> None:
    box = Box()
    box.queue.sent(MESSAGE, FRIEND)
    for _ in range(WAITING_MAX + 10):
        box.queue.receive(memoryview(MESSAGE), FRIEND, b"", 0.0)
    assert len(box.queue.take()) == WAITING_MAX
    assert box.counters["control_limited"] == 10


def test_a_flood_of_strangers_leaves_room_for_answers() -> None:
    box = Box()
    box.queue.sent(MESSAGE, FRIEND)
    passed = sum(box.receive(STRANGER, 200, now=tick / 100) for tick in range(100))  # 20,000 in a second
    assert passed <= STRANGERS_PER_S * 1.25 + 1
    assert box.receive(FRIEND, 100, now=1.0) == 100
    assert box.receive(STRANGER, 1, now=2.0) == 1


def test_a_channel_is_not_the_server_itself() -> None:
    box = Box()
    box.queue.sent(MESSAGE, SERVER)
    box.receive(STRANGER, 10_000)
    assert box.receive(through_channel(SERVER, 0x4001)) == 0
    assert box.receive(SERVER) == 1


def test_addresses_written_to_are_bounded() -> None:
    box = Box()
    for port in range(WRITTEN_TO_MAX + 1):
        box.queue.sent(MESSAGE, ("192.0.2.1", port))
    box.receive(STRANGER, 10_000)
    assert [box.receive(("192.0.2.1", port)) for port in (0, 1, WRITTEN_TO_MAX)] == [0, 1, 1]


def test_too_long_a_message_is_malformed() -> None:
    box = Box()
    longest = MESSAGE + bytes(DATAGRAM_BYTES_MAX - len(MESSAGE))
    assert box.receive(FRIEND, data=longest) == 1
    assert box.receive(FRIEND, data=longest + b"x") == 0
    assert box.counters["udp_malformed"] == 1


def test_who_is_asked_for_a_channel_or_used_by_one_is_a_relay() -> None:
    box = Box()
    box.queue.sent(encode(Method.BINDING, Class.REQUEST, bytes(12), []), SERVER)
    box.queue.sent(encode(Method.ALLOCATE, Class.REQUEST, bytes(12), []), SERVER)
    box.queue.sent(b"\0\x09", SERVER)
    assert not box.relays.knows(SERVER)
    box.queue.sent(encode(Method.CHANNEL_BIND, Class.REQUEST, bytes(12), []), SERVER)
    box.queue.sent(MESSAGE, through_channel(FRIEND, 0x4000))
    assert box.relays.knows(SERVER)
    assert box.relays.knows(FRIEND)
    box.queue.listen(False)
    assert not box.relays.knows(SERVER)


@pytest.mark.parametrize(
    ("data", "way"),
    [
        (b"", Way()),
        (bytes(DATAGRAM_BYTES_MAX + 1), Way()),
        (MESSAGE, Way(channel=0x3FFF)),
        (MESSAGE, Way(channel=0x5000)),
        (MESSAGE, Way(ip_address("::1"))),
    ],
)
def test_a_datagram_that_cannot_leave_is_refused(data: bytes, way: Way) -> None:
    with pytest.raises(ValueError, match=r"control datagram|reached from"):
        routed(ControlDatagram(data, TransportAddress(ip_address("192.0.2.1"), 7), way))
