from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from warren.identity.keys import PublicKey
from warren.model.tunnel import PeerStatus, TransportAddress
from warren.paths.endpoints import ROUNDS_QUICK, SESSION_S, SILENCE_S, TRY_S, TRY_SLOW_S, EndpointChooser

A, B, C = (TransportAddress(ip_address(f"192.0.2.{n}"), 51820) for n in (1, 2, 3))
NS = 1_000_000_000
EPOCH_NS = 1_700_000_000 * NS


class Engine:
    """A peer as an engine shows it, with a network in which only ``answering`` answers."""

    def __init__(self, chooser: EndpointChooser, *answering: TransportAddress) -> None:
        self.chooser = chooser
        self.answering = set(answering)
        self.now = 1000.0
        self.tried: list[TransportAddress | None] = []
        self.status = PeerStatus(PublicKey(b"p" * 32), None, None, (ip_network("10.0.0.2/32"),), 0, 0, 0, 0)
        self._obey()

    def _obey(self) -> None:
        wanted = self.chooser.wanted()
        if wanted is not None:
            self.status = replace(self.status, endpoint=wanted)
            self.tried.append(wanted)

    def wall_ns(self) -> int:
        return EPOCH_NS + int(self.now * NS)

    def run(self, seconds: float, *, sending: bool) -> None:
        """Poll once a second, with traffic or without."""
        for _ in range(int(seconds)):
            self.now += 1.0
            if sending:
                self.status = replace(self.status, tx_bytes=self.status.tx_bytes + 148)
            if sending and self.status.endpoint in self.answering:
                stamp = self.status.last_handshake_ns
                if self.wall_ns() - stamp > 120 * NS:
                    stamp = self.wall_ns()
                self.status = replace(self.status, rx_bytes=self.status.rx_bytes + 92, last_handshake_ns=stamp)
            self.chooser.observe(self.status, self.wall_ns(), self.now)
            self._obey()


def chooser(*ranked: TransportAddress, must_initiate: bool = False) -> EndpointChooser:
    made = EndpointChooser()
    made.offer(ranked, must_initiate=must_initiate)
    return made


def test_the_best_candidate_is_set_at_once_and_kept_when_it_answers() -> None:
    engine = Engine(chooser(A, B), A, B)
    engine.run(600, sending=True)
    assert engine.tried == [A]
    assert engine.chooser.state == "connected"


def test_a_candidate_that_does_not_answer_gives_way_to_the_next() -> None:
    engine = Engine(chooser(A, B, C), C)
    engine.run(2 * (TRY_S + 1) + 2, sending=True)
    assert engine.tried == [A, B, C]
    assert engine.chooser.state == "connected"


def test_nothing_is_tried_while_nothing_is_sent() -> None:
    engine = Engine(chooser(A, B))
    engine.run(600, sending=False)
    assert engine.tried == [A]
    assert engine.chooser.state == "idle"
    assert engine.chooser.next_deadline() is None


def test_a_peer_that_has_no_way_to_us_is_tried_without_traffic() -> None:
    engine = Engine(chooser(A, B, must_initiate=True))
    engine.run(10, sending=False)
    assert engine.tried[:2] == [A, B]


def test_when_nobody_answers_all_are_tried_again_and_then_more_slowly() -> None:
    engine = Engine(chooser(A, B))
    engine.run(2 * ROUNDS_QUICK * (TRY_S + 1), sending=True)
    assert engine.chooser.state == "unreachable"
    quick = len(engine.tried)
    assert quick >= 2 * ROUNDS_QUICK - 1
    engine.run(10 * TRY_SLOW_S, sending=True)
    assert len(engine.tried) - quick <= 11


def test_a_living_session_is_not_doubted_because_the_peer_is_silent_for_a_while() -> None:
    engine = Engine(chooser(A, B), A)
    engine.run(5, sending=True)
    engine.answering.clear()
    engine.run(SILENCE_S - 1, sending=True)
    assert engine.tried == [A]
    assert engine.chooser.state == "connected"
    engine.run(3, sending=True)
    assert engine.tried == [A, B]


def test_an_address_that_the_peer_roamed_to_stays_although_nobody_announced_it() -> None:
    engine = Engine(chooser(A), A)
    engine.run(3, sending=True)
    engine.status = replace(engine.status, endpoint=C, rx_bytes=engine.status.rx_bytes + 1)
    engine.answering.add(C)
    engine.run(5, sending=True)
    engine.chooser.offer((A, B))
    engine.run(60, sending=True)
    assert engine.status.endpoint == C


def test_an_announced_address_that_is_announced_no_longer_is_left_at_once() -> None:
    engine = Engine(chooser(A, B), A, C)
    engine.run(5, sending=True)
    engine.chooser.offer((C,))
    assert engine.chooser.wanted() == C


def test_a_session_ends_by_its_age() -> None:
    engine = Engine(chooser(A), A)
    engine.run(5, sending=True)
    assert engine.chooser.state == "connected"
    engine.run(SESSION_S + 1, sending=False)
    assert engine.chooser.state == "idle"


@pytest.mark.parametrize(("announced", "state"), [(False, "unknown"), (True, "unreachable")])
def test_without_a_usable_candidate_the_state_says_whether_there_was_any(announced: bool, state: str) -> None:
    made = EndpointChooser()
    made.offer((), announced=announced)
    assert made.state == state
    assert made.wanted() is None


def test_a_new_candidate_ends_being_unreachable() -> None:
    engine = Engine(chooser(A), B)
    engine.run(30, sending=True)
    assert engine.chooser.state == "unreachable"
    engine.chooser.offer((B,))
    engine._obey()
    engine.run(5, sending=True)
    assert engine.chooser.state == "connected"
