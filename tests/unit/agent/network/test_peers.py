"""From wanted peers and the engine's word to one change: tables."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from tests.unit.tunnel.fakes import private_key, public_key
from warren.agent.network.desired import WantedPeer
from warren.agent.network.peers import TRY_KEY_S, Course, KeyTrial, tunnel_change
from warren.identity.keys import PresharedKey
from warren.model.tunnel import PLAIN, PeerChange, PeerStatus, TransportAddress, TunnelChange, TunnelStatus

OWN = private_key("own")
K1, K2, K3 = public_key("1"), public_key("2"), public_key("3")
NET = (ip_network("fd00:1::/64"),)
PLACE = TransportAddress(ip_address("192.0.2.1"), 1000)


def peer(node: bytes, key=K1, following=None, allowed=NET) -> WantedPeer:  # type: ignore[no-untyped-def]
    return WantedPeer(node, node.decode(), key, following, allowed, ())


def status(*peers: PeerStatus, key=OWN, port: int = 5000) -> TunnelStatus:  # type: ignore[no-untyped-def]
    return TunnelStatus(key, port, 0, peers)


def present(key=K1, endpoint=None, allowed=NET, keepalive: int = 0, psk=None) -> PeerStatus:  # type: ignore[no-untyped-def]
    return PeerStatus(key, psk, endpoint, allowed, keepalive, 0, 0, 0, pinned=True)


def change(wanted, courses, holders, now) -> TunnelChange | None:  # type: ignore[no-untyped-def]
    return tunnel_change(wanted, courses, holders, now, OWN, 5000)


def test_agreement_is_no_change() -> None:
    wanted, courses = {b"a": peer(b"a")}, {b"a": Course(K1)}
    assert change(wanted, courses, {K1: b"a"}, status(present(endpoint=PLACE))) is None


def test_a_new_engine_is_told_everything() -> None:
    found = change({b"a": peer(b"a")}, {b"a": Course(K1, PLACE, keep_open=True)}, {}, TunnelStatus(None, 4, 0))
    added = PeerChange(
        K1,
        endpoint=PLACE,
        way=PLAIN,
        pinned=True,
        persistent_keepalive_s=25,
        replace_allowed_ips=True,
        allowed_ips=NET,
    )
    assert found == TunnelChange(private_key=OWN, listen_port=5000, peers=(added,), keep_sessions=True)


def test_who_is_not_wanted_is_removed_before_others_come() -> None:
    found = change({b"a": peer(b"a")}, {b"a": Course(K1)}, {K2: b"b"}, status(present(K2)))
    assert found is not None
    assert [(one.public_key, one.remove) for one in found.peers] == [(K2, True), (K1, False)]


def test_a_peer_with_a_new_key_is_renamed_and_keeps_the_rest() -> None:
    found = change({b"a": peer(b"a", K2)}, {b"a": Course(K2)}, {K1: b"a"}, status(present(K1)))
    assert found == TunnelChange(peers=(PeerChange(K2, renamed_from=K1),))


def test_an_unknown_key_is_never_taken_for_a_member() -> None:
    """Its sessions might be those of somebody who was revoked, and whose prefix is another's now."""
    found = change({b"a": peer(b"a", K2)}, {b"a": Course(K2)}, {}, status(present(K1)))
    assert found is not None
    assert found.peers[0] == PeerChange(K1, remove=True)
    assert found.peers[1].renamed_from is None


def test_no_peer_takes_the_name_of_another_that_is_there() -> None:
    wanted = {b"a": peer(b"a", K2), b"b": peer(b"b", K2)}
    found = change({b"a": wanted[b"a"]}, {b"a": Course(K2)}, {K1: b"a", K2: b"b"}, status(present(K1), present(K2)))
    assert found is not None
    assert found.peers[0] == PeerChange(K1, remove=True)
    assert all(one.renamed_from is None for one in found.peers)


def test_only_what_differs_is_said() -> None:
    more = (*NET, ip_network("10.0.0.1/32"))
    found = change(
        {b"a": peer(b"a", allowed=more)},
        {b"a": Course(K1, PLACE)},
        {K1: b"a"},
        status(present(psk=PresharedKey(bytes([1]) * 32), keepalive=25, endpoint=PLACE)),
    )
    said = PeerChange(
        K1,
        preshared_key=PresharedKey(bytes(32)),
        persistent_keepalive_s=0,
        replace_allowed_ips=True,
        allowed_ips=more,
    )
    assert found == TunnelChange(peers=(said,))


def test_a_new_key_of_our_own_leaves_sessions_good() -> None:
    found = change({}, {}, {}, status(key=private_key("before")))
    assert found == TunnelChange(private_key=OWN, keep_sessions=True)


class TestKeyTrial:
    def test_a_peer_with_one_key_is_asked_by_that(self) -> None:
        trial = KeyTrial(K1)
        assert trial.choose(peer(b"a"), alive=False, doubtful=True, now=0) == K1
        assert trial.choose(peer(b"a", K2), alive=False, doubtful=False, now=0) == K2

    def test_while_in_doubt_both_keys_get_their_turn(self) -> None:
        trial, two = KeyTrial(K1), peer(b"a", K1, K2)
        assert trial.choose(two, alive=False, doubtful=True, now=0) == K2
        assert trial.choose(two, alive=False, doubtful=True, now=TRY_KEY_S - 1) == K2
        assert trial.choose(two, alive=False, doubtful=True, now=TRY_KEY_S) == K1

    def test_the_key_that_works_is_kept(self) -> None:
        trial, two = KeyTrial(K1), peer(b"a", K1, K2)
        trial.choose(two, alive=False, doubtful=True, now=0)
        assert trial.choose(two, alive=True, doubtful=False, now=100) == K2
        assert trial.choose(peer(b"a", K2), alive=True, doubtful=False, now=101) == K2

    def test_without_a_doubt_the_present_key_counts(self) -> None:
        trial, two = KeyTrial(K2), peer(b"a", K1, K2)
        assert trial.choose(two, alive=False, doubtful=False, now=0) == K1
