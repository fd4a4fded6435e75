from __future__ import annotations

from ipaddress import ip_address

import pytest

from tests.support.gateways import HOME, HOME6, OUTSIDE, Entry, FakeGateway, Wire, pcp_server
from tests.unit.proto.portmap.gateway_kinds import KINDS, declined, each_protocol, gained, gateway_of, lost
from warren.model.tunnel import TransportAddress
from warren.proto.portmap.exchange import Datagram, Fetching
from warren.proto.portmap.values import Found, Gateway


@each_protocol
def test_a_gateway_that_speaks_one_protocol_gives_a_way_in(kind: str) -> None:
    fake = gateway_of(kind)
    wire = Wire(fake)
    wire.run(10)
    (mapped,) = wire.mapper.mapped(wire.now)
    assert (str(mapped.address), mapped.protocol) == ("45.80.1.2:51820", kind)
    assert not mapped.verified
    assert 7100 < mapped.expires_in_s <= 7200
    assert [found.protocol for found in wire.mapper.found] == [kind]
    assert fake.entries[51820].client == HOME.source
    assert wire.open_lanes == set()


@each_protocol
def test_a_lease_is_renewed_at_half_of_its_life_for_ever(kind: str) -> None:
    fake = gateway_of(kind, lifetime=lambda _: 1200)
    wire = Wire(fake)
    wire.run(100_000)
    assert gained(wire) == ["45.80.1.2:51820"]
    assert lost(wire) == []
    assert fake.entries[51820].expires_at > wire.now


@each_protocol
def test_what_is_held_is_given_back_at_the_end(kind: str) -> None:
    fake = gateway_of(kind)
    wire = Wire(fake)
    wire.run(10)
    wire.mapper.close(wire.now)
    wire.run(2)
    assert fake.entries == {}
    assert wire.mapper.is_idle
    assert wire.open_lanes == set()
    sent = wire.packets
    wire.run(100_000)
    assert wire.packets == sent


@each_protocol
def test_a_gateway_that_is_silent_when_all_is_over_does_not_hold_anybody_up(kind: str) -> None:
    fake = gateway_of(kind)
    wire = Wire(fake)
    wire.run(10)
    fake.deaf = True
    wire.mapper.close(wire.now)
    wire.run(1)
    assert wire.mapper.is_idle


def test_another_port_releases_the_one_before() -> None:
    for kind in KINDS:
        fake = gateway_of(kind)
        wire = Wire(fake)
        wire.run(10)
        wire.configure(port=40_000)
        wire.run(10)
        assert set(fake.entries) == {40_000}, kind
        assert [str(one.address) for one in wire.mapper.mapped(wire.now)] == ["45.80.1.2:40000"]


@each_protocol
@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.02, 0.3, 1.0, 2.505, 2.515, 2.525, 2.535, 2.545])
def test_stopping_at_any_moment_leaves_nothing_behind(kind: str, after_s: float) -> None:
    fake = gateway_of(kind)
    wire = Wire(fake)
    wire.run(after_s)
    wire.mapper.close(wire.now)
    wire.run(5)
    assert fake.entries == {}
    assert wire.mapper.is_idle


@each_protocol
def test_switched_off_not_a_packet_is_sent(kind: str) -> None:
    fake = gateway_of(kind)
    wire = Wire(fake, enabled=False)
    wire.mapper.again(wire.now)
    wire.announce(fake.announcement(wire.now), pcp_server())
    wire.run(100_000)
    assert wire.sent == []


@each_protocol
def test_without_a_port_gateways_are_only_known(kind: str) -> None:
    fake = gateway_of(kind)
    wire = Wire(fake, port=0)
    wire.run(10)
    assert wire.mapper.is_settled
    assert [found.protocol for found in wire.mapper.found] == [kind]
    assert fake.entries == {}
    sent = wire.packets
    wire.run(800)
    assert wire.packets == sent


