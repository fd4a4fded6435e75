from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.unit.doctor.seen import (
    FIREWALLED6,
    HEALTHY_KERNEL,
    LAN,
    OPEN4,
    OPEN6,
    SILENT4,
    family,
    nat,
    observed,
)
from warren.doctor.judge import judge
from warren.doctor.observed import Family, GatewaySeen, LifetimeSeen, Observed, TcpSeen
from warren.doctor.report import Finding

COORDINATOR = TcpSeen(role="coordinator", name="coordinator of home", place="https://c", outcome="good")
RELAY = TcpSeen(role="relay", name="relay r", place="r:443", outcome="good")


def findings(seen: Observed, topic: str) -> list[Finding]:
    return [finding for finding in judge(seen).findings if finding.topic == topic]


def only(seen: Observed, topic: str) -> Finding:
    (finding,) = findings(seen, topic)
    return finding


def kernel(**changes: Any) -> Observed:
    return observed(kernel=msgspec.structs.replace(HEALTHY_KERNEL, **changes))


def test_a_host_behind_an_easy_nat_is_healthy() -> None:
    report = judge(observed())
    assert report.healthy
    assert {finding.level for finding in report.findings} <= {"good", "note"}
    assert (report.kind, report.two_nics) == ("hidden", False)


EVERYTHING = [
    observed(),
    observed(ipv4=OPEN4, ipv6=OPEN6),
    observed(ipv4=family(nat=nat(mapping="apdm", allocation="random")), ipv6=FIREWALLED6),
    observed(ipv4=family(nat=nat(mapping="adm", allocation="sequential", filtering="eif", hairpin=True))),
    observed(ipv4=family(nat=nat(mapping=None, filtering=None, allocation=None, hairpin=None, discovery=None))),
    observed(ipv4=SILENT4, tcp=(COORDINATOR,)),
    observed(ipv4=SILENT4, ipv6=FIREWALLED6),
    observed(nics=()),
    observed(ipv4=family(path_mtu=1280, lifetime=LifetimeSeen(at_least_s=10, below_s=20))),
    observed(hops=("192.168.1.1", "10.0.0.1"), gateways=(GatewaySeen(address="192.168.1.1", protocol="pcp"),)),
    observed(passed_over=("the name x: there was no time left",), proxy="proxy:3128"),
    kernel(tun="is missing", nftables="it is missing", gso=False, gro=False, ipv6_disabled=True),
    kernel(admin=False, tun="may not be opened by this user", nftables="x", receive_buffer_bytes=212_992),
    kernel(clock_synchronised=False, user_namespaces="none", strict_reverse_path=("eth0",)),
]


@pytest.mark.parametrize("seen", EVERYTHING)
def test_every_finding_that_is_not_good_says_what_it_means_or_what_to_change(seen: Observed) -> None:
    for finding in judge(seen).findings:
        assert finding.what
        assert not finding.what.endswith(".")
        if finding.level == "bad":
            assert finding.meaning
            assert finding.remedy
    assert msgspec.json.decode(msgspec.json.encode(judge(seen)))["words"]


@pytest.mark.parametrize(
    ("changes", "level", "part"),
    [
        ({"mapping": "eim"}, "good", "the same for everybody"),
        ({"mapping": "adm"}, "note", "address-dependent mapping"),
        ({"mapping": "apdm"}, "note", "address- and port-dependent mapping"),
        ({"mapping": None}, "unknown", "one server alone"),
    ],
)
def test_the_mapping_of_a_nat_decides_how_it_is_judged(changes: dict[str, Any], level: str, part: str) -> None:
    finding = only(observed(ipv4=family(nat=nat(**changes))), "IPv4")
    assert (finding.level, part in finding.what) == (level, True)


def test_filter_and_hairpin_are_told_when_they_are_known() -> None:
    assert only(observed(ipv4=family(nat=nat(filtering="eif"))), "IPv4 filter").level == "good"
    assert only(observed(ipv4=family(nat=nat(filtering="adf"))), "IPv4 filter").level == "note"
    assert only(observed(ipv4=family(nat=nat(filtering=None, discovery=None))), "IPv4 filter").level == "unknown"
    assert findings(observed(ipv4=family(nat=nat(hairpin=None))), "IPv4 hairpin") == []


def test_blocked_udp_is_bad_unless_a_relay_over_tls_answers() -> None:
    blocked = observed(ipv4=SILENT4)
    assert only(blocked, "UDP").level == "bad"
    assert not judge(blocked).healthy
    assert only(observed(ipv4=SILENT4, tcp=(COORDINATOR,)), "UDP").level == "bad"
    assert "TCP gets out" in only(observed(ipv4=SILENT4, tcp=(COORDINATOR,)), "UDP").what
    relayed = observed(ipv4=SILENT4, tcp=(COORDINATOR, RELAY))
    assert only(relayed, "UDP").level == "warning"
    assert judge(relayed).healthy


