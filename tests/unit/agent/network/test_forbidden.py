"""Which connections end when a policy has changed: those that it forbids, of this network, and no others."""

from __future__ import annotations

import socket
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.agent.streams.fakes import member, view
from warren.agent.network.forbidden import Law, forbidden
from warren.agent.streams.directory import Directory
from warren.l3.firewall import Own
from warren.linux.tcp_sockets import Opened, TcpSocket
from warren.model.documents import Rule
from warren.model.policy import DEFAULT_POLICY, Flow, verdict
from warren.model.services import Service
from warren.model.tunnel import IPAddress

ROUTE = "198.51.100.0/24"
WEB = Service(name="web", at=("member:me",), target="localhost:8080", port=80)
EPHEMERAL = 43210


def deny(port: int, sources: str = "members", destinations: str = "members") -> Rule:
    return Rule(action="deny", sources=(sources,), destinations=(destinations,), protocol="tcp", ports=(str(port),))


def law(*rules: Rule, left: tuple[str, ...] = (), services: tuple[Service, ...] = ()) -> Law:
    """Of ``me``, who offers 198.51.100.0/24; ``bob``; and ``carol``, behind whom is 192.0.2.0/24."""
    directory = view(*services, policy=rules or DEFAULT_POLICY, transparent_port=1).directory
    own = directory.own
    served = tuple(own.service_address(one.name) for one in services)
    return Law(
        directory,
        Own((own.address6, *served), own.address4, own.routes, directory.prefixes[:1]),
        tuple(map(ip_network, left)),
    )


def six(address: str | IPAddress) -> bytes:
    found = ip_address(address)
    return found.packed if isinstance(found, IPv6Address) else IPv6Address(f"::ffff:{found}").packed


def sock(
    local: tuple[str | IPAddress, int],
    remote: tuple[str | IPAddress, int],
    opened: int = Opened.KNOWN,
    origin: tuple[str | IPAddress, str | IPAddress, int] | None = None,
    *,
    dual: bool = False,
) -> TcpSocket:
    """A socket of this node; ``origin``: source, destination and its port."""
    four = ip_address(local[0]).version == 4 and not dual
    family = socket.AF_INET if four else socket.AF_INET6
    ports = local[1].to_bytes(2) + remote[1].to_bytes(2)
    ends = [ip_address(one).packed + bytes(12) if four else six(one) for one in (local[0], remote[0])]
    known = ("::", "::", 0) if origin is None else origin
    return TcpSocket(int(family), ports + ends[0] + ends[1] + bytes(12), opened, six(known[0]), six(known[1]), known[2])


def inbound(local: str | IPAddress, port: int, remote: str | IPAddress, *, meant: int = 0) -> TcpSocket:
    return sock((local, port), (remote, EPHEMERAL), origin=(remote, local, meant or port))


def outbound(local: str | IPAddress, remote: str | IPAddress, port: int) -> TcpSocket:
    return sock((local, EPHEMERAL), (remote, port), origin=(local, remote, port))


BASE = view().directory
ME, BOB, CAROL = (str(one.address6) for one in BASE.members)
ME4, BOB4 = "10.77.0.1", "10.77.0.2"
NOBODY = str(BASE.prefixes[0].network_address + 0xFFFF)
BOTH = pytest.mark.parametrize(("me", "bob"), [(ME, BOB), (ME4, BOB4)])


@BOTH
def test_who_opened_it_decides(me: str, bob: str) -> None:
    """Whatever a wide rule lets this node open to the port from which somebody came."""
    law_ = law(deny(25), *DEFAULT_POLICY)
    for one, ends in (
        (inbound(me, 25, bob), True),
        (inbound(me, 80, bob), False),
        (outbound(me, bob, 25), True),
        (outbound(me, bob, 80), False),
        (sock((me, 25), (bob, 80), origin=(me, bob, 80)), False),  # from the port at which it listens
        (sock((me, 25), (bob, 80), origin=(bob, me, 25)), True),
        (sock((me, 80), (bob, 25), origin=(bob, me, 80)), False),
        (sock((me, 80), (bob, 25), origin=(me, bob, 25)), False),  # tracking may have forgotten that bob opened it
        (sock((me, 40_000), (bob, 25), origin=(me, bob, 25)), True),
    ):
        assert forbidden([one], law_) == ([one] if ends else []), one