def test_everything_a_gateway_speaks_is_found_when_nothing_is_to_be_mapped() -> None:
    wire = Wire(FakeGateway(pcp=True, nat_pmp=True, upnp=1), port=0)
    wire.run(10)
    assert {found.protocol: found.detail for found in wire.mapper.found} == {
        "pcp": "",
        "nat-pmp": "",
        "upnp": "Fritz 7",
    }


def test_the_better_protocol_is_taken() -> None:
    for fake, wanted in (
        (FakeGateway(pcp=True, nat_pmp=True, upnp=2), "pcp"),
        (FakeGateway(nat_pmp=True, upnp=2), "nat-pmp"),
    ):
        wire = Wire(fake)
        wire.run(10)
        assert [one.protocol for one in wire.mapper.mapped(wire.now)] == [wanted]
        assert len(fake.entries) == 1


def test_a_gateway_that_only_knows_nat_pmp_says_so_and_is_asked_in_it_at_once() -> None:
    wire = Wire(FakeGateway(nat_pmp=True))  # RFC 6887 §9
    wire.run(0.2)
    assert gained(wire) == ["45.80.1.2:51820"]


def test_what_pcp_refuses_upnp_may_give() -> None:
    fake = FakeGateway(pcp=True, upnp=2)
    wire = Wire(fake)
    fake.spoil = lambda answer: [answer[:3] + b"\x02" + answer[4:]] if answer[1] == 129 else [answer]
    wire.run(10)
    assert ("pcp", "does not allow it") in declined(wire)
    assert [one.protocol for one in wire.mapper.mapped(wire.now)] == ["upnp"]


@each_protocol
def test_a_refusal_is_told_once_and_tried_again_in_time(kind: str) -> None:
    fake = gateway_of(kind, refuses=2 if kind != "upnp" else 606)
    wire = Wire(fake)
    wire.run(10)
    assert declined(wire) == [(kind, "does not allow it")]
    assert [problem.why for problem in wire.mapper.problems] == ["does not allow it"]
    fake.refuses = 0
    wire.run(1000)
    assert gained(wire) == ["45.80.1.2:51820"]
    assert wire.mapper.problems == ()


def test_a_refusal_for_ever_costs_little() -> None:
    for error_lifetime in (0, 1, 60, 1 << 31):
        wire = Wire(FakeGateway(pcp=True, refuses=8, error_lifetime=error_lifetime))
        wire.run(36_000)
        assert wire.packets < 36_000 / 30 * 8
        assert wire.packets > 40, "it is asked again, however long the error is said to last"


def test_a_gateway_without_any_protocol_is_asked_again_now_and_then() -> None:
    fake = FakeGateway()
    wire = Wire(fake)
    wire.run(60)
    sent = wire.packets
    assert wire.mapper.is_settled
    wire.run(700)
    assert wire.packets == sent
    fake.nat_pmp = True
    wire.run(400)
    assert gained(wire) == ["45.80.1.2:51820"]


def test_a_change_nearby_asks_again_at_once_and_no_faster_than_is_good() -> None:
    fake = FakeGateway()
    wire = Wire(fake)
    wire.run(60)
    fake.pcp = True
    wire.mapper.again(wire.now)
    wire.run(0.1)
    assert gained(wire) == ["45.80.1.2:51820"]
    sent = wire.packets
    for _ in range(1000):
        wire.mapper.again(wire.now)
        wire.run(0.01)
    assert wire.packets - sent < 10


# Losses


@each_protocol
@pytest.mark.parametrize("lost_ones", [1, 2, 3])
def test_lost_packets_are_sent_again(kind: str, lost_ones: int) -> None:
    wire = Wire(gateway_of(kind))
    if kind != "upnp":  # TCP sends again by itself
        wire.lose_next = lost_ones
    wire.run(20)
    wire.mapper.again(wire.now)
    wire.run(20)
    assert gained(wire) == ["45.80.1.2:51820"]


def test_a_renewal_that_is_not_answered_is_tried_until_the_lease_is_over() -> None:
    for kind in KINDS:
        fake = gateway_of(kind)
        wire = Wire(fake)
        wire.run(10)
        fake.deaf = True
        wire.run(7000)
        assert len(wire.mapper.mapped(wire.now)) == 1, kind
        wire.run(400)
        assert wire.mapper.mapped(wire.now) == ()
        assert lost(wire) == ["did not renew it in time"]
        fake.deaf = False
        wire.run(2000)
        assert len(gained(wire)) == 2