def test_one_family_that_answers_is_enough_for_udp() -> None:
    seen = observed(ipv4=SILENT4, ipv6=OPEN6)
    assert findings(seen, "UDP") == []
    assert only(seen, "IPv4").level == "warning"
    assert judge(seen).healthy


def test_a_firewall_on_this_host_is_told_from_one_outside() -> None:
    refused = msgspec.structs.replace(SILENT4, refused="Operation not permitted")
    assert "this host itself refuses" in only(observed(ipv4=refused), "UDP").what


def test_nobody_to_ask_is_unknown_and_not_bad() -> None:
    nobody = observed(ipv4=Family(version=4))
    assert only(nobody, "UDP").level == "unknown"
    assert judge(nobody).healthy


def test_no_route_is_bad_only_when_nobody_answers() -> None:
    alone = msgspec.structs.replace(LAN, gateways=())
    assert only(observed(nics=(alone,), ipv4=Family(version=4)), "way out").level == "bad"
    assert only(observed(nics=(alone,)), "way out").level == "note"
    dead = msgspec.structs.replace(COORDINATOR, outcome="silent", detail="it cannot be reached")
    assert only(observed(ipv4=SILENT4, tcp=(dead,)), "way out").level == "bad"


@pytest.mark.parametrize(
    ("advertisements", "accepts", "level", "part"),
    [
        (0, True, "note", "no router advertisement"),
        (3, False, "warning", "does not heed"),
        (3, True, "note", "no global IPv6 address"),
        (None, None, "note", "no global IPv6 address"),
    ],
)
def test_why_there_is_no_ipv6_is_told(advertisements: int | None, accepts: bool | None, level: str, part: str) -> None:
    lan = msgspec.structs.replace(LAN, advertisements=advertisements, accepts_advertisements=accepts)
    finding = only(observed(nics=(lan,)), "IPv6")
    assert (finding.level, part in finding.what) == (level, True)


def test_ipv6_that_nobody_could_be_asked_about_is_unknown() -> None:
    dual = msgspec.structs.replace(LAN, addresses=("2001:db8::1/64",), gateways=("fe80::1",))
    assert only(observed(nics=(dual,)), "IPv6").level == "unknown"
    assert only(kernel(ipv6_disabled=True), "IPv6").level == "note"
    assert only(observed(ipv6=OPEN6), "IPv6").level == "good"


@pytest.mark.parametrize(
    ("hops", "part"),
    [
        (("192.168.1.1", "100.64.0.1", "203.0.113.9"), "carrier's NAT (100.64.0.1)"),
        (("192.168.1.1", "10.0.0.1"), "two routers with private addresses"),
        (("192.168.1.1", "203.0.113.9"), ""),
        (("", "192.168.1.1"), ""),
        ((), ""),
    ],
)
def test_a_second_nat_is_seen_by_the_routers_on_the_way(hops: tuple[str, ...], part: str) -> None:
    found = findings(observed(hops=hops), "double NAT")
    assert [part in finding.what for finding in found] == ([True] if part else [])
    assert findings(observed(hops=hops, ipv4=OPEN4), "double NAT") == []


def test_port_mapping_matters_behind_nat_only() -> None:
    there = (GatewaySeen(address="192.168.1.1", protocol="pcp"),)
    assert only(observed(gateways=there), "port mapping").level == "good"
    assert only(observed(gateways=()), "port mapping").level == "note"
    assert findings(observed(gateways=None), "port mapping") == []
    assert findings(observed(gateways=(), ipv4=OPEN4), "port mapping") == []


@pytest.mark.parametrize(
    ("version", "mtu", "level"),
    [(4, 1500, "good"), (4, 1340, "note"), (4, 1280, "warning"), (6, 1340, "warning"), (6, 1360, "note")],
)
def test_the_mtu_on_the_way_is_held_against_what_a_tunnel_needs(version: int, mtu: int, level: str) -> None:
    seen = (
        observed(ipv4=family(path_mtu=mtu))
        if version == 4
        else observed(ipv4=family(path_mtu=None), ipv6=msgspec.structs.replace(OPEN6, path_mtu=mtu))
    )
    assert only(seen, "MTU").level == level


@pytest.mark.parametrize(
    ("lifetime", "level"),
    [
        (LifetimeSeen(at_least_s=20, below_s=28), "warning"),
        (LifetimeSeen(at_least_s=28, below_s=45), "good"),
        (LifetimeSeen(at_least_s=120, below_s=None), "good"),
    ],
)
def test_short_lifetimes_are_a_warning(lifetime: LifetimeSeen, level: str) -> None:
    assert only(observed(ipv4=family(lifetime=lifetime)), "lifetime").level == level


