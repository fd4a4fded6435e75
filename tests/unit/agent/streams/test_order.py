"""Who is used first."""

from __future__ import annotations

from collections.abc import Mapping

from tests.unit.agent.streams.fakes import member
from warren.agent.streams.order import Class, Nearness, Orders, nearness, ordered
from warren.identity.keys import PublicKey
from warren.model.tunnel import PeerStatus
from warren.reach.places import Place

A, B, C = members = [member(name, index) for index, name in enumerate("abc", 1)]


def order(near: Mapping[str, Nearness], before: str = "") -> str:
    """Names of the members, the best first."""
    by_name = {one.name: one for one in members}
    known = {one.membership.node: near.get(one.name, Nearness()) for one in members}
    nodes = [by_name[name].membership.node for name in before]
    return "".join(one.name for one in ordered(members, known.__getitem__, nodes))


def test_this_node_comes_before_direct_paths_those_before_relays_and_silence_and_who_does_not_answer() -> None:
    assert order({"a": Nearness(Class.RELAYED, 1), "b": Nearness(Class.DIRECT, 99), "c": Nearness(Class.SELF)}) == "cba"
    assert order({"a": Nearness(Class.UNREACHABLE), "b": Nearness(Class.SILENT), "c": Nearness(Class.RELAYED)}) == "cba"


def test_among_equals_the_nearer_one_is_first_and_else_the_order_of_before_stays() -> None:
    direct = {name: Nearness(Class.DIRECT, rtt) for name, rtt in {"a": 30.0, "b": 20.0, "c": 5.0}.items()}
    assert order(direct) == "cba"
    close = {name: Nearness(Class.DIRECT, rtt) for name, rtt in {"a": 20.0, "b": 19.0, "c": 18.0}.items()}
    assert order(close, "bca") == "bca"
    assert order(close) == "abc"
    assert order({name: Nearness(Class.DIRECT) for name in "abc"}, "cab") == "cab"


def test_a_little_nearer_is_not_enough_to_overtake_and_much_nearer_is() -> None:
    assert order({"a": Nearness(Class.DIRECT, 20), "b": Nearness(Class.DIRECT, 16)}, "abc")[:2] == "ab"
    assert order({"a": Nearness(Class.DIRECT, 20), "b": Nearness(Class.DIRECT, 14)}, "abc")[:2] == "ba"
    assert order({"a": Nearness(Class.DIRECT, 2), "b": Nearness(Class.DIRECT, 0.5)}, "abc")[:2] == "ab"


def test_orders_are_remembered_for_the_next_time() -> None:
    orders = Orders({("home", "web"): [C.membership.node, A.membership.node]})
    assert [one.name for one in orders.of(("home", "web"), members, lambda _: Nearness())] == ["c", "a", "b"]
    assert orders.found == {("home", "web"): tuple(one.membership.node for one in (C, A, B))}


def test_how_near_a_member_is_follows_from_its_session_and_its_path() -> None:
    seen = PeerStatus(PublicKey(bytes([1]) * 32), None, None, (), 0, 0, 0, 0, handshake_rtt_ns=3_000_000)
    assert nearness("connected", Place("direct", rtt_ms=7.0), seen) == Nearness(Class.DIRECT, 7.0)
    assert nearness("connected", Place("relayed"), seen) == Nearness(Class.RELAYED, 3.0)
    assert nearness("idle", Place(), None) == Nearness(Class.SILENT)
    assert nearness("unreachable", Place("direct"), None) == Nearness(Class.UNREACHABLE)
