"""Whatever mixture a train is, each datagram goes where its first bytes say; nothing unauthenticated is answered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.wireguard_pair import Host, Wire
from warren.model.tunnel import Way
from warren.proto.stun.message import Class, Method, encode
from warren.proto.turn.channel import wrap_train
from warren.proto.wireguard.addresses import through_channel, transport_address
from warren.proto.wireguard.constants import DATA

RELAY = ("192.0.2.99", 3478)
CHANNEL = 0x4007


def stun(number: int, padding: int = 0) -> bytes:
    return encode(
        Method.BINDING, Class.REQUEST, number.to_bytes(12, "big"), [(0x0026, bytes(padding))] if padding else []
    )


def pair(wire: Wire) -> tuple[Host, Host]:
    """Connected, with nothing delivered yet; b listens."""
    a, b = wire.pair()
    a.send(a.packet_to(b))
    wire.settle()
    b.delivered.clear()
    b.device.listen(True)
    return a, b


def sealed(wire: Wire, a: Host, b: Host, *payloads: bytes) -> list[bytes]:
    """Data messages from a to b that did not arrive."""
    wire.filter = lambda *_: False
    before = len(wire.captured)
    for payload in payloads:
        a.send(a.packet_to(b, payload))
    wire.settle()
    return [data for _, _, data in wire.captured[before:] if data[0] == DATA]


def assert_delivered(host: Host, *payloads: bytes) -> None:
    """Packets of one size may have come as one frame."""
    everything = b"".join(host.delivered)
    assert all(everything.count(payload) == 1 for payload in payloads), host.delivered


def behind_relay(b: Host, a: Host) -> None:
    """b reaches a by the relay."""
    b.configure(b.peer(a, endpoint=transport_address(RELAY), way=Way(channel=CHANNEL), pinned=True))


def test_a_train_through_a_channel_is_opened_and_its_source_is_behind_the_channel() -> None:
    with Wire(seed=1) as wire:
        a, b = pair(wire)
        messages = sealed(wire, a, b, b"1" * 100, b"2" * 100, b"3333")
        b.device.control.sent(stun(0), through_channel(RELAY, CHANNEL))  # the controller uses the channel
        train = wrap_train(b"".join(messages), len(messages[0]), CHANNEL)
        wire.inject(b, train, RELAY, len(messages[0]) + 4)
        assert_delivered(b, b"1" * 100, b"2" * 100, b"3333")
        status = b.status_of(a)
        assert (status.endpoint, status.way) == (transport_address(RELAY), Way(channel=CHANNEL))


def test_stun_in_channel_data_is_the_controllers_with_its_channel() -> None:
    with Wire(seed=2) as wire:
        a, b = pair(wire)
        behind_relay(b, a)
        wire.inject(b, wrap_train(stun(5), 20, CHANNEL), RELAY)
        (arrival,) = b.device.control.take()
        assert (arrival.data, arrival.source) == (stun(5), through_channel(RELAY, CHANNEL))


@pytest.mark.parametrize("order", ["csd", "scd", "dsc", "sdc"])
def test_one_train_may_mix_all_three(order: str) -> None:
    with Wire(seed=3) as wire:
        a, b = pair(wire)
        long, short = sealed(wire, a, b, b"l" * 60, b"s" * 40)
        behind_relay(b, a)
        wrapped, bare = (short, long) if order[-1] == "c" else (long, short)
        pieces = {"c": wrap_train(wrapped, len(wrapped), CHANNEL), "d": bare}
        stride = max(map(len, pieces.values()))
        pieces["s"] = stun(9, padding=stride - 24)
        wire.inject(b, b"".join(pieces[letter] for letter in order), RELAY, stride)
        assert_delivered(b, b"l" * 60, b"s" * 40)
        assert [arrival.data for arrival in b.device.control.take()] == [pieces["s"]]


def test_stun_after_data_in_one_train_is_not_lost() -> None:
    with Wire(seed=4) as wire:
        a, b = pair(wire)
        messages = sealed(wire, a, b, b"x" * 200, b"y" * 200)
        wire.inject(b, b"".join(messages) + stun(1), a.address, len(messages[0]))
        assert_delivered(b, b"x" * 200, b"y" * 200)
        assert [arrival.source for arrival in b.device.control.take()] == [a.address]


def test_channel_data_of_strangers_is_counted_and_dropped() -> None:
    with Wire(seed=5) as wire:
        a, b = pair(wire)
        messages = sealed(wire, a, b, b"x" * 100, b"y" * 100)
        behind_relay(b, a)
        train = wrap_train(b"".join(messages), len(messages[0]), CHANNEL)
        for stranger in (a.address, ("192.0.2.99", 3479), ("192.0.2.98", 3478), through_channel(RELAY, 0x4000)):
            wire.inject(b, train, stranger, len(messages[0]) + 4)
        wire.inject(b, wrap_train(stun(1), 20, CHANNEL), a.address)
        assert b.delivered == []
        assert b.device.control.take() == []
        assert b.device.counters["channel_data_refused"] == 9
        wire.inject(b, train, RELAY, len(messages[0]) + 4)
        assert_delivered(b, b"x" * 100, b"y" * 100)


def test_a_relay_that_a_roaming_peer_has_left_is_none_any_more() -> None:
    with Wire(seed=11) as wire:
        a, b = pair(wire)
        b.device.listen(False)
        bare, wrapped = sealed(wire, a, b, b"x" * 100, b"y" * 100)
        b.configure(b.peer(a, endpoint=transport_address(RELAY), way=Way(channel=CHANNEL)))
        wire.inject(b, wrap_train(stun(1), 20, CHANNEL), RELAY)
        assert b.device.counters["channel_data_refused"] == 0
        wire.inject(b, bare, a.address)
        assert b.status_of(a).endpoint == transport_address(a.address)
        wire.inject(b, wrap_train(wrapped, len(wrapped), CHANNEL), RELAY)
        assert b.device.counters["channel_data_refused"] == 1


def test_channel_data_in_channel_data_is_dropped() -> None:
    with Wire(seed=6) as wire:
        a, b = pair(wire)
        (message,) = sealed(wire, a, b, b"x" * 100)
        behind_relay(b, a)
        nested = wrap_train(wrap_train(message, len(message), CHANNEL), len(message) + 4, CHANNEL)
        wire.inject(b, nested, RELAY)
        assert b.delivered == []
        assert b.device.counters["channel_data_refused"] == 1


def test_tiny_datagrams_in_channel_data_that_look_like_data_together_are_malformed() -> None:
    with Wire(seed=7) as wire:
        a, b = pair(wire)
        (message,) = sealed(wire, a, b, b"x" * 100)
        behind_relay(b, a)
        for size in (16, 19, 31):  # more of them than data messages fit a train
            before = b.device.counters["udp_malformed"]
            wire.inject(b, wrap_train(message + bytes(42_000), size, CHANNEL), RELAY, size + 4)
            assert b.device.counters["udp_malformed"] > before
        assert b.delivered == []


def test_one_train_has_packets_of_many_peers_behind_one_relay() -> None:
    with Wire(seed=8) as wire:
        b = wire.host("b", "192.0.2.2", "10.0.0.2")
        senders = [wire.host(f"c{n}", f"198.51.100.{n}", f"10.0.1.{n}") for n in range(1, 9)]
        for sender in senders:
            b.configure(b.peer(sender, endpoint=None))
            sender.configure(sender.peer(b))
            sender.send(sender.packet_to(b))
            wire.settle()
        b.delivered.clear()
        messages = [sealed(wire, sender, b, b"one", b"two") for sender in senders]
        for n, sender in enumerate(senders):
            b.configure(b.peer(sender, endpoint=transport_address(RELAY), way=Way(channel=0x4100 + n)))
        by_turns = [pair[turn] for turn in range(2) for pair in messages]
        size = len(by_turns[0])
        train = b"".join(wrap_train(data, size, 0x4100 + n % len(senders)) for n, data in enumerate(by_turns))
        b.device.drain_by(lambda: b.delivered.extend(bytes(frame)[10:] for frame in b.device.take_frames()))
        wire.inject(b, train, RELAY, size + 4)
        everything = b"".join(b.delivered)
        assert (everything.count(b"one"), everything.count(b"two")) == (len(senders), len(senders))
        assert [b.status_of(sender).way.channel for sender in senders] == [0x4100 + n for n in range(len(senders))]


@given(st.binary(max_size=200), st.integers(0, 60), st.sampled_from([RELAY, ("198.51.100.1", 9)]))
def test_arbitrary_bytes_are_answered_by_nothing(data: bytes, stride: int, source: tuple[str, int]) -> None:
    with Wire(seed=9) as wire:
        a, b = wire.pair()
        behind_relay(b, a)
        b.device.listen(True)
        for train in (data, wrap_train(data, max(1, stride), CHANNEL) if data else b"", stun(1) + data):
            wire.inject(b, train, source, stride)
        assert b.device.take_transmits() == []


def test_the_port_answers_neither_stun_nor_channel_data() -> None:
    with Wire(seed=10) as wire:
        a, b = pair(wire)
        behind_relay(b, a)
        b.device.take_transmits()
        for source in (RELAY, a.address, ("198.51.100.1", 9)):
            wire.inject(b, stun(1), source)
            wire.inject(b, wrap_train(stun(1), 20, CHANNEL), source)
        assert b.device.take_transmits() == []
