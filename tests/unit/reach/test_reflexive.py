"""How a node looks from outside, and what follows of its NAT."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv6Network

from tests.unit.reach.relay_world import at
from warren.model.tunnel import TransportAddress
from warren.paths.candidates import embed
from warren.paths.nat import Situation
from warren.paths.values import Base
from warren.proto.stun.attributes import pack_xor_address
from warren.proto.stun.message import Attribute, Class, Method, decode_untrusted, encode
from warren.reach.courses import host_base
from warren.reach.mirrors import Mirrored
from warren.reach.reflexive import Reflexive

FOUR, SIX = host_base(at("192.168.1.10").ip, 2), host_base(at("2001:db8::10").ip, 2)
PREFIX = IPv6Network("64:ff9b::/96")
ONE, TWO = at("198.51.100.1", 3478), at("198.51.100.2", 3478)
ONE6 = at("2001:db8:1::1", 3478)


def through(server: TransportAddress) -> TransportAddress:
    assert isinstance(server.ip, IPv4Address)
    return TransportAddress(embed(server.ip, PREFIX), server.port)


class Outside:
    """Servers that see a base come from the addresses of ``seen``; others do not answer."""

    def __init__(self, seen: dict[TransportAddress, TransportAddress]) -> None:
        self.machine = Reflexive(random.Random(1).randbytes)
        self.seen = seen
        self.now = 0.0

    def run(self, *bases: Base) -> Situation | None:
        self.machine.keep(bases, self.seen, self.now)
        for _ in range(4):
            self.machine.handle_timeout(self.now)
            for datagram in self.machine.take_transmits():
                request = decode_untrusted(datagram.data)
                mapped = self.seen[datagram.remote]
                value = pack_xor_address(mapped, request.transaction)
                answer = encode(
                    Method.BINDING, Class.SUCCESS, request.transaction, ((int(Attribute.XOR_MAPPED_ADDRESS), value),)
                )
                assert self.machine.receive(answer, datagram.remote, self.now)
            self.now += 0.5
        return self.machine.situation(41_641, udp=True, tcp=True, relay=True)


def test_one_outside_port_for_all_servers_is_a_mapping_that_depends_on_nothing() -> None:
    mapped = at("203.0.113.9", 4000)
    outside = Outside({ONE: mapped, TWO: mapped})
    assert str(outside.run(FOUR)) == "v4:eim,apdf,random"
    assert outside.machine.mapped() == [(FOUR, mapped)]
    outside.machine.mirrored(Mirrored(FOUR, at("198.51.100.1", 50_000), mapped, heard=True))
    assert str(outside.machine.situation(4000, udp=True, tcp=True, relay=True)) == "v4:eim,adf,preserving"


def test_ports_that_follow_each_other_and_ports_that_do_not() -> None:
    near = Outside({ONE: at("203.0.113.9", 4000), TWO: at("203.0.113.9", 4001)})
    assert str(near.run(FOUR)) == "v4:apdm,apdf,sequential"
    far = Outside({ONE: at("203.0.113.9", 4000), TWO: at("203.0.113.9", 50_000)})
    assert str(far.run(FOUR)) == "v4:apdm,apdf,random"


def test_both_families_are_asked_also_where_one_server_has_both() -> None:
    own = TransportAddress(SIX.address or ONE6.ip, 41_641)
    outside = Outside({ONE: at("203.0.113.9", 4000), ONE6: own})
    assert str(outside.run(FOUR, SIX)) == "v4:eim,apdf,random v6:firewalled"
    assert outside.machine.mapped() == [(SIX, own), (FOUR, at("203.0.113.9", 4000))]


def test_behind_a_nat64_there_is_an_outside_address_of_ipv4_too() -> None:
    own, translated = TransportAddress(SIX.address or ONE6.ip, 41_641), at("203.0.113.9", 4000)
    outside = Outside({ONE6: own, through(ONE): translated, through(TWO): translated})
    assert str(outside.run(SIX)) == "v4:eim,apdf,random v6:firewalled nat64"
    assert set(outside.machine.mapped()) == {(SIX, own), (SIX, translated)}
    assert outside.machine.outside(SIX) == own


def test_nothing_is_known_before_a_server_has_answered() -> None:
    assert Outside({}).run(FOUR) is None


def test_what_a_global_address_lets_in_is_kept_when_the_network_changes_and_what_a_nat_does_is_not() -> None:
    base = host_base(at("45.80.2.2").ip, 2)
    mapped = TransportAddress(at("45.80.2.2").ip, 41_641)
    outside = Outside({ONE: mapped, TWO: mapped})
    assert str(outside.run(base)) == "v4:firewalled"
    again = Mirrored(base, at("198.51.100.1", 50_000), mapped, heard=True), Mirrored(base, ONE, mapped, heard=False)
    outside.machine.mirrored(again[0])
    outside.machine.network_changed(outside.now)
    outside.machine.mirrored(again[1])
    assert str(outside.run(base)) == "v4:open"

    inside = Outside({ONE: at("203.0.113.9", 4000), TWO: at("203.0.113.9", 4000)})
    inside.run(FOUR)
    inside.machine.mirrored(Mirrored(FOUR, ONE, at("203.0.113.9", 4000), heard=True))
    inside.machine.network_changed(inside.now)
    assert str(inside.run(FOUR)) == "v4:eim,apdf,random"
