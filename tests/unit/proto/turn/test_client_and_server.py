"""Our TURN client and our TURN server, in memory, on a clock moved by hand."""

from __future__ import annotations

import random
from ipaddress import ip_address

import pytest

from tests.unit.proto.turn.turn_world import RELAY4, RELAY6, TCP, UDP, World
from warren.model.tunnel import TransportAddress
from warren.proto.turn.client import TurnClient
from warren.proto.turn.client_events import Bound, ClientEvent, Data, Failed, Lost, Ready
from warren.proto.turn.server_values import Client, ToClient, ToPeer

PEER = TransportAddress(ip_address("8.8.4.4"), 51_820)


class Pair:
    def __init__(self, world: World, *, transport: str = UDP, port: int = 1000, password: str = "p") -> None:  # noqa: S107
        self.world = world
        self.there: Client = world.client(port=port, transport=transport)
        self.events: list[ClientEvent] = []
        self.sent: list[ToPeer] = []
        self.client = TurnClient(
            server=TransportAddress(RELAY4, 3478),
            username="u",
            password=password,
            random=random.Random(port).randbytes,
            now=world.now,
            reliable=transport != UDP,
            name="berlin",
        )
        self.settle()

    def settle(self) -> None:
        for _ in range(100):
            messages = self.client.take_transmits()
            for message in messages:
                self.world.server.receive(message, self.there, self.world.now)
            answers = self.world.server.take_transmits()
            for one in answers:
                if isinstance(one, ToClient):
                    self.client.receive(one.data, self.world.now)
                else:
                    self.sent.append(one)
            if not messages and not answers:
                break
        else:
            raise AssertionError("client and server never fall silent")
        self.world.server.take_events()
        self.events += self.client.take_events()

    def wait(self, seconds: float) -> None:
        end = self.world.now + seconds
        for _ in range(10_000):
            due = [one.at for one in (self.client.next_deadline(), self.world.server.next_deadline()) if one]
            if not due or min(due) > end:
                break
            self.world.now = max(self.world.now, min(due))
            self.client.handle_timeout(self.world.now)
            self.world.server.handle_timeout(self.world.now)
            self.settle()
        self.world.now = end


@pytest.mark.parametrize("transport", [UDP, TCP])
def test_an_allocation_lives_as_long_as_its_client(transport: str) -> None:
    pair = Pair(World(), transport=transport)
    assert pair.client.state == "ready", pair.client.why
    assert [one.ip for one in pair.client.relayed] == [RELAY4, RELAY6]
    pair.client.bind(PEER, pair.world.now)
    pair.client.permit([PEER.ip], pair.world.now)
    pair.settle()
    before = pair.client.relayed
    pair.wait(4 * 3600)
    assert [type(event) for event in pair.events] == [Ready, Bound]
    assert pair.client.relayed == before
    (allocation,) = pair.world.server.allocations.values()
    assert allocation.permits("8.8.4.4", pair.world.now)
    assert list(allocation.channels) == [0x4000]
    pair.client.close(pair.world.now)
    pair.settle()
    assert not pair.world.server.allocations


def test_data_goes_both_ways_by_indications() -> None:
    pair = Pair(World())
    pair.client.send(PEER, b"to the peer", pair.world.now)
    pair.settle()
    (one,) = pair.sent
    assert bytes(one.data) == b"to the peer"
    relayed = next(one for one in pair.world.server.relayed.values() if one.family == 4)
    pair.world.server.from_peer(relayed, ("8.8.4.4", 51_820), b"from the peer", pair.world.now)
    pair.settle()
    assert pair.events[-1] == Data(PEER, b"from the peer")


def test_a_wrong_password_is_told() -> None:
    pair = Pair(World(), password="wrong")
    pair.wait(3)
    (event,) = pair.events
    assert isinstance(event, Failed)
    assert "does not accept the user name and password" in event.why


def test_a_server_that_restarts_is_found_again() -> None:
    pair = Pair(World())
    pair.client.bind(PEER, pair.world.now)
    pair.settle()
    now = pair.world.now
    pair.world = World()
    pair.world.now = now
    pair.client.check(now)
    pair.settle()
    assert [type(event) for event in pair.events] == [Ready, Bound, Lost, Ready, Bound]


def test_a_client_that_crashed_takes_its_port_over() -> None:
    world = World()
    first = Pair(world)
    second = Pair(world)
    assert second.client.state == "ready"
    assert first.client.relayed != ()
    assert len(world.server.allocations) == 1


def test_a_peer_that_the_server_never_relays_to_is_refused_alone() -> None:
    pair = Pair(World())
    loopback = ip_address("127.0.0.1")
    pair.client.permit([PEER.ip, loopback], pair.world.now)
    pair.settle()
    assert "is not allowed to" in pair.client.refusal(loopback)
    assert pair.client.refusal(PEER.ip) == ""
    (allocation,) = pair.world.server.allocations.values()
    assert allocation.permits("8.8.4.4", pair.world.now)
