from __future__ import annotations

from itertools import product

import pytest

from tests.unit.proto.stun.natted import DELAY_S, LOCAL, OTHER, OUTER, SERVER, Nat, World, address
from warren.model.tunnel import TransportAddress
from warren.proto.stun.attributes import pack_address, pack_xor_address
from warren.proto.stun.behaviour import Behaviour
from warren.proto.stun.behaviour_discovery import BehaviourDiscovery
from warren.proto.stun.message import Attribute, Class, Message, Method, encode
from warren.proto.stun.server import BindingServer, Discovery, Reply

PLAIN = BindingServer()  # without RFC 5780


def discovered(world: World, *servers: TransportAddress) -> Behaviour:
    discovery = BehaviourDiscovery(servers=servers or (SERVER,), local=LOCAL, random=world.bytes, now=world.now)
    world.run(discovery)
    return discovery.behaviour


ALL = list(product(("eim", "adm", "apdm"), ("eif", "adf", "apdf"), ("preserving", "sequential", "random")))
KINDS = [kind for kind in ALL if kind[0] == "eim" or kind[2] != "preserving"]


@pytest.mark.parametrize(("mapping", "filtering", "allocation"), KINDS)
@pytest.mark.parametrize("hairpin", [False, True])
def test_every_kind_of_nat_is_found_out(mapping: str, filtering: str, allocation: str, hairpin: bool) -> None:
    found = discovered(World(Nat(mapping, filtering, allocation, hairpin)))
    assert (found.translated, found.mapping, found.filtering, found.allocation) == (
        True,
        mapping,
        filtering,
        allocation,
    )
    assert found.mapped is not None
    assert found.mapped.ip == OUTER
    assert found.discovery == SERVER
    assert found.rtt_s == pytest.approx(DELAY_S)
    if mapping == "eim" or filtering == "eif":  # the others have no outer address that is good for the other socket
        assert found.hairpin == hairpin
    elif not hairpin:
        assert found.hairpin is False


@pytest.mark.parametrize("filtering", ["eif", "adf", "apdf"])
def test_without_a_nat_only_the_firewall_is_found(filtering: str) -> None:
    found = discovered(World(Nat("none", filtering)))
    assert found.mapped == LOCAL[0]
    assert (found.translated, found.mapping, found.filtering) == (False, "eim", filtering)
    assert (found.allocation, found.hairpin) == ("preserving", None)


@pytest.mark.parametrize("kind", KINDS[::3])
def test_loss_is_not_taken_for_a_filter(kind: tuple[str, str, str]) -> None:
    mapping, filtering, allocation = kind
    found = discovered(World(Nat(mapping, filtering, allocation), loss=0.2))
    assert (found.mapping, found.filtering, found.allocation) == kind


def test_when_nobody_answers_nothing_is_known_and_it_ends_soon() -> None:
    world = World(servers={SERVER: BindingServer()})
    began_at = world.now
    found = discovered(world, address("203.0.113.9"))
    assert found == Behaviour(LOCAL[0], None, None, None, None, None, None)
    assert world.now - began_at < 5.0


@pytest.mark.parametrize(
    ("mapping", "judged"),
    [("eim", "eim"), ("adm", "apdm"), ("apdm", "apdm")],
)
def test_two_plain_servers_tell_a_mapping_that_depends_from_one_that_does_not(mapping: str, judged: str) -> None:
    servers = {address("203.0.113.1"): PLAIN, address("203.0.113.7"): PLAIN}
    found = discovered(World(Nat(mapping), servers=servers), *servers)
    assert (found.mapping, found.filtering, found.discovery) == (judged, None, None)
    assert found.answered == tuple(servers)
    assert found.hairpin is False


def test_one_plain_server_tells_the_address_only() -> None:
    found = discovered(World(Nat("eim"), servers={SERVER: PLAIN}))
    assert found.mapped is not None
    assert (found.translated, found.mapping, found.filtering) == (True, None, None)


def test_two_ports_of_one_plain_server_and_another_one_tell_adm_from_apdm() -> None:
    servers = {address("203.0.113.1"): PLAIN, address("203.0.113.1", 3479): PLAIN, address("203.0.113.7"): PLAIN}
    assert discovered(World(Nat("adm"), servers=servers), *servers).mapping == "adm"
    assert discovered(World(Nat("apdm"), servers=servers), *servers).mapping == "apdm"


def test_a_dead_server_beside_one_that_helps_changes_nothing() -> None:
    found = discovered(World(Nat("adm", "adf")), address("203.0.113.9"), SERVER)
    assert (found.mapping, found.filtering) == ("adm", "adf")


