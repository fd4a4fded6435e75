"""ChannelData is taken from the TURN servers of peers and of the controller, as long as they are that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from warren.proto.wireguard.addresses import through_channel, through_socket
from warren.proto.wireguard.peer import Endpoint
from warren.proto.wireguard.relays import REGISTERED_MAX, Relays

SERVER, OTHER = ("192.0.2.1", 3478), ("2001:db8::1", 3478, 0, 0)


def peer(endpoint: Endpoint | None) -> Any:
    return SimpleNamespace(endpoint=endpoint)


def test_the_server_on_the_way_to_a_peer_is_known_until_the_peer_moves() -> None:
    one, two = peer(Endpoint(through_channel(SERVER, 0x4000))), peer(None)
    relays = Relays({b"1": one, b"2": two})
    relays.changed()
    assert relays.knows(SERVER)
    assert not relays.knows(OTHER)
    assert not relays.knows(("192.0.2.1", 3479))
    assert not relays.knows(through_channel(SERVER, 0x4000))
    one.endpoint, two.endpoint = Endpoint(SERVER), Endpoint(through_channel(OTHER, 0x4001))
    relays.changed()
    assert not relays.knows(SERVER)
    assert relays.knows(OTHER)


def test_a_server_by_another_socket_is_another_server() -> None:
    by_socket = through_socket(SERVER, 2)
    relays = Relays({b"1": peer(Endpoint(through_channel(by_socket, 0x4000)))})
    relays.changed()
    assert relays.knows(by_socket)
    assert not relays.knows(SERVER)


def test_those_of_the_controller_are_bounded_and_go_with_it() -> None:
    relays = Relays({})
    servers = [("192.0.2.1", port) for port in range(1, REGISTERED_MAX + 2)]
    for server in servers[:-1]:
        relays.register(server)
    relays.register(servers[0])  # in use again: not the oldest any more
    relays.register(servers[-1])
    assert [relays.knows(server) for server in servers[:3]] == [True, False, True]
    assert relays.knows(servers[-1])
    relays.forget_registered()
    assert not any(relays.knows(server) for server in servers)
