"""Which relays a node may use."""

from __future__ import annotations

from tests.support.networks import MadeNetwork
from warren.agent.network.relay_places import MEMBERS_MAX, may_relay, relay_places
from warren.model.documents import Candidate, Relay, RelayOffer
from warren.proto.control.messages import RelayCredential
from warren.proto.turn.credentials import member_password

KEY = bytes(range(32))
OFFER = RelayOffer(udp_port=3478, tls_port=443, certificate_sha256=bytes(32))
PUBLIC = (Candidate(kind="stated", address="45.80.1.2", port=1), Candidate(kind="srflx", address="45.80.9.9", port=1))


def offering(net: MadeNetwork, name: str, **changes):  # type: ignore[no-untyped-def]
    from warren.model.netmap import Member

    record = net.record(name, relay=OFFER, candidates=PUBLIC).document
    return Member(net.membership(name, **changes).document, record)


def test_relays_of_the_network_come_with_the_credentials_that_are_there() -> None:
    net = MadeNetwork()
    relays = (Relay(name="near", hosts=("45.80.2.2",)), Relay(name="far", hosts=("relay.example",), tls_port=443))
    held = {"far": RelayCredential(relay="far", username="99:me", password="pw", not_after=99)}
    near, far = relay_places(net.spec(relays=relays).document, (), net.node("me").verify_key, held, lambda _: KEY)
    assert (near.name, near.username, near.udp_port) == ("near", "", 3478)
    assert (far.username, far.password, far.tls_port, far.hosts) == ("99:me", "pw", 443, ("relay.example",))
    assert "pw" not in repr(far)


def test_a_member_relays_if_the_network_lets_it_and_it_offers_it() -> None:
    net = MadeNetwork()
    spec = net.spec(relay_members=("tag:gate", "member:bob")).document
    members = [offering(net, "bob"), offering(net, "gate", tags=("gate",)), offering(net, "eve"), net.member("carol")]
    assert [member.name for member in members if may_relay(spec, member)] == ["bob", "gate"]
    me = net.node("me").verify_key
    places = relay_places(spec, members, me, {}, lambda _: KEY)
    assert [place.name for place in places] == ["bob", "gate"]
    assert places[0].hosts == ("45.80.1.2",)  # not what a server saw: another port leads there
    assert (places[0].username, places[0].password) == (str(me), member_password(KEY))


def test_this_node_itself_and_members_without_a_shared_secret_are_no_relays() -> None:
    net = MadeNetwork()
    spec = net.spec(relay_members=("members",)).document
    bob = offering(net, "bob")
    assert relay_places(spec, [bob], bob.key, {}, lambda _: KEY) == ()
    assert relay_places(spec, [bob], net.node("me").verify_key, {}, lambda _: None) == ()


def test_a_network_full_of_willing_members_asks_some_of_them() -> None:
    net = MadeNetwork()
    spec = net.spec(relay_members=("members",)).document
    members = [offering(net, f"m{number}") for number in range(2 * MEMBERS_MAX)]
    assert len(relay_places(spec, members, net.node("me").verify_key, {}, lambda _: KEY)) == MEMBERS_MAX