@BOTH
def test_the_port_that_was_meant_counts_not_the_one_that_the_host_redirects_to(me: str, bob: str) -> None:
    redirected = inbound(me, 8080, bob, meant=80)
    assert forbidden([redirected], law(deny(8080), *DEFAULT_POLICY)) == []
    assert forbidden([redirected], law(deny(80), *DEFAULT_POLICY)) == [redirected]


@BOTH
def test_where_nothing_is_tracked_it_ends_only_if_neither_may_open_it(me: str, bob: str) -> None:
    unknown = sock((me, 25), (bob, EPHEMERAL), Opened.UNKNOWN)
    assert forbidden([unknown], law(deny(25), *DEFAULT_POLICY)) == []
    assert forbidden([unknown], law(deny(25), deny(EPHEMERAL), *DEFAULT_POLICY)) == [unknown]


def test_where_tracking_cannot_be_asked_nothing_ends_but_what_is_nobodys() -> None:
    untold = sock((ME, 25), (BOB, EPHEMERAL), Opened.UNTOLD)
    gone = sock((ME, 25), (NOBODY, EPHEMERAL), Opened.UNTOLD)
    claimed = sock((ME, 25), (BOB, EPHEMERAL), Opened.UNTOLD, (BOB, ME, 25))
    assert forbidden([untold, claimed, gone], law(deny(25), deny(EPHEMERAL))) == [gone]


def test_what_is_of_somebody_who_is_no_member_any_more_ends_whatever_the_policy_says() -> None:
    wide = Rule(action="allow", sources=("::/0", "0.0.0.0/0"), destinations=("::/0", "0.0.0.0/0"))
    for one in (inbound(ME, 80, NOBODY), outbound(ME, NOBODY, 80), outbound(ME4, "10.77.9.9", 80)):
        assert forbidden([one], law(wide)) == [one]
    former = outbound(ME4, "203.0.113.5", 80)
    assert forbidden([former], law(wide)) == []
    assert forbidden([former], law(wide, left=("203.0.113.0/24",))) == [former]
    behind = outbound(ME4, "192.0.2.5", 80)
    assert forbidden([behind], law(wide, left=("192.0.2.0/24",))) == []
    assert forbidden([behind], law(*DEFAULT_POLICY)) == [behind]  # selectors do not mean what is behind


def test_once_this_node_is_no_member_everything_of_the_network_ends_and_nothing_else() -> None:
    ours = [inbound(ME, 80, BOB), outbound(ME4, BOB4, 80), outbound(ME4, "192.0.2.5", 80)]
    others = [outbound("203.0.113.1", "203.0.113.2", 80), inbound(ME, 80, "2001:db8::1"), outbound(ME, ME, 80)]
    assert forbidden([*ours, *others], law(*DEFAULT_POLICY).without_members()) == ours


def test_what_is_not_of_the_overlay_and_what_stays_on_this_host_is_never_touched() -> None:
    nothing = law(Rule(action="deny", sources=("members",), destinations=("members",)))
    service = str(BASE.own.service_address("gone"))
    for one in (
        outbound("192.168.1.2", "192.168.1.3", 22),
        outbound("192.168.1.2", BOB4, 22),  # not from an address of the overlay
        outbound(ME, "2001:db8::1", 443),
        outbound(ME4, "8.8.8.8", 443),
        outbound("::1", "::1", 443),
        outbound(ME, ME, 443),
        outbound(ME4, ME4, 443),
        sock(("198.51.100.1", 80), ("198.51.100.2", EPHEMERAL), origin=("198.51.100.2", "198.51.100.1", 80)),
        inbound(service, 80, BOB),
        outbound(ME, service, 80),
        sock((ME, 80), (BOB, EPHEMERAL), origin=(CAROL, ME, 80)),  # translated, nobody knows how
        sock((ME, 80), (BOB, EPHEMERAL), origin=(BOB, "2001:db8::1", 80)),
    ):
        assert forbidden([one], nothing) == [], one


