"""The members to be reached, and what path selection last said of each."""

from __future__ import annotations

from warren.identity.keys import PublicKey
from warren.reach.doors import PeerFacts
from warren.reach.peers import Peers

ONE, TWO = b"1" * 32, b"2" * 32


def key(number: int) -> PublicKey:
    return PublicKey(bytes([number]) * 32)


def facts(node: bytes, *keys: int, check: bytes = b"c" * 32) -> PeerFacts:
    return PeerFacts(node, tuple(key(number) for number in keys), (check,))


def test_who_is_new_another_or_gone_is_told() -> None:
    peers = Peers()
    assert peers.set([facts(ONE, 1), facts(TWO, 2)]) == ([], [facts(ONE, 1), facts(TWO, 2)])
    assert peers.set([facts(ONE, 1), facts(TWO, 2, 3)]) == ([], [facts(TWO, 2, 3)])
    assert peers.holder(key(3)) == TWO
    assert peers.set([facts(ONE, 1)]) == ([TWO], [])
    assert (peers.holder(key(3)), TWO in peers, peers.check_key(TWO)) == (None, False, None)
    assert peers.check_key(ONE) == b"c" * 32


def test_packets_for_somebody_who_is_not_known_yet_are_remembered_until_the_next_list() -> None:
    peers = Peers()
    peers.wanted_early(key(1))
    peers.wanted_early(key(2))
    peers.set([facts(ONE, 1)])
    assert peers.take_early() == [ONE]
    peers.set([facts(ONE, 1), facts(TWO, 2)])
    assert peers.take_early() == []


def test_only_so_many_unknown_peers_are_remembered() -> None:
    peers = Peers()
    for number in range(300):
        peers.wanted_early(PublicKey(number.to_bytes(32)))
    peers.set(PeerFacts(number.to_bytes(32), (PublicKey(number.to_bytes(32)),), ()) for number in range(300))
    assert len(peers.take_early()) == 256


def test_what_was_said_of_who_is_gone_is_forgotten() -> None:
    peers = Peers()
    peers.set([facts(ONE, 1)])
    peers.selected(ONE, "nothing answers", lost=True)
    peers.measured(ONE, 1380)
    assert (peers.lost(ONE), peers.mtu(ONE), peers.why(ONE)) == (True, 1380, "nothing answers")
    peers.selected(ONE, "it answers", lost=False)
    assert not peers.lost(ONE)
    peers.set([])
    peers.set([facts(ONE, 1)])
    assert (peers.lost(ONE), peers.mtu(ONE), peers.why(ONE)) == (False, None, "")
