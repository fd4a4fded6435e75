"""A node's map: what it takes, what it keeps, and what no carrier can make it forget."""

from __future__ import annotations

from tests.support.networks import LEASE_S, NOW_S, MadeNetwork, envelopes, put
from warren.model.documents import DocumentKey
from warren.model.netmap import NetworkMap


def test_documents_become_members() -> None:
    home = MadeNetwork()
    view = NetworkMap(home.key)
    record = home.record("web")
    applied = put(view, home.spec(), home.membership("web", tags=("www",), routes=("192.168.7.0/24",)), record)
    assert applied.complete
    assert applied.refused == ()
    assert view.revision == 1
    assert view.spec is not None
    assert view.spec.name == "home"
    node = home.node("web").verify_key
    member = view.member(node.raw)
    assert member is not None
    assert view.members() == {node.raw: member}
    assert (member.key, member.name, member.tags) == (node, "web", ("www",))
    assert str(member.address6) == str(home.plan.address6(1))
    assert str(member.address4) == "10.77.0.1"
    assert [str(route) for route in member.routes] == ["192.168.7.0/24"]
    assert member.wireguard_key is not None
    assert member.wireguard_key.raw == record.document.wireguard_key
    assert [str(candidate) for candidate in member.candidates] == ["[2001:db8::1]:51820"]
    assert view.live_members(NOW_S) == (member,)
    assert view.next_lease_change(NOW_S) == NOW_S + LEASE_S


def test_a_whole_map_drops_what_it_does_not_name() -> None:
    home = MadeNetwork()
    view = NetworkMap(home.key)
    put(view, home.spec(), home.membership("a"), home.membership("b"), home.record("a"), home.record("b"))
    kept = home.membership("b")
    applied = view.apply(revision=2, whole=True, more=True, put=envelopes(kept), drop=())
    assert not applied.complete
    assert len(view.members()) == 2
    applied = view.apply(revision=2, whole=False, more=False, put=(), drop=())
    node_a, node_b = (home.node(name).verify_key.raw for name in "ab")
    assert applied.dropped == {
        DocumentKey("membership", node_a),
        DocumentKey("node", node_a),
        DocumentKey("node", node_b),
    }
    assert list(view.members()) == [node_b]
    assert view.spec is not None