# Gateways that begin anew


@each_protocol
def test_a_reboot_is_noticed_and_the_lease_is_there_again(kind: str) -> None:
    fake = gateway_of(kind)
    wire = Wire(fake)
    wire.run(10)
    fake.reboot(wire.now)
    assert fake.entries == {}
    wire.run(400)
    assert set(fake.entries) == {51820}
    assert gained(wire) == ["45.80.1.2:51820"], "for the outside nothing has changed"


@pytest.mark.parametrize("kind", ["pcp", "nat-pmp"])
def test_an_announced_reboot_is_noticed_within_seconds(kind: str) -> None:
    fake = gateway_of(kind)
    wire = Wire(fake)
    wire.run(100)
    fake.reboot(wire.now)
    wire.announce(fake.announcement(wire.now), pcp_server())
    wire.run(5.5)
    assert set(fake.entries) == {51820}


@each_protocol
def test_a_restart_announced_in_another_protocol_is_looked_into_within_seconds(kind: str) -> None:
    fake = gateway_of(kind)
    wire = Wire(fake)
    wire.run(100)
    fake.reboot(wire.now)
    wire.announce(FakeGateway(pcp=True, started_at=wire.now).announcement(wire.now), pcp_server())
    wire.run(6)
    assert set(fake.entries) == {51820}


def test_a_gateway_that_starts_later_is_asked_when_it_says_so() -> None:
    fake = FakeGateway()
    wire = Wire(fake)
    wire.run(100)
    fake.pcp = True
    for _ in range(100):
        wire.announce(fake.announcement(wire.now), pcp_server())
    wire.run(1)
    assert gained(wire) == ["45.80.1.2:51820"]


def test_a_reboot_after_which_upnp_lives_at_another_port_is_survived() -> None:
    fake = gateway_of("upnp")
    wire = Wire(fake)
    wire.run(10)
    fake.reboot(wire.now)
    fake.http_port = 6000
    wire.run(400)
    assert set(fake.entries) == {51820}
    assert lost(wire) == []


@each_protocol
def test_another_public_address_is_noticed(kind: str) -> None:
    fake = gateway_of(kind)
    wire = Wire(fake)
    wire.run(10)
    fake.external = ip_address("45.80.1.77")
    if kind == "pcp":
        fake.reboot(wire.now)  # RFC 6887 §8.5: a server whose addresses change begins anew
    wire.run(400)
    assert gained(wire)[-1] == "45.80.1.77:51820"
    assert [str(one.address) for one in wire.mapper.mapped(wire.now)] == ["45.80.1.77:51820"]


def test_after_a_reboot_another_host_may_have_the_port() -> None:
    for kind in KINDS:
        fake = gateway_of(kind)
        wire = Wire(fake)
        wire.run(10)
        fake.reboot(wire.now)
        fake.entries[51820] = Entry(ip_address("192.168.1.99"), 9, float("inf"), b"another")
        wire.run(400)
        assert [str(one.address) for one in wire.mapper.mapped(wire.now)] != ["45.80.1.2:51820"], kind
        assert len(wire.mapper.mapped(wire.now)) == 1


@pytest.mark.parametrize("kind", ["pcp", "nat-pmp"])
def test_a_storm_of_epochs_costs_little(kind: str) -> None:
    fake = gateway_of(kind)
    wire = Wire(fake)
    wire.run(100)
    sent = wire.packets
    for second in range(3600):  # each answer and each announcement says: I have just begun
        fake.started_at = wire.now - (second % 2) * 100_000
        for _ in range(3):
            wire.announce(fake.announcement(wire.now), pcp_server())
        wire.run(1)
    assert wire.packets - sent < 200
    assert lost(wire) == []