def test_an_other_address_that_does_not_answer_proves_no_filter() -> None:
    """A server that names an address behind its own firewall."""
    half = BindingServer(discovery=[Discovery((SERVER.ip, OTHER.ip), (SERVER.port, OTHER.port))])
    found = discovered(World(Nat("eim", "eif"), servers={SERVER: half}))
    assert (found.mapping, found.filtering) == (None, "eif")

    class Lonely(BindingServer):
        def answer(
            self, message: Message, remote: TransportAddress, local: TransportAddress, now: float
        ) -> Reply | None:
            reply = super().answer(message, remote, local, now)
            return reply if reply is not None and reply.source == local else None

    lonely = Lonely(discovery=[Discovery((SERVER.ip, OTHER.ip), (SERVER.port, OTHER.port))])
    found = discovered(World(Nat("eim", "eif"), servers={SERVER: lonely}))
    assert (found.mapping, found.filtering) == (None, None)


def respond(request: bytes, *attributes: tuple[int, bytes], cls: Class = Class.SUCCESS) -> bytes:
    return encode(Method.BINDING, cls, request[8:20], attributes)


def test_what_others_send_in_between_is_not_believed() -> None:
    world = World()
    discovery = BehaviourDiscovery(servers=(SERVER,), local=LOCAL, random=world.bytes, now=world.now)
    request = discovery.take_transmits()[0].data
    mapped = (Attribute.XOR_MAPPED_ADDRESS, pack_xor_address(address("192.0.2.66"), request[8:20]))
    good = respond(request, mapped)
    assert not discovery.receive(good, address("203.0.113.66"), 0, world.now)
    assert not discovery.receive(good, address("203.0.113.1", 3470), 0, world.now)
    assert not discovery.receive(b"no STUN at all", SERVER, 0, world.now)
    assert not discovery.receive(request, address("203.0.113.66"), 0, world.now)  # no request of a hairpin
    assert discovery.behaviour.mapped is None
    assert discovery.receive(good, SERVER, 0, world.now)
    assert discovery.behaviour.mapped == address("192.0.2.66")


@pytest.mark.parametrize(
    "other",
    [address("203.0.113.1", 3479), address("203.0.113.2", 3478), address("203.0.113.2", 0)],
)
def test_an_other_address_that_is_none_is_no_help(other: TransportAddress) -> None:
    world = World()
    discovery = BehaviourDiscovery(servers=(SERVER,), local=LOCAL, random=world.bytes, now=world.now)
    request = discovery.take_transmits()[0].data
    mapped = (Attribute.XOR_MAPPED_ADDRESS, pack_xor_address(address("192.0.2.66"), request[8:20]))
    discovery.receive(respond(request, mapped, (Attribute.OTHER_ADDRESS, pack_address(other))), SERVER, 0, world.now)
    assert discovery.behaviour.discovery is None
    assert {transmit.remote for transmit in discovery.take_transmits()} == {SERVER}


def test_a_server_that_refuses_tells_nothing() -> None:
    world = World()
    discovery = BehaviourDiscovery(servers=(SERVER,), local=LOCAL, random=world.bytes, now=world.now)
    request = discovery.take_transmits()[0].data
    discovery.receive(respond(request, (Attribute.ERROR_CODE, b"\0\0\4\1"), cls=Class.ERROR), SERVER, 0, world.now)
    assert discovery.done
    assert discovery.behaviour.mapped is None


def test_the_first_socket_never_opens_what_the_second_one_tests() -> None:
    world = World(Nat("eim", "apdf"))
    discovered(world)
    to_other = {transmit.socket for transmit in world.sent if transmit.remote.ip == OTHER.ip}
    assert to_other == {0}


def test_a_hairpin_that_comes_back_to_its_own_socket_is_none() -> None:
    world = World(Nat("eim", "apdf"))
    discovery = BehaviourDiscovery(servers=(SERVER,), local=LOCAL, random=world.bytes, now=world.now)
    world.run(discovery)
    hairpins = [transmit for transmit in world.sent if transmit.remote.ip == OUTER]
    assert {transmit.socket for transmit in hairpins} == {0, 1}
    for transmit in hairpins:
        assert not discovery.receive(transmit.data, transmit.remote, transmit.socket, world.now)
        assert discovery.behaviour.hairpin is False
    assert discovery.receive(hairpins[0].data, hairpins[0].remote, 1 - hairpins[0].socket, world.now)
    assert discovery.behaviour.hairpin is True
