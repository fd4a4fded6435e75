"""What a gateway says, and whoever pretends to be one, as far as it is believed."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tests.support.gateways import HOME, FakeGateway, Wire, pcp_server
from tests.unit.proto.portmap.gateway_kinds import declined, each_protocol, gained, gateway_of
from warren.model.tunnel import TransportAddress
from warren.proto.portmap.exchange import Datagram, Fetching


def test_a_gateway_that_says_it_has_mapped_and_has_not_is_found_out() -> None:
    wire = Wire(FakeGateway(upnp=1, is_lying=True))
    wire.run(10)
    assert wire.mapper.mapped(wire.now) == ()
    assert declined(wire) == [("upnp", "says that the port is mapped, and it is not")]


@each_protocol
@pytest.mark.parametrize("address", ["0.1.2.3", "127.0.0.1", "224.0.0.1", "255.255.255.255", "169.254.169.254"])
def test_an_address_that_is_no_hosts_is_not_claimed(kind: str, address: str) -> None:
    wire = Wire(gateway_of(kind, external=ip_address(address)))
    wire.run(20)
    assert wire.mapper.mapped(wire.now) == ()
    assert gained(wire) == []


@each_protocol
@pytest.mark.parametrize("address", ["10.1.2.3", "192.168.0.5", "172.20.0.1", "100.64.3.4"])
def test_a_private_address_outside_is_told_to_be_behind_another_nat(kind: str, address: str) -> None:
    wire = Wire(gateway_of(kind, external=ip_address(address)))
    wire.run(20)
    (mapped,) = wire.mapper.mapped(wire.now)
    assert mapped.double_nat


@each_protocol
def test_port_0_is_never_taken(kind: str) -> None:
    fake = gateway_of(kind, external_port=lambda _: 0)
    wire = Wire(fake)
    wire.run(20)
    assert wire.mapper.mapped(wire.now) == ()
    if kind != "upnp":  # where nothing is ever said of port 0, not even that it be removed: it may be a whole host's
        assert fake.entries == {}, "what it has made all the same is given back"


@pytest.mark.parametrize("kind", ["pcp", "nat-pmp"])
@pytest.mark.parametrize("lifetime", [0, 1, 19])
def test_a_lifetime_too_short_to_keep_is_none(kind: str, lifetime: int) -> None:
    wire = Wire(gateway_of(kind, lifetime=lambda _: lifetime))
    wire.run(3600)
    assert wire.mapper.mapped(wire.now) == ()
    assert wire.packets < 120


@pytest.mark.parametrize("kind", ["pcp", "nat-pmp"])
def test_a_lifetime_without_end_is_bounded(kind: str) -> None:
    fake = gateway_of(kind, lifetime=lambda _: (1 << 32) - 1)
    wire = Wire(fake)
    wire.run(10)
    (mapped,) = wire.mapper.mapped(wire.now)
    assert mapped.expires_in_s <= 86_400


def test_an_answer_with_another_nonce_is_not_believed() -> None:
    fake = FakeGateway(pcp=True)
    fake.spoil = lambda answer: [answer[:24] + bytes(12) + answer[36:]] if answer[1] == 129 else [answer]
    wire = Wire(fake)
    wire.run(20)
    assert wire.mapper.mapped(wire.now) == ()


def test_an_answer_for_a_third_party_is_not_believed() -> None:
    fake = FakeGateway(pcp=True)
    option = b"\x01\x00\x00\x10" + bytes(10) + b"\xff\xff" + HOME.source.packed
    fake.spoil = lambda answer: [answer + option] if answer[1] == 129 else [answer]
    wire = Wire(fake)
    wire.run(20)
    assert wire.mapper.mapped(wire.now) == ()


def test_an_answer_about_another_port_is_not_believed() -> None:
    fake = FakeGateway(nat_pmp=True)
    fake.spoil = lambda answer: [answer[:8] + b"\x9c\x40" + answer[10:]] if answer[:2] == b"\0\x81" else [answer]
    wire = Wire(fake)
    wire.run(20)
    assert wire.mapper.mapped(wire.now) == ()


def test_an_answer_of_the_other_family_is_not_believed() -> None:
    fake = FakeGateway(pcp=True)
    address = ip_address("2a0c:d000::1").packed
    fake.spoil = lambda answer: [answer[:44] + address] if answer[1] == 129 else [answer]
    wire = Wire(fake)
    wire.run(20)
    assert wire.mapper.mapped(wire.now) == ()


@pytest.mark.parametrize("kind", ["pcp", "nat-pmp"])
@pytest.mark.parametrize(
    "remote",
    [
        TransportAddress(ip_address("192.168.1.66"), 5351),
        TransportAddress(HOME.address, 5352),
        TransportAddress(ip_address("45.80.1.2"), 5351),
    ],
)
def test_only_the_gateway_answers(kind: str, remote: TransportAddress) -> None:
    fake = gateway_of(kind)
    honest = Wire(gateway_of(kind))
    answers: list[bytes] = []
    fake.spoil = lambda answer: answers.append(answer) or []  # type: ignore[func-returns-value]
    wire = Wire(fake)
    for _ in range(2000):
        wire.run(0.05)
        for answer in answers:
            for lane in (1, 2):
                wire.inject(lane, answer, remote)
        answers.clear()
    assert wire.mapper.mapped(wire.now) == ()
    assert wire.mapper.found == ()
    honest.run(10)
    assert len(honest.mapper.mapped(honest.now)) == 1


def test_who_guesses_at_answers_is_not_heard_any_more() -> None:
    fake = FakeGateway(pcp=True)
    wire = Wire(fake)
    wire.run(0.015)  # the request is out
    lane = next(one.lane for one in reversed(wire.sent) if isinstance(one, Datagram))
    for _ in range(32):
        wire.inject(lane, b"\x02\x81" + bytes(58), pcp_server())
    wire.run(0.2)
    assert wire.mapper.mapped(wire.now) == ()


@pytest.mark.parametrize(
    "remote",
    [
        TransportAddress(ip_address("192.168.1.66"), 5351),
        TransportAddress(HOME.address, 5350),
        TransportAddress(HOME.address, 5351, HOME.interface + 1),
    ],
)
@each_protocol
def test_an_announcement_of_somebody_else_makes_us_do_nothing(kind: str, remote: TransportAddress) -> None:
    wire = Wire(gateway_of(kind))
    wire.run(100)
    sent = wire.packets
    for data in (b"\x02\x80" + bytes(22), b"\x00\x80" + bytes(10)):
        wire.announce(data, remote)
    wire.run(20)
    assert wire.packets == sent


@each_protocol
def test_a_forged_announcement_changes_nothing_but_makes_us_ask(kind: str) -> None:
    fake = gateway_of(kind)
    wire = Wire(fake)
    wire.run(100)
    for remote in (TransportAddress(ip_address("192.168.1.66"), 5351), pcp_server()):
        wire.announce(b"\x02\x80" + bytes(22), remote)
        wire.announce(b"\x00\x80" + bytes(10), remote)
        wire.announce(b"", remote)
        wire.announce(b"\x02" * 1200, remote)
    wire.run(20)
    assert gained(wire) == ["45.80.1.2:51820"]
    assert len(wire.mapper.mapped(wire.now)) == 1


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://192.168.1.66:5000/root.xml",
        "http://router.local:5000/root.xml",
        "https://192.168.1.1:5000/root.xml",
        "http://user@192.168.1.1:5000/root.xml",
        "http://192.168.1.1:0/root.xml",
        "http://192.168.1.1:5000/a b",
        "http://192.168.1.1:5000/\rX: y",
        "file:///etc/passwd",
        "http://[2a0c:d000::1]:5000/root.xml",
    ],
)
def test_a_description_elsewhere_is_not_fetched(location: str) -> None:
    wire = Wire(FakeGateway(upnp=2, location=location))
    wire.run(20)
    assert not [one for one in wire.sent if isinstance(one, Fetching)]


@each_protocol
def test_nobody_but_the_gateway_is_spoken_to_and_nothing_is_subscribed_to(kind: str) -> None:
    fake = gateway_of(kind)
    wire = Wire(fake)
    wire.run(10_000)
    places = {str(one.remote.ip) for one in wire.sent if isinstance(one, (Datagram, Fetching))}
    assert places <= {"192.168.1.1", "239.255.255.250"}
    assert all(
        one.request.startswith((b"GET ", b"POST "))
        and b"SUBSCRIBE" not in one.request
        and b"CALLBACK" not in one.request
        for one in wire.sent
        if isinstance(one, Fetching)
    )
