from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from tests.support.wireguard_pair import Host, Wire
from warren.errors import OperationFailed
from warren.identity.keys import PresharedKey, PrivateKey, PublicKey
from warren.model.tunnel import PeerChange, TransportAddress
from warren.proto.wireguard import changes
from warren.proto.wireguard.configuration import socket_address, transport_address
from warren.proto.wireguard.events import OwnKeyIgnored, PeerRenamed

KEY = PublicKey(b"\x11" * 32)
OTHER = PublicKey(b"\x22" * 32)
NET = ip_network("10.1.0.0/24")
NET6 = ip_network("fd01::/64")


@pytest.fixture
def host() -> Iterator[Host]:
    with Wire(seed=1) as wire:
        yield wire.host("a", "192.0.2.1", "10.0.0.1")


def test_what_was_set_is_shown(host: Host) -> None:
    change = PeerChange(
        KEY,
        preshared_key=PresharedKey(b"p" * 32),
        endpoint=TransportAddress(ip_address("fe80::5"), 7, scope=3),
        persistent_keepalive_s=25,
        allowed_ips=(NET6, NET),
    )
    host.configure(change, listen_port=1234, fwmark=5)
    status = host.device.status()
    assert (status.private_key, status.listen_port, status.fwmark) == (host.private_key, 1234, 5)
    (peer,) = status.peers
    assert (peer.public_key, peer.preshared_key, peer.endpoint) == (KEY, change.preshared_key, change.endpoint)
    assert (peer.persistent_keepalive_s, peer.allowed_ips) == (25, (NET6, NET))
    assert peer.last_handshake_ns == 0


def test_what_is_not_mentioned_stays(host: Host) -> None:
    host.configure(
        PeerChange(KEY, preshared_key=PresharedKey(b"p" * 32), allowed_ips=(NET,), persistent_keepalive_s=9),
        listen_port=1,
        fwmark=2,
    )
    before = host.device.status()
    host.configure(PeerChange(KEY))
    assert host.device.status() == before


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (PeerChange(KEY, replace_allowed_ips=True, allowed_ips=(NET6,)), (NET6,)),
        (PeerChange(KEY, replace_allowed_ips=True), ()),
        (PeerChange(KEY, removed_allowed_ips=(NET,)), ()),
        (PeerChange(KEY, removed_allowed_ips=(NET6,)), (NET,)),
        (PeerChange(KEY, allowed_ips=(NET6, NET)), (NET6, NET)),
    ],
)
def test_allowed_ips_are_replaced_added_and_removed(
    host: Host, change: PeerChange, expected: tuple[object, ...]
) -> None:
    host.configure(PeerChange(KEY, allowed_ips=(NET,)))
    host.configure(change)
    assert host.device.status().peers[0].allowed_ips == expected


def test_the_newer_peer_takes_an_allowed_ip(host: Host) -> None:
    host.configure(PeerChange(KEY, allowed_ips=(NET,)), PeerChange(OTHER, allowed_ips=(NET,)))
    assert {peer.public_key: peer.allowed_ips for peer in host.device.status().peers} == {KEY: (), OTHER: (NET,)}


def test_a_zero_preshared_key_removes_it(host: Host) -> None:
    host.configure(PeerChange(KEY, preshared_key=PresharedKey(b"p" * 32)))
    host.configure(PeerChange(KEY, preshared_key=PresharedKey(bytes(32))))
    assert host.device.status().peers[0].preshared_key is None


def test_update_only_makes_no_peer_and_remove_none_either(host: Host) -> None:
    host.configure(PeerChange(KEY, update_only=True, allowed_ips=(NET,)), PeerChange(OTHER, remove=True))
    assert host.device.status().peers == ()
    host.configure(PeerChange(KEY))
    host.configure(PeerChange(KEY, update_only=True, allowed_ips=(NET,)))
    assert host.device.status().peers[0].allowed_ips == (NET,)


def test_replace_peers_forgets_the_others(host: Host) -> None:
    host.configure(PeerChange(KEY, allowed_ips=(NET,)), PeerChange(OTHER))
    host.configure(PeerChange(OTHER), replace_peers=True)
    assert [peer.public_key for peer in host.device.status().peers] == [OTHER]


def test_our_own_key_is_no_peer(host: Host) -> None:
    host.configure(PeerChange(host.public_key, allowed_ips=(NET,)), PeerChange(KEY))
    assert [peer.public_key for peer in host.device.status().peers] == [KEY]
    assert host.events == [OwnKeyIgnored(host.public_key)]


def test_a_peer_whose_key_becomes_ours_is_removed(host: Host) -> None:
    future = PrivateKey(b"\x33" * 32)
    host.configure(PeerChange(future.public_key(), allowed_ips=(NET,)), PeerChange(KEY))
    host.configure(private_key=future)
    assert [peer.public_key for peer in host.device.status().peers] == [KEY]
    assert host.events == [OwnKeyIgnored(future.public_key())]


def test_too_many_peers_are_refused_and_nothing_changes(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "PEERS_MAX", 2)
    host.configure(PeerChange(KEY))
    before = host.device.status()
    more = [PeerChange(PublicKey(bytes([n]) * 32)) for n in (1, 2)]
    with pytest.raises(OperationFailed, match="at most 2 peers"):
        host.configure(*more, listen_port=99, private_key=PrivateKey(b"\x44" * 32))
    assert host.device.status() == before
    host.configure(*more, replace_peers=True)
    host.configure(replace(more[0], remove=True), PeerChange(KEY))
    assert len(host.device.status().peers) == 2


