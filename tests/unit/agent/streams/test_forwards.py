"""Where forwards go."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tests.unit.agent.streams.fakes import member, view
from warren.agent.streams.directory import NetworkView
from warren.agent.streams.forward_text import parse_forward, parse_socks
from warren.agent.streams.forwards import Asked, asked_item, objection
from warren.agent.streams.order import Orders
from warren.agent.streams.services import EXPIRED
from warren.agent.streams.values import Item
from warren.model.documents import Rule
from warren.model.policy import DEFAULT_POLICY
from warren.model.services import Service

WEB = Service(name="web", at=("member:bob",), target="localhost:8080", port=80)
NAMES = Service(name="names", at=("member:bob",), target="localhost:53", protocol="udp", helper="tftp")
BOB = member("bob", 2)


def item(target: str, *views: NetworkView, listen: str = "8080") -> Item:
    made = asked_item(Asked(parse_forward(listen, target), "held"), views or (view(WEB, NAMES),), Orders({}), 0)
    assert made.entry is not None
    return made


def goals(target: str, *views: NetworkView, listen: str = "8080") -> list[tuple[str, str, int]]:
    found = item(target, *views, listen=listen).entry
    assert found is not None
    return [(one.side, one.host, one.port) for one in found.way.backends]


@pytest.mark.parametrize("name", ["bob", "BOB", "bob.home", "bob.home.internal", "bob.home.internal."])
def test_to_a_member_by_ipv6_and_then_ipv4(name: str) -> None:
    assert goals(f"{name}:80") == [("overlay", str(BOB.address6), 80), ("overlay", "10.77.0.2", 80)]


@pytest.mark.parametrize("name", ["web", "web:80", "web.svc", "web.home", "web.svc.home", "web.svc.home.internal:80"])
def test_to_a_service(name: str) -> None:
    assert goals(name) == [("overlay", str(BOB.service_address("web")), 80)]
    assert item(name).networks == ("home",)


def test_a_member_has_its_name_before_a_service_that_is_called_alike() -> None:
    alike = Service(name="bob", at=("member:carol",), target="localhost:80")
    assert goals("bob:80", view(alike))[0][1] == str(BOB.address6)
    assert goals("bob.svc", view(alike)) == [("overlay", str(member("carol", 3).service_address("bob")), 80)]


def test_a_service_of_udp_brings_its_helper() -> None:
    found = item("names/udp")
    assert found.entry is not None
    assert (found.entry.kind, found.entry.listen[0].protocol) == ("tftp", "udp")


def test_to_an_address_of_the_overlay_and_to_one_behind_a_member() -> None:
    assert goals("10.77.0.2:80") == [("overlay", "10.77.0.2", 80)]
    open_to_all = Rule(action="allow", sources=("members",), destinations=("192.0.2.0/24",))
    behind = view(policy=(*DEFAULT_POLICY, open_to_all))
    assert goals("192.0.2.9:80", behind) == [("overlay", "192.0.2.9", 80)]
    assert item("192.0.2.9:80", behind).backends == ("carol",)


def test_from_the_overlay_to_this_host() -> None:
    assert goals("localhost:80", listen="overlay:80") == [("host", "localhost", 80)]
    found = item("bob:80", listen="overlay:80").entry
    assert found is not None
    assert [(one.side, one.address) for one in found.listen] == [
        ("overlay", str(member("me", 1).address6)),
        ("overlay", "10.77.0.1"),
    ]
    assert found.way.backends[0].side == "host"  # a member that is called so later does not get what was the host's


def test_from_the_overlay_into_it_must_be_said_in_full() -> None:
    assert goals("bob.home.internal:80", listen="overlay:80")[0] == ("overlay", str(BOB.address6), 80)
    assert goals("10.77.0.2:80", listen="overlay:80") == [("overlay", "10.77.0.2", 80)]


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("nobody:80", "no member and no service is called nobody; `warren status` lists them"),
        ("nobody.svc", "no member and no service is called nobody.svc"),
        ("bob.elsewhere:80", "no member and no service is called bob.elsewhere"),
        ("203.0.113.9:80", "203.0.113.9 is no address of the overlay, and behind no member; see `warren status`"),
        ("10.77.9.9:80", "no live member has the address 10.77.9.9"),
        ("web:81", "service web is at port 80"),
        ("names", "service names is of udp: say names/udp"),
        ("bob", "bob is a member, so say the port as well: bob:PORT"),
        ("192.0.2.9:80", "the policy of home does not let this node reach 192.0.2.9 at tcp/80: no rule allows it"),
    ],
)
def test_what_leads_nowhere_is_refused_with_the_reason(target: str, sentence: str) -> None:
    found = item(target)
    assert sentence in found.problem
    assert found.entry is not None
    assert (found.entry.way.backends, found.entry.way.refusal) == ((), found.problem)
    assert found.entry.way.refused_as == ("policy" if "policy" in sentence else "unresolved")


def test_a_name_in_two_networks_must_say_which() -> None:
    both = (view(), view(network="work"))
    assert item("bob:80", *both).problem == "bob is a name in home and work; say which, as in bob.home"
    assert goals("bob.work:80", *both)[0][1] == str(member("bob", 2, network="work").address6)


def test_a_service_that_nobody_serves_is_refused_as_that() -> None:
    gone = Service(name="gone", at=("tag:none",), target="localhost:80")
    found = item("gone", view(gone)).entry
    assert found is not None
    assert (found.way.refusal, found.way.refused_as) == (
        "nobody in home serves gone now; `warren service list home` has who should",
        "no-backend",
    )


def test_what_the_policy_forbids_is_refused() -> None:
    rule = Rule(action="deny", sources=("member:me",), destinations=("member:bob",), protocol="tcp", ports=("22",))
    made = view(policy=(rule, *DEFAULT_POLICY))
    assert f"does not let this node reach {BOB.address6} at tcp/22: rule 1 denies it" in item("bob:22", made).problem
    assert item("bob:23", made).problem == ""


def test_socks_is_for_the_overlay_and_for_the_user_who_runs_the_agent() -> None:
    made = asked_item(Asked(parse_socks("1080"), "config"), (view(),), Orders({}), 1000)
    assert made.entry is not None
    assert (made.entry.kind, made.entry.owner_uid) == ("socks", 1000)
    assert set(made.entry.allowed) == {view().directory.spec.prefix6, "10.77.0.0/16", "192.0.2.0/24"}
    by_root = asked_item(Asked(parse_socks("1080"), "config"), (view(),), Orders({}), 0).entry
    assert by_root is not None
    assert by_root.owner_uid is None


@pytest.mark.parametrize(
    ("address", "port", "reason", "sentence"),
    [
        ("10.77.0.2", 25, "policy", "rule 1 denies it; who administers home can allow it"),
        (str(member("bob", 2).address6), 25, "policy", "rule 1 denies it"),
        ("192.0.2.5", 80, "policy", "no rule allows it"),  # behind carol: no selector means it
        ("10.77.0.99", 80, "unresolved", "no live member has the address 10.77.0.99"),
        ("10.77.0.2", 80, "", ""),
        ("10.77.0.1", 25, "", ""),  # this node: there is no firewall in between
        (str(member("me", 1).address6), 25, "", ""),
        ("8.8.8.8", 25, "", ""),  # the entry of the SOCKS server says where it may go at all
    ],
)
def test_a_program_of_this_host_is_told_why_it_may_not_go_there(
    address: str, port: int, reason: str, sentence: str
) -> None:
    deny = Rule(action="deny", sources=("members",), destinations=("members",), protocol="tcp", ports=("25",))
    found = objection([view(policy=(deny, *DEFAULT_POLICY))], ip_address(address), "tcp", port)
    assert (found is None) == (not reason)
    if found is not None:
        assert found[0] == reason
        assert sentence in found[1]


def test_whose_lease_has_ended_goes_nowhere() -> None:
    assert objection([view(state="expired")], ip_address("10.77.0.2"), "tcp", 80) == ("policy", EXPIRED)


def test_without_a_network_there_is_nobody() -> None:
    made = asked_item(Asked(parse_forward("8080", "bob:80"), "held"), (), Orders({}), 0)
    assert "no member and no service is called bob" in made.problem
    made = asked_item(Asked(parse_forward("overlay:80", "localhost:80"), "kept"), (), Orders({}), 0)
    assert (made.entry, made.problem) == (None, "this node has no overlay address now")
