from __future__ import annotations

from tests.support.path_pair import at
from warren.paths.values import RemoteCandidate
from warren.paths.whereabouts import SEEN_MAX, Whereabouts

HOST = RemoteCandidate("host", at("192.0.2.1"))
RELAY = RemoteCandidate("relay", at("198.51.100.1", 50_000))


def seen(number: int) -> RemoteCandidate:
    return RemoteCandidate("srflx", at("203.0.113.1", number))


def test_what_is_newer_comes_first() -> None:
    peer = Whereabouts()
    assert peer.recorded((HOST,))
    assert peer.told((RELAY,))
    assert peer.saw(seen(1))
    assert peer.saw(seen(2))
    assert peer.candidates() == (seen(2), seen(1), RELAY, HOST)


def test_the_same_again_is_not_new() -> None:
    peer = Whereabouts()
    for _ in range(2):
        peer.recorded((HOST,))
        peer.told((RELAY,))
        peer.saw(seen(1))
        peer.described("v4:open")
    assert not peer.recorded((HOST,))
    assert not peer.told((RELAY,))
    assert not peer.saw(seen(1))
    assert not peer.saw(RemoteCandidate("srflx", HOST.address)), "it is known as another kind"
    assert not peer.described("v4:open")


def test_a_new_record_ends_what_the_last_signal_said() -> None:
    peer = Whereabouts()
    peer.told((RELAY,))
    assert peer.recorded((HOST,))
    assert peer.candidates() == (HOST,)


def test_only_a_record_makes_an_address_a_relay() -> None:
    peer = Whereabouts()
    peer.told((RELAY,))
    assert not peer.has_relay(RELAY.address)
    peer.recorded((RELAY,))
    assert peer.has_relay(at("198.51.100.1", 1)), "of any port"


def test_of_what_relays_saw_the_last_few_are_kept() -> None:
    peer = Whereabouts()
    for number in range(1, 50):
        assert peer.saw(seen(number))
    assert peer.candidates() == tuple(seen(number) for number in range(49, 49 - SEEN_MAX, -1))


def test_who_says_nothing_of_its_nat_has_said_nothing_new_and_rubbish_is_no_situation() -> None:
    peer = Whereabouts()
    assert peer.situation() is None
    assert peer.described("v4:open")
    assert not peer.described("")
    assert peer.situation() is not None
    assert peer.described("v4:rubbish")
    assert peer.situation() is None