def test_subnets_and_services_of_this_node_are_judged_as_such() -> None:
    to_subnet = Rule(action="allow", sources=("member:bob",), destinations=(ROUTE,), protocol="tcp", ports=("22",))
    for port, ends in ((22, False), (23, True)):
        one = inbound("198.51.100.7", port, BOB4)
        assert forbidden([one], law(to_subnet)) == ([one] if ends else [])
    to_service = Rule(action="allow", sources=("member:bob",), destinations=("service:web",))
    at = BASE.own.service_address("web")
    for source, ends in ((BOB, False), (CAROL, True)):
        one = inbound(at, 80, source)
        assert forbidden([one], law(to_service, services=(WEB,))) == ([one] if ends else [])


def test_ipv4_on_a_socket_of_ipv6_is_ipv4() -> None:
    law_ = law(deny(25), *DEFAULT_POLICY)
    for port in (25, 80):
        one = sock((ME4, port), (BOB4, EPHEMERAL), origin=(BOB4, ME4, port), dual=True)
        assert forbidden([one], law_) == ([one] if port == 25 else [])


def test_places_have_all_that_is_ours() -> None:
    law_ = law(services=(WEB,))
    for address in (*law_.own.addresses, ip_address("198.51.100.7")):
        assert any(address in place for place in law_.places)
    without = replace(law_, own=Own(law_.own.addresses6))
    assert without.places == (law_.directory.own.prefix6,)


# Held against the reference

_HOSTS = [ME, BOB, CAROL, NOBODY, ME4, BOB4, "10.77.0.3", "10.77.9.9", "192.0.2.5", "198.51.100.7", "8.8.8.8"]
_SELECTORS = ["members", "member:me", "member:bob", "tag:gate", "192.0.2.0/24", ROUTE, "0.0.0.0/0", "::/0"]
_PORTS = [22, 80, EPHEMERAL]
RULES = st.lists(
    st.builds(
        Rule,
        action=st.sampled_from(["allow", "deny"]),
        sources=st.sampled_from(_SELECTORS).map(lambda one: (one,)),
        destinations=st.sampled_from(_SELECTORS).map(lambda one: (one,)),
        protocol=st.just("tcp"),
        ports=st.sampled_from([(), ("22",), ("80",), (str(EPHEMERAL),)]),
    ),
    max_size=4,
)
OURS = {ip_address(ME), ip_address(ME4), ip_address("198.51.100.7")}
MEMBERS = {ip_address(one) for one in (BOB, CAROL, BOB4, "10.77.0.3", "192.0.2.5")}


@given(
    RULES,
    st.sampled_from(_HOSTS),
    st.sampled_from(_HOSTS),
    st.sampled_from(_PORTS),
    st.sampled_from(_PORTS),
    st.sampled_from(["in", "out", "unknown", "untold"]),
)
def test_what_ends_is_exactly_what_the_policy_forbids(
    rules: list[Rule], local: str, remote: str, local_port: int, remote_port: int, how: str
) -> None:
    here, there = ip_address(local), ip_address(remote)
    if here.version != there.version:
        return
    law_ = law(*(rules or [deny(1)]))
    directory = law_.directory

    def may(source: IPv4Address | IPv6Address, destination: IPv4Address | IPv6Address, port: int) -> bool:
        return verdict(directory.spec, directory.members, Flow(source, destination, "tcp", port)).allowed

    ends = (local, local_port), (remote, remote_port)
    if how == "in":
        one, permitted = sock(*ends, origin=(remote, local, local_port)), may(there, here, local_port)
    elif how == "out":
        one, permitted = sock(*ends, origin=(local, remote, remote_port)), may(here, there, remote_port)
    elif how == "unknown":
        one = sock(*ends, Opened.UNKNOWN)
        permitted = may(there, here, local_port) or may(here, there, remote_port)
    else:
        one, permitted = sock(*ends, Opened.UNTOLD), True
    if here not in OURS:
        expected = False
    elif there in MEMBERS:
        expected = not permitted
    else:
        expected = there in {ip_address(NOBODY), ip_address("10.77.9.9")}
    assert forbidden([one], law_) == ([one] if expected else [])


def test_a_directory_permits_what_the_policy_does() -> None:
    directory = view(policy=(deny(25), *DEFAULT_POLICY)).directory
    assert isinstance(directory, Directory)
    assert directory.permits(ip_address(BOB), ip_address(ME), "tcp", 80)
    assert not directory.permits(ip_address(BOB), ip_address(ME), "tcp", 25)
    assert directory.is_own(member("me", 1).address6)
    assert not directory.is_own(member("bob", 2).address6)