def test_somebody_else_in_a_coordinators_place_is_bad_and_silence_is_a_warning() -> None:
    wrong = msgspec.structs.replace(COORDINATOR, outcome="wrong", detail="an intercepting proxy")
    silent = msgspec.structs.replace(COORDINATOR, outcome="silent", detail="no answer")
    assert only(observed(tcp=(wrong,)), "coordinator of home").level == "bad"
    assert only(observed(tcp=(silent,)), "coordinator of home").level == "warning"
    assert only(observed(tcp=(COORDINATOR,)), "coordinator of home").level == "good"


def test_a_captive_portal_is_told_once_and_is_bad() -> None:
    caught = msgspec.structs.replace(COORDINATOR, outcome="wrong", detail="x", portal="http://hotel.example/login")
    finding = only(observed(tcp=(caught, caught)), "captive portal")
    assert (finding.level, "hotel.example" in finding.what) == ("bad", True)


def test_a_wrong_clock_is_told_with_its_offset() -> None:
    off = msgspec.structs.replace(COORDINATOR, clock_offset_s=-7200.0)
    finding = only(observed(tcp=(off,)), "clock")
    assert finding.level == "warning"
    assert "2 hours ahead" in finding.what
    assert "timedatectl" in finding.remedy
    right = msgspec.structs.replace(COORDINATOR, clock_offset_s=0.2)
    assert only(observed(tcp=(right,)), "clock").level == "good"
    assert only(kernel(clock_synchronised=False), "clock").level == "note"
    assert findings(kernel(clock_synchronised=None), "clock") == []


@pytest.mark.parametrize(
    ("changes", "topic", "level"),
    [
        ({"tun": "is missing"}, "TUN", "bad"),
        ({"tun": "may not be opened by this user", "admin": False}, "TUN", "unknown"),
        ({"admin": False}, "TUN", "unknown"),
        ({"nftables": "libnftables.so.1 is missing"}, "nftables", "bad"),
        ({"nftables": "not permitted", "admin": False}, "nftables", "unknown"),
        ({"gso": False}, "kernel", "note"),
        ({"admin": False, "receive_buffer_bytes": 212_992}, "kernel", "note"),
        ({"user_namespaces": "none"}, "lab", "note"),
        ({}, "rootless", "good"),
        ({"rootless": "no user namespaces: raise a sysctl"}, "rootless", "note"),
        ({"rootless": "no user namespaces: raise a sysctl", "admin": False}, "rootless", "warning"),
    ],
)
def test_what_the_kernel_lacks_is_told_and_what_this_user_may_not_see_is_unknown(
    changes: dict[str, Any], topic: str, level: str
) -> None:
    assert only(kernel(**changes), topic).level == level


def test_strict_reverse_path_filtering_matters_with_two_uplinks() -> None:
    second = msgspec.structs.replace(LAN, name="eth1", addresses=("192.168.2.10/24",), gateways=("192.168.2.1",))
    strict = msgspec.structs.replace(HEALTHY_KERNEL, strict_reverse_path=("eth0", "eth1"))
    levels = [finding.level for finding in findings(observed(nics=(LAN, second), kernel=strict), "interfaces")]
    assert levels == ["good", "warning"]
    assert findings(observed(kernel=strict), "interfaces") == []


def test_a_server_at_an_address_of_a_family_that_is_not_here_is_no_news_if_it_answers_at_another() -> None:
    there = msgspec.structs.replace(RELAY, place="203.0.113.1:443")
    six = msgspec.structs.replace(RELAY, place="[2001:db8::1]:443", outcome="silent", detail="it cannot be reached")
    by_url = msgspec.structs.replace(COORDINATOR, place="https://[2001:db8::1]:8443", outcome="silent", detail="x")
    assert [one.level for one in findings(observed(tcp=(there, six)), RELAY.name)] == ["good"]
    assert [one.level for one in findings(observed(tcp=(COORDINATOR, by_url)), COORDINATOR.name)] == ["good"]
    assert only(observed(tcp=(six,)), RELAY.name).level == "warning"
    dual = msgspec.structs.replace(LAN, gateways=("192.168.1.1", "fe80::1"))
    assert [one.level for one in findings(observed(nics=(dual,), tcp=(there, six)), RELAY.name)] == ["good", "warning"]


def test_what_is_asked_already_is_not_asked_twice() -> None:
    asked = msgspec.structs.replace(COORDINATOR, outcome="silent", detail="no answer: is the coordinator running?")
    assert only(observed(tcp=(asked,)), COORDINATOR.name).remedy == ""


def test_blocked_udp_is_told_once_and_the_host_is_hidden_as_far_as_can_be_seen() -> None:
    blocked = observed(ipv4=SILENT4, tcp=(COORDINATOR, RELAY))
    assert findings(blocked, "IPv4") == []
    assert "UDP gets no answer, TCP does" in judge(blocked).words
