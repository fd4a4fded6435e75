"""Who reads when: followed, hungry and paused streams, by a clock that is moved by hand."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import pytest

from warren.proto.turn.channel import wrap_train
from warren.proto.turn.server import TurnServer
from warren.proto.turn.server_values import TCP, Client
from warren.relay.carrier import Carrier
from warren.relay.data_sockets import DataSockets
from warren.relay.fairness import BURST_BYTES_MIN, Share
from warren.relay.pace import Pace
from warren.relay.stream_door import StreamDoor
from warren.relay.stream_turns import StreamTurns
from warren.relay.streams import Stream

RATE = 100_000.0
PIECE = 50_000


@dataclass
class Door:
    """What the turns need of a door, and whether each stream is read."""

    streams: dict[int, Stream] = field(default_factory=dict)
    reads: dict[int, bool] = field(default_factory=dict)
    ended: list[Stream] = field(default_factory=list)

    def follow(self, stream: Stream, *, reads: bool = True) -> None:
        self.reads[stream.fileno()] = reads

    def end(self, stream: Stream) -> None:
        del self.streams[stream.fileno()]
        self.ended.append(stream)


class Server:
    allocations: dict[Client, object] = {}  # noqa: RUF012  nobody has one

    def disconnected(self, client: Client) -> None:
        pass


class World:
    def __init__(self, poller: select.epoll) -> None:
        self.near, far = socket.socketpair()
        far.setblocking(False)
        self.door = Door()
        self.pace = Pace(DataSockets({}, 0.0, poller, lambda: 0.0), 0.0, 0.0)
        self.stream = Stream(far, Client(TCP, ("192.0.2.1", 1), 1), 0.0)
        self.stream.share = self.share = Share("u", RATE, 0.0)
        self.door.streams[far.fileno()] = self.stream
        self.turns = StreamTurns(
            cast(StreamDoor, self.door),
            cast(TurnServer, Server()),
            cast(Carrier, None),
            self.pace,
            lambda _: None,
        )

    def come(self, now: float, mask: int = select.EPOLLIN) -> None:
        self.pace.round += 1
        self.turns.serve(self.stream, mask, now)

    @property
    def read(self) -> bool:
        return self.door.reads[self.stream.fileno()]


@pytest.fixture
def world() -> Iterator[World]:
    with select.epoll() as poller:
        made = World(poller)
        yield made
        made.near.close()
        made.stream.close()


def above_its_rate(world: World) -> float:
    """Data comes until its user has to pause; returns until when."""
    frame = wrap_train(bytes(996), 996, 0x4000)
    for _ in range(int(BURST_BYTES_MIN) // PIECE + 2):
        world.near.sendall(frame * (PIECE // len(frame)))
        world.come(0.0)
        if world.share.paused_until > 0.0:
            return world.share.paused_until
    raise AssertionError("it never pauses")


def test_who_is_above_his_rate_is_not_looked_at_before_his_pause_ends(world: World) -> None:
    until = above_its_rate(world)
    world.come(0.1)
    assert not world.read, "epoll does not tell of it"
    assert not world.turns.has_hungry, "nothing makes the relay go round and round"
    assert world.pace.resumes_at == until


def test_when_the_pause_ends_he_is_read_again_at_once(world: World) -> None:
    until = above_its_rate(world)
    world.come(0.1)
    world.turns.resume(until - 0.01)
    assert not world.read
    world.pace.resume(until)
    world.turns.resume(until)
    assert world.read
    assert world.turns.has_hungry
    world.pace.round += 2
    world.turns.serve_hungry(until)
    assert not world.turns.has_hungry


def test_who_hangs_up_in_his_pause_is_gone(world: World) -> None:
    above_its_rate(world)
    world.come(0.1, select.EPOLLHUP)
    assert world.door.ended == [world.stream]
    world.turns.resume(1e9)
    assert not world.turns.has_hungry