def test_epochs_that_answers_claim_cost_little_too() -> None:
    for kind in ("pcp", "nat-pmp"):
        fake = gateway_of(kind, epoch_lie=lambda epoch: epoch % 7)
        wire = Wire(fake)
        wire.run(36_000)
        assert wire.packets < 36_000 / 300 * 4, kind
        assert lost(wire) == []


# Conflicts, and gateways with habits


@pytest.mark.parametrize("version", [1, 2])
def test_a_port_that_is_taken_leads_to_another(version: int) -> None:
    fake = FakeGateway(upnp=version, entries={51820: Entry(ip_address("192.168.1.9"), 51820, float("inf"))})
    wire = Wire(fake)
    wire.run(10)
    (mapped,) = wire.mapper.mapped(wire.now)
    assert mapped.address.port != 51820
    assert fake.entries[mapped.address.port].port == 51820
    assert fake.entries[51820].client == ip_address("192.168.1.9")
    wire.mapper.close(wire.now)
    wire.run(2)
    assert set(fake.entries) == {51820}


def test_a_gateway_where_every_port_is_taken_is_given_up() -> None:
    fake = FakeGateway(upnp=1)
    fake._add = lambda *_: 718  # type: ignore[method-assign]
    wire = Wire(fake)
    wire.run(10)
    assert declined(wire) == [("upnp", "has given the port to another host")]
    assert fake.asked.count("AddPortMapping") == 5


def test_a_gateway_of_version_2_that_does_not_know_any_port_is_asked_as_one_of_version_1() -> None:
    fake = FakeGateway(upnp=2)
    original = fake._act
    fake._act = lambda action, given, now: 401 if action == "AddAnyPortMapping" else original(action, given, now)  # type: ignore[method-assign]
    wire = Wire(fake)
    wire.run(10)
    assert gained(wire) == ["45.80.1.2:51820"]


def test_a_gateway_that_only_maps_for_ever_is_given_it_back() -> None:
    fake = FakeGateway(upnp=1, only_permanent=True)
    wire = Wire(fake)
    wire.run(10)
    assert fake.entries[51820].expires_at == float("inf")
    (mapped,) = wire.mapper.mapped(wire.now)
    assert mapped.expires_in_s <= 3600, "it is looked after all the same"
    fake.entries.clear()
    wire.run(4000)
    assert set(fake.entries) == {51820}
    assert lost(wire) == []
    wire.mapper.close(wire.now)
    wire.run(2)
    assert fake.entries == {}


# Verified from outside


def test_a_mapping_is_verified_by_what_comes_in_and_no_longer_when_it_lies_elsewhere() -> None:
    fake = FakeGateway(nat_pmp=True)
    wire = Wire(fake)
    wire.run(10)
    outside = TransportAddress(OUTSIDE, 51820)
    assert not wire.mapper.confirm(TransportAddress(OUTSIDE, 51821))
    assert not wire.mapper.mapped(wire.now)[0].verified
    assert wire.mapper.confirm(outside)
    assert wire.mapper.mapped(wire.now)[0].verified
    wire.run(10_000)
    assert wire.mapper.mapped(wire.now)[0].verified, "a renewal changes nothing"
    fake.external = ip_address("45.80.1.77")
    wire.run(400)
    assert not wire.mapper.mapped(wire.now)[0].verified


def test_a_reflexive_check_verifies_a_mapping_or_shows_another_nat() -> None:
    wire = Wire(FakeGateway(pcp=True))
    wire.run(10)
    assert not wire.mapper.observed(TransportAddress(OUTSIDE, 40_000), HOME.source), "the right host, another port"
    assert wire.mapper.observed(TransportAddress(ip_address("45.80.9.9"), 51820), HOME.source)
    assert wire.mapper.mapped(wire.now)[0].double_nat
    assert wire.mapper.observed(TransportAddress(OUTSIDE, 51820), HOME.source)
    (mapped,) = wire.mapper.mapped(wire.now)
    assert (mapped.verified, mapped.double_nat) == (True, False)


