"""What the services of a node do not lead to unless its operator says so."""

from __future__ import annotations

import pytest

from tests.unit.agent.streams.fakes import entry, member, problem, view, worked_out
from warren.agent.streams.closed import closed
from warren.agent.streams.entries import Streams
from warren.agent.streams.permits import PermitTable, Serving, serving_of
from warren.l4.closed_places import objection
from warren.model.services import Service
from warren.model.tunnel import IPAddress


def with_target(target: str, *allow: str, protocol: str = "tcp", transparent_port: int = 0) -> Streams:
    """A node in the networks home and other; home's authority names the target."""
    service = Service(name="web", at=("member:me",), target=target, protocol=protocol, port=80)  # type: ignore[arg-type]
    serving = serving_of(PermitTable(allow=allow)) if allow else Serving()
    return worked_out(
        view(service, transparent_port=transparent_port),
        view(network="other", transparent_port=transparent_port),
        serving=serving,
    )


def said(target: str, *allow: str, **more: object) -> str:
    return problem(with_target(target, *allow, **more), "home: service web")  # type: ignore[arg-type]


OTHERS = member("me", 1, network="other").address6
"""This very node's, in the other network."""


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize(
    ("target", "whose"),
    [
        (f"[{member('bob', 2, network='other').address6}]:80", "is an address of network other"),
        (f"[{OTHERS}]:80", "is an address of network other"),
        (f"[{member('bob', 2).address6}]:80", "is an address of network home"),
        (f"[{member('me', 1).service_address('other')}]:80", "is an address of network home"),
        ("10.77.0.2:80", "is an address of network home"),
        ("192.0.2.7:80", "is reached through a member of network home"),
        ("169.254.169.254:80", "is link-local, where a cloud answers each machine for itself"),
        ("[fd00:ec2::254]:80", "is where a cloud answers each machine for itself"),
    ],
)
def test_an_authority_cannot_make_a_node_a_bridge(target: str, whose: str, protocol: str) -> None:
    found = with_target(target, protocol=protocol)
    assert whose in problem(found, "home: service web")
    assert all(one.id != "home: service web" for one in found.config.entries)
    assert whose in said(target, "*:*", protocol=protocol)
    assert said(target, target, protocol=protocol) == ""
    assert said(target, "*:*", target, protocol=protocol) == ""


def test_its_own_addresses_in_the_same_network_are_a_nodes_own() -> None:
    assert said(f"[{member('me', 1).address6}]:80") == ""
    assert said("10.77.0.1:80") == ""


@pytest.mark.parametrize(
    ("allow", "opens"),
    [
        ("10.77.0.2:80", True),
        ("10.77.0.0/16:*", True),
        ("10.77.0.0/24:80-89", True),
        ("10.77.0.0/24:81", False),
        ("10.0.0.0/8:*", False),  # somebody's own network, in which an overlay happens to lie
        ("0.0.0.0/0:*", False),
        ("*:80", False),
        ("10.77.*:80", False),
    ],
)
def test_only_a_prefix_that_lies_in_what_is_closed_opens_it(allow: str, opens: bool) -> None:
    assert (said("10.77.0.2:80", "*:*", allow) == "") is opens


def test_a_larger_prefix_that_begins_alike_does_not_open_it() -> None:
    assert said("169.254.169.254:80", "*:*", "169.254.0.0/15:*")
    assert said("169.254.169.254:80", "169.254.0.0/16:80") == ""


def test_names_are_judged_where_they_are_connected_to_and_by_the_same_list() -> None:
    def why(ip: IPAddress, *allow: str) -> str:
        way = entry(with_target("db.lan:80", *allow), "home: service web").way
        return objection(ip, 80, way)

    bob = member("bob", 2, network="other").address6
    assert "network other" in why(bob)
    assert "network other" in why(bob, "db.lan:80")
    assert why(bob, "db.lan:80", f"[{bob}]:80") == ""
    assert why(member("me", 1).address6) == ""
    assert "network other" in why(OTHERS)


def test_without_root_what_is_behind_members_is_not_on_the_hosts_side() -> None:
    assert said("192.0.2.7:80", transparent_port=7000) == ""
    assert said("10.77.0.2:80", transparent_port=7000)
    assert "192.0.2.0/24" not in [one.prefix for one in closed([view(transparent_port=7000)])]
