"""All of it together."""

from __future__ import annotations

from tests.unit.agent.streams.fakes import RUN, entry, member, problem, view, worked_out
from warren.agent.streams.config import Gateway, StreamConfig
from warren.agent.streams.connectors import Surroundings
from warren.agent.streams.entries import Wishes, streams
from warren.agent.streams.forward_text import parse_forward
from warren.agent.streams.forwards import Asked
from warren.agent.streams.order import Class, Nearness
from warren.model.services import Connector, Service

WEB = Service(name="web", at=("member:bob", "member:carol"), target="localhost:8080", port=80)


def test_nothing_is_done_when_nothing_is_asked() -> None:
    found = worked_out(view())
    assert (found.items, found.config.entries, found.config.peer_lookup, found.sites) == ((), (), "", ())


def test_of_two_that_want_one_place_the_operators_own_wish_comes_first() -> None:
    config = StreamConfig(forwards=(parse_forward("80", "bob:80"),), gateway=Gateway())
    again = Asked(parse_forward("80", "carol:80"), "kept")
    connector = Connector(name="a", at=("members",), service="web")
    found = worked_out(view(WEB, connectors=[connector]), wishes=Wishes(config, (again,)))
    assert entry(found, "forward 127.0.0.1:80").way.backends[0].name == "bob"
    assert len(found.config.entries) == 1
    assert "forward 127.0.0.1:80 listens there already" in problem(found, "home: connector a")
    assert len({one.id for one in found.config.entries}) == len(found.config.entries)


def test_networks_with_one_name_are_told_apart_and_their_connectors_share_a_gateway() -> None:
    raw = Connector(name="raw", at=("members",), service="web", kind="tls", domains=("a.example.org",))
    work = Connector(name="raw", at=("members",), service="web", kind="tls", domains=("b.example.org",))
    both = (view(WEB, connectors=[raw]), view(WEB, connectors=[work], network="work"))
    found = worked_out(*both, gateway=Gateway())
    names = entry(found, "gateway *:443").names
    assert [(one.domain, one.connector) for one in names] == [
        ("a.example.org", "home: connector raw"),
        ("b.example.org", "work: connector raw"),
    ]
    (gate,) = [one for one in found.items if one.kind == "gateway"]
    assert gate.networks == ("home", "work")


def listens(*asked: str) -> list[tuple[str, tuple[str, ...]]]:
    """Where a node in two networks listens for forwards at these places, and beside what."""
    config = StreamConfig(forwards=tuple(parse_forward(one, "bob.home:80/udp") for one in asked))
    found = worked_out(view(), view(network="work"), wishes=Wishes(config))
    return [(one.address, one.beside) for entry in found.config.entries for one in entry.listen]


def test_at_port_53_a_node_is_beside_its_own_name_service() -> None:
    names = (str(member("me", 1).address6), "10.77.0.1", str(member("me", 1, network="work").address6))
    assert listens("*:53", "127.0.0.1:53", "*:54") == [("", names), ("127.0.0.1", ()), ("", ())]
    assert listens(f"[{names[0]}]:53") == [(names[0], names)]
    gateway = view(WEB, connectors=[Connector(name="a", at=("members",), service="web", listen="*:53")])
    found = entry(worked_out(gateway, gateway=Gateway()), "home: connector a")
    assert found.listen[0].beside == names[:2]


def test_the_order_of_members_is_kept_from_one_time_to_the_next() -> None:
    connector = Connector(name="a", at=("members",), service="web", listen="8080")
    near = {"bob": Nearness(Class.DIRECT, 10), "carol": Nearness(Class.DIRECT, 9)}
    around = Surroundings(RUN)
    before = {("home", "web"): tuple(member(name, index).membership.node for name, index in (("carol", 3), ("bob", 2)))}
    found = streams([view(WEB, connectors=[connector], near=near)], Wishes(), around, before)
    assert [one.name for one in entry(found, "home: connector a").way.backends] == ["carol", "bob"]
    assert found.orders == before
    near["bob"] = Nearness(Class.DIRECT, 1)
    found = streams([view(WEB, connectors=[connector], near=near)], Wishes(), around, found.orders)
    assert [one.name for one in entry(found, "home: connector a").way.backends] == ["bob", "carol"]
