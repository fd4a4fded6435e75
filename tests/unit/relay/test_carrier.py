"""What may not pass any more does not pass: channels and permissions that have ended."""

from __future__ import annotations

from tests.support.relays import channel_data
from tests.unit.proto.turn.turn_world import World
from warren.relay.carrier import Carrier, UdpEnd


class Recorder:
    """Instead of a socket."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, train: bytes, *_: object) -> int:
        self.sent.append(bytes(train))
        return 0


def test_data_passes_between_clients_only_while_both_channels_are_open() -> None:
    world = World()
    a, b = world.asker(world.client("1.2.3.4")), world.asker(world.client("1.2.3.5"), "v")
    of_a, of_b = a.relayed(), b.relayed()
    ends = Recorder(), Recorder()
    first, second = world.server.allocations.values()
    first.handle, second.handle = UdpEnd(ends[0]), UdpEnd(ends[1])  # type: ignore[arg-type]
    carrier = Carrier(world.server, {"9.9.9.9"}, ())
    data = channel_data(0x4001, b"data")

    def send() -> bool:
        before = len(ends[1].sent)
        carrier.from_client(first, bytearray(data), len(data), len(data), 0, world.now)
        return len(ends[1].sent) > before

    assert not send()
    a.bind(0x4001, of_b)
    assert not send()
    b.bind(0x4002, of_a)
    assert send()
    assert ends[1].sent == [channel_data(0x4002, b"data")]
    world.now += 290
    a.bind(0x4001, of_b)
    world.now += 20
    assert not send(), "the receiver's permission has ended"
    b.bind(0x4002, of_a)
    assert send()
    world.now += 285
    b.bind(0x4002, of_a)
    assert not send(), "the sender's permission has ended"
