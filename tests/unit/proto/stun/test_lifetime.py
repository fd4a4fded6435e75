from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from tests.unit.proto.stun.natted import SERVER, Nat, World
from warren.model.tunnel import TransportAddress
from warren.proto.stun.lifetime import PROBES_MAX, WAITS_S, Lifetime, LifetimeDiscovery
from warren.proto.stun.server import BindingServer, Discovery

ONE_ADDRESS = Discovery((SERVER.ip,), (SERVER.port,))


def local(socket: int) -> TransportAddress:
    return TransportAddress(IPv4Address("192.168.1.10"), 40000 + socket)


def found(nat: Nat, *, server: BindingServer | None = None, loss: float = 0.0) -> tuple[Lifetime | None, float]:
    world = World(nat, servers={SERVER: server or BindingServer(discovery=[ONE_ADDRESS])}, local=local, loss=loss)
    began_at = world.now
    discovery = LifetimeDiscovery(server=SERVER, waits_s=WAITS_S, random=world.bytes, now=world.now)
    world.run(discovery, until=lambda: discovery.done)
    return discovery.lifetime, world.now - began_at


@pytest.mark.parametrize(
    ("lifetime_s", "expected"),
    [
        (4.5, Lifetime(0.0, 5.0)),
        (30.0, Lifetime(28.0, 45.0)),
        (65.0, Lifetime(60.0, 90.0)),
        (120.5, Lifetime(120.0, 180.0)),
        (3600.0, Lifetime(300.0, None)),
    ],
)
@pytest.mark.parametrize("mapping", ["eim", "apdm"])
def test_the_lifetime_is_between_the_last_wait_that_was_survived_and_the_next(
    mapping: str, lifetime_s: float, expected: Lifetime
) -> None:
    lifetime, took_s = found(Nat(mapping, "apdf", lifetime_s=lifetime_s))
    assert lifetime == expected
    assert took_s < (expected.below_s or WAITS_S[-1]) + 5.0


def test_loss_is_not_taken_for_a_mapping_that_is_gone() -> None:
    for seed in range(5):
        lifetime, _ = found(Nat("eim", "apdf", lifetime_s=100.0, seed=seed), loss=0.15)
        assert lifetime == Lifetime(90.0, 120.0)


def test_a_server_that_cannot_answer_to_other_ports_is_noticed_at_once() -> None:
    lifetime, took_s = found(Nat("eim", "apdf"), server=BindingServer())
    assert lifetime is None
    assert took_s < 1.0


def test_a_server_that_passes_the_port_over_proves_nothing() -> None:
    class Careless(BindingServer):
        def answer(self, message, remote, local, now):  # type: ignore[no-untyped-def]
            reply = super().answer(message, remote, local, now)
            return reply and type(reply)(reply.data, remote, reply.source)

    careless = Careless(discovery=[ONE_ADDRESS])
    lifetime, took_s = found(Nat("eim", "apdf"), server=careless)
    assert lifetime is None
    assert took_s < 6.0


def test_nobody_there_tells_nothing_and_ends() -> None:
    world = World(servers={SERVER: BindingServer()}, local=local)
    absent = TransportAddress(IPv4Address("203.0.113.9"), 3478)
    discovery = LifetimeDiscovery(server=absent, waits_s=WAITS_S, random=world.bytes, now=world.now)
    world.run(discovery)
    assert discovery.lifetime is None


def test_there_are_only_so_many_probes() -> None:
    discovery = LifetimeDiscovery(server=SERVER, waits_s=range(1, 100), random=bytes, now=0.0)
    assert discovery.sockets == PROBES_MAX + 1
