"""What the documents, the time and the host make a node want: tables."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from tests.unit.agent.fakes import EPOCH_S, FakeCoordinator, signing_key
from warren.agent.network.desired import Claim, Wanted, wanted
from warren.identity.keys import PublicKey
from warren.identity.signing import VerifyKey
from warren.model.documents import NodeRecord
from warren.model.netmap import NetworkMap
from warren.model.services import Service
from warren.model.verified import sign

IF = "w-home"
ME, B, C = (signing_key(name) for name in ("me", "b", "c"))


class Network:
    """Documents of a network of which ``me`` is the second member, b the first, c the third."""

    def __init__(self, **changes: object) -> None:
        self.coordinator = FakeCoordinator()
        for key, name in ((B, "b"), (ME, "me"), (C, "c")):
            self.coordinator.enrol(key.verify_key, name)
        self.record("b", bytes([1]) * 32)
        self.record("c", bytes([2]) * 32)

    def record(self, name: str, key: bytes, following: bytes | None = None, version: int = 1) -> None:
        signer = {"b": B, "c": C}[name]
        record = NodeRecord(
            network=self.coordinator.key.raw,
            version=version,
            node=signer.verify_key.raw,
            wireguard_key=key,
            next_wireguard_key=following,
        )
        self.coordinator.put(sign(record, signer))

    def want(
        self,
        now_s: float = EPOCH_S,
        *,
        taken: list[Claim] | None = None,
        holders: dict[PublicKey, bytes] | None = None,
        own_keys: list[PublicKey] | None = None,
        node: VerifyKey = ME.verify_key,
    ) -> Wanted:
        documents = NetworkMap(self.coordinator.key)
        update = self.coordinator.whole()
        applied = documents.apply(revision=update.revision, whole=True, more=False, put=update.put, drop=())
        assert applied.refused == ()
        return wanted(documents, node.raw, now_s, IF, taken=taken or [], holders=holders or {}, own_keys=own_keys or [])


def peers(want: Wanted) -> dict[str, list[str]]:
    return {peer.name: [str(network) for network in peer.allowed_ips] for peer in want.peers.values()}


def test_an_ordinary_member() -> None:
    want = Network().want()
    prefix = FakeCoordinator().documents and want.spec is not None and want.spec.prefix6
    assert want.state == "up"
    assert [str(address.value) for address in want.addresses] == [f"{str(prefix)[:-4]}2::1/128", "10.77.0.2/32"]
    assert [str(route.network) for route in want.routes] == [prefix, "10.77.0.0/16"]
    assert {name: allowed[1:] for name, allowed in peers(want).items()} == {
        "b": ["10.77.0.1/32"],
        "c": ["10.77.0.3/32"],
    }
    assert want.rules
    assert want.warnings == ()


@pytest.mark.parametrize("seconds", [-61, 86_400])
def test_outside_its_own_lease_a_node_has_no_peers_and_lets_nothing_in(seconds: int) -> None:
    want = Network().want(EPOCH_S + seconds)
    assert (want.state, peers(want), want.rules, want.members) == ("expired", {}, None, ())
    assert len(want.routes) == 2  # traffic goes nowhere else


def test_a_node_whose_own_lease_ended_has_no_peers_although_theirs_hold() -> None:
    network = Network()
    network.coordinator.change_member(ME.verify_key, not_after=EPOCH_S)
    want = network.want()
    assert (want.state, peers(want), want.rules) == ("expired", {}, None)


def test_a_revoked_node_wants_nothing_but_a_closed_interface() -> None:
    network = Network()
    network.coordinator.revoke(ME.verify_key)
    assert network.want() == Wanted("revoked", spec=network.want().spec)


def test_a_stranger_is_starting() -> None:
    assert Network().want(node=signing_key("nobody").verify_key).state == "starting"


def test_a_revoked_member_and_one_whose_lease_ended_are_no_peers() -> None:
    network = Network()
    network.coordinator.revoke(B.verify_key)
    network.coordinator.change_member(C.verify_key, not_after=EPOCH_S)
    assert peers(network.want()) == {}
    assert [member.name for member in network.want().members] == ["me"]


def test_a_member_without_a_record_is_no_peer_yet() -> None:
    network = Network()
    network.coordinator.enrol(signing_key("d").verify_key, "d")
    assert set(peers(network.want())) == {"b", "c"}


@pytest.mark.parametrize(
    ("taken", "says"),
    [
        ("10.77.0.0/24", "IPv4 is left out: 10.77.0.0/16 overlaps 10.77.0.0/24 of network work"),
        ("10.0.0.0/8", "IPv4 is left out"),
        ("10.78.0.0/16", None),
    ],
)
def test_ipv4_that_is_taken_is_left_out(taken: str, says: str | None) -> None:
    want = Network().want(taken=[Claim(ip_network(taken), "network work")])
    if says is None:
        assert (want.warnings, len(want.addresses)) == ((), 2)
        return
    assert says in want.warnings[0]
    assert [address.value.version for address in want.addresses] == [6]
    assert all(network.startswith("fd") for allowed in peers(want).values() for network in allowed)
    assert want.own.address4 is None
    assert all(member.address4 is None for member in want.members)


@pytest.mark.parametrize(
    ("routes", "taken", "gets", "says"),
    [
        ({"b": ("192.168.7.0/24",)}, None, {"b": ["192.168.7.0/24"]}, None),
        (
            {"b": ("192.168.7.0/24",), "c": ("192.168.7.0/24",)},
            None,
            {"b": ["192.168.7.0/24"]},
            "is offered by b and c",
        ),
        ({"c": ("192.168.7.0/24",)}, "192.168.0.0/16", {}, "192.168.7.0/24 behind c is left out"),
        ({"c": ("10.77.5.0/24",)}, None, {}, "overlaps 10.77.0.0/16 of this network"),
        ({"b": ("192.168.7.0/24",), "me": ("192.168.7.0/24",)}, None, {}, "of the subnets behind this node"),
    ],
)
def test_subnets_behind_members(
    routes: dict[str, tuple[str, ...]], taken: str | None, gets: dict[str, list[str]], says: str | None
) -> None:
    network = Network()
    for name, prefixes in routes.items():
        network.coordinator.change_member({"b": B, "c": C, "me": ME}[name].verify_key, routes=prefixes)
    want = network.want(taken=[Claim(ip_network(taken), "this host's own links")] if taken else [])
    behind = {name: allowed[2:] for name, allowed in peers(want).items() if allowed[2:]}
    assert behind == gets
    assert [str(route.network) for route in want.routes[2:]] == [prefix for given in gets.values() for prefix in given]
    assert (says is None) == (want.warnings == ())
    assert says is None or says in " ".join(want.warnings)


def test_a_wireguard_key_belongs_to_who_had_it() -> None:
    network = Network()
    network.record("b", bytes([2]) * 32, version=2)  # b, who joined first, claims the key of c
    key = PublicKey(bytes([2]) * 32)
    assert set(peers(network.want(holders={key: C.verify_key.raw}))) == {"c"}
    assert set(peers(network.want())) == {"b"}
    assert "claims the WireGuard key of another member" in network.want().warnings[0]


def test_announcing_a_key_takes_it_from_nobody() -> None:
    network = Network()
    network.record("b", bytes([1]) * 32, following=bytes([2]) * 32, version=2)
    want = network.want()
    assert set(peers(want)) == {"b", "c"}
    assert next(peer for peer in want.peers.values() if peer.name == "b").next_key is None


def test_nobody_is_a_peer_by_this_nodes_own_key_or_by_none() -> None:
    network = Network()
    network.record("c", bytes(32), version=2)
    own = PublicKey(bytes([1]) * 32)
    assert peers(network.want(own_keys=[own])) == {}


def test_a_service_has_an_address_of_its_own_where_it_is_served_which_no_connection_begins_at() -> None:
    network = Network()
    served = Service(name="web", at=("member:me",), target="127.0.0.1:80")
    network.coordinator.services = (served, Service(name="other", at=("member:b",), target="127.0.0.1:80"))
    network.coordinator.put_spec()
    want = network.want()
    (own,) = [member for member in want.members if member.name == "me"]
    (address,) = want.service_addresses
    assert address.value.ip == own.service_address("web")
    assert not address.lasting
    assert address not in want.addresses  # DNS is not answered there, nor is it shown as the node's
    assert want.own.addresses6 == (own.address6, own.service_address("web"))
    network.coordinator.services = ()
    network.coordinator.put_spec()
    assert want.of_host() != network.want().of_host()