def test_what_is_seen_through_another_gateway_says_nothing_of_this_one() -> None:
    other = Gateway(ip_address("10.0.0.1"), 3, ip_address("10.0.0.20"))
    wire = Wire(FakeGateway(pcp=True), FakeGateway(other, pcp=True, external=ip_address("45.81.2.2")))
    wire.run(10)
    seen = TransportAddress(ip_address("45.81.2.2"), 51820)
    wire.mapper.observed(seen, None)
    by_gateway = {one.gateway: one for one in wire.mapper.mapped(wire.now)}
    assert by_gateway[other].verified
    assert not by_gateway[HOME].double_nat


# PCP: one identity for as long as the mapping lives


def test_a_node_that_crashed_gets_its_mapping_back_by_the_same_secret() -> None:
    fake = FakeGateway(pcp=True)
    secret = bytes(range(32))
    Wire(fake, secret=secret).run(10)
    again = Wire(fake, secret=secret)
    again.run(10)
    assert gained(again) == ["45.80.1.2:51820"]
    stranger = Wire(fake, seed=2)
    stranger.run(10)
    assert declined(stranger) == [("pcp", "does not allow it")]


def test_a_node_that_crashed_without_its_secret_asks_in_a_protocol_that_has_none() -> None:
    fake = FakeGateway(pcp=True, nat_pmp=True)
    Wire(fake).run(10)
    stranger = Wire(fake, seed=2)
    stranger.run(10)
    assert declined(stranger) == [("pcp", "does not allow it")]
    assert [one.protocol for one in stranger.mapper.mapped(stranger.now)] == ["nat-pmp"]


# IPv6


@pytest.mark.parametrize("kind", ["pcp", "upnp"])
def test_a_pinhole_is_opened_kept_and_closed(kind: str) -> None:
    fake = gateway_of(kind, gateway=HOME6)
    wire = Wire(fake)
    wire.run(10)
    (mapped,) = wire.mapper.mapped(wire.now)
    assert str(mapped.address) == "[2a0c:d000:1:1::20]:51820"
    wire.run(50_000)
    assert gained(wire) == ["[2a0c:d000:1:1::20]:51820"]
    if kind == "upnp":
        assert fake.pinholes == {1: ("2a0c:d000:1:1::20", 51820)}
    fake.reboot(wire.now)
    wire.run(400)
    assert len(fake.pinholes) + len(fake.entries) == 1
    wire.mapper.close(wire.now)
    wire.run(2)
    assert (fake.pinholes, fake.entries) == ({}, {})


def test_an_ipv6_gateway_is_talked_to_at_its_own_address_whatever_it_calls_itself() -> None:
    fake = FakeGateway(HOME6, upnp=2)
    wire = Wire(fake)
    wire.run(10)
    fetches = [one for one in wire.sent if isinstance(one, Fetching)]
    assert {(str(one.remote.ip), one.remote.scope) for one in fetches} == {("fe80::1", 2)}
    searches = [one for one in wire.sent if isinstance(one, Datagram) and one.remote.port == 1900]
    assert {(str(one.remote.ip), one.remote.scope, one.source) for one in searches} == {
        ("ff02::c", 2, None),
        ("fe80::1", 2, None),
    }


def test_found_is_told_once() -> None:
    wire = Wire(FakeGateway(pcp=True, refuses=2))
    wire.run(10_000)
    assert [event.protocol for event in wire.events if isinstance(event, Found)] == ["pcp"]


# Gateways that come and go


def test_a_gateway_that_is_gone_is_given_its_lease_back_and_forgotten() -> None:
    fake = FakeGateway(pcp=True)
    wire = Wire(fake)
    wire.run(10)
    wire.configure(gateways=[])
    wire.run(1)
    assert fake.entries == {}
    assert wire.mapper.mapped(wire.now) == ()
    assert wire.mapper.next_deadline() is None


def test_more_gateways_than_a_host_has_are_passed_over() -> None:
    many = [Gateway(ip_address(f"10.0.{i}.1"), i, ip_address(f"10.0.{i}.2")) for i in range(50)]
    wire = Wire(FakeGateway())
    wire.configure(gateways=many)
    wire.run(20)
    assert len({one.gateway for one in wire.sent if isinstance(one, Datagram)} - {HOME}) == 8