def test_switching_the_keepalive_on_sends_one_at_once(host: Host) -> None:
    endpoint = TransportAddress(ip_address("192.0.2.9"), 9)
    host.configure(PeerChange(KEY, endpoint=endpoint, persistent_keepalive_s=25))
    assert host.device.counters["initiations_sent"] == 1


def test_while_down_nothing_is_sent_and_up_starts_the_keepalives(host: Host) -> None:
    host.device.down(0.0)
    endpoint = TransportAddress(ip_address("192.0.2.9"), 9)
    host.configure(PeerChange(KEY, endpoint=endpoint, persistent_keepalive_s=25))
    assert host.device.take_transmits() == []
    host.device.up(0.0)
    assert len(host.device.take_transmits()) == 1


@pytest.mark.parametrize("text", ["192.0.2.1", "2001:db8::1", "fe80::1"])
def test_socket_addresses_and_transport_addresses_are_inverses(text: str) -> None:
    address = TransportAddress(ip_address(text), 51820, 4 if text.startswith("fe80") else 0)
    assert transport_address(socket_address(address)) == address
    assert len(socket_address(address)) == (4 if ":" in text else 2)


def test_an_ipv4_endpoint_written_in_ipv6_is_an_ipv4_endpoint() -> None:
    assert socket_address(TransportAddress(ip_address("::ffff:192.0.2.1"), 9)) == ("192.0.2.1", 9)


NEW = PublicKey(b"\x55" * 32)
MINE = PrivateKey(b"\x66" * 32)


@pytest.mark.parametrize(
    ("change", "device", "number"),
    [
        (PeerChange(NEW, renamed_from=NEW), {}, errno.ENOENT),
        (PeerChange(NEW, renamed_from=KEY), {"replace_peers": True}, errno.ENOENT),
        (PeerChange(OTHER, renamed_from=KEY), {}, errno.EEXIST),
        (PeerChange(KEY, renamed_from=KEY), {}, errno.EEXIST),
        (PeerChange(MINE.public_key(), renamed_from=KEY), {}, errno.EEXIST),
        (PeerChange(NEW, renamed_from=KEY, remove=True), {}, errno.EINVAL),
    ],
    ids=["old unknown", "old forgotten", "new taken", "to itself", "new is ours", "and removed"],
)
def test_an_impossible_rename_is_refused_and_nothing_changes(
    host: Host, change: PeerChange, device: dict[str, object], number: int
) -> None:
    host.configure(PeerChange(KEY, allowed_ips=(NET,)), PeerChange(OTHER))
    before = host.device.status()
    with pytest.raises(OperationFailed) as refusal:
        host.configure(change, PeerChange(OTHER, remove=True), private_key=MINE, listen_port=99, **device)
    assert isinstance(refusal.value.__cause__, OSError)
    assert refusal.value.__cause__.errno == number
    assert host.device.status() == before
    assert host.events == []


def test_a_rename_applies_the_rest_of_its_change(host: Host) -> None:
    host.configure(PeerChange(KEY, allowed_ips=(NET,), preshared_key=PresharedKey(b"p" * 32)))
    host.configure(PeerChange(NEW, renamed_from=KEY, allowed_ips=(NET6,), persistent_keepalive_s=7, update_only=True))
    (peer,) = host.device.status().peers
    assert (peer.public_key, set(peer.allowed_ips), peer.persistent_keepalive_s) == (NEW, {NET, NET6}, 7)
    assert peer.preshared_key == PresharedKey(b"p" * 32)
    assert host.events == [PeerRenamed(KEY, NEW)]


def test_a_rename_that_only_updates_passes_over_a_peer_that_is_not_there(host: Host) -> None:
    host.configure(PeerChange(OTHER))
    before = host.device.status()
    host.configure(PeerChange(NEW, renamed_from=KEY, allowed_ips=(NET,), update_only=True))
    assert host.device.status() == before


def test_keys_move_along_a_chain_in_the_order_of_the_changes(host: Host) -> None:
    host.configure(PeerChange(KEY, allowed_ips=(NET,)), PeerChange(OTHER, allowed_ips=(NET6,)))
    host.configure(PeerChange(NEW, renamed_from=OTHER), PeerChange(OTHER, renamed_from=KEY))
    assert {p.public_key: p.allowed_ips for p in host.device.status().peers} == {NEW: (NET6,), OTHER: (NET,)}


def test_a_key_that_is_removed_in_the_same_change_is_free_for_a_rename(host: Host) -> None:
    host.configure(PeerChange(KEY, allowed_ips=(NET,)), PeerChange(OTHER))
    host.configure(PeerChange(OTHER, remove=True), PeerChange(OTHER, renamed_from=KEY))
    assert [(p.public_key, p.allowed_ips) for p in host.device.status().peers] == [(OTHER, (NET,))]


def test_a_renamed_peer_counts_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "PEERS_MAX", 2)
    host.configure(PeerChange(KEY), PeerChange(OTHER))
    host.configure(PeerChange(NEW, renamed_from=KEY))
    assert {peer.public_key for peer in host.device.status().peers} == {NEW, OTHER}


def test_a_peer_whose_key_becomes_ours_in_the_same_change_cannot_be_renamed(host: Host) -> None:
    host.configure(PeerChange(MINE.public_key(), allowed_ips=(NET,)))
    before = host.device.status()
    with pytest.raises(OperationFailed, match="no peer has the key"):
        host.configure(PeerChange(NEW, renamed_from=MINE.public_key()), private_key=MINE)
    assert host.device.status() == before
