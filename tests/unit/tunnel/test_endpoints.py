"""Endpoints: looked up, looked up again, and changed only when nothing answers. The clock is moved by hand."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tests.unit.tunnel.fakes import public_key
from warren.model.tunnel import PeerStatus, TransportAddress
from warren.tunnel.endpoints import (
    BACKOFF_MAX_S,
    CANDIDATES_MAX,
    LOOKUP_AGAIN_S,
    OBSERVE_S,
    TRY_S,
    EndpointKeeper,
)
from warren.tunnel.fields import Endpoint

KEY = public_key("peer")
NAME = Endpoint("vpn.example.net", 51820)


def _at(text: str, port: int = 51820) -> TransportAddress:
    return TransportAddress(ip_address(text), port)


V6, V4, NEW, ROAMED = _at("2001:db8::1"), _at("192.0.2.1"), _at("192.0.2.99"), _at("203.0.113.5", 1234)


class Scene:
    """One peer with the endpoint NAME, as the data plane shows it, and a keeper that looks after it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.keeper = EndpointKeeper()
        self.keeper.want({KEY: NAME}, self.now)
        self.endpoint: TransportAddress | None = None
        self.handshake_at: float | None = None
        self.tx_bytes = 0
        self.answers_at: TransportAddress | None = None
        self.looked_up_at: list[float] = []
        self.dns: tuple[TransportAddress, ...] = (V6, V4)
        self.set_at: list[tuple[float, TransportAddress]] = []

    def run(self, seconds: float, *, sending: bool) -> None:
        """Let time pass in steps of a second, with the data plane and the name server doing their part."""
        for _ in range(int(seconds)):
            self.now += 1.0
            if sending:
                self._send()
            self._tend()

    def _send(self) -> None:
        self.tx_bytes += 148
        if self.endpoint is not None and self.endpoint == self.answers_at:
            self.handshake_at = self.now

    def _tend(self) -> None:
        keeper = self.keeper
        if keeper.observe_at() <= self.now:
            handshake_ns = 0 if self.handshake_at is None else int(self.handshake_at * 1e9)
            status = PeerStatus(KEY, None, self.endpoint, (), 0, handshake_ns, self.tx_bytes, 0)
            keeper.observe([status], int(self.now * 1e9), self.now)
        for endpoint in keeper.take_lookups(self.now):
            self.looked_up_at.append(self.now)
            if self.dns:
                keeper.resolved(endpoint, self.dns, self.now)
            else:
                keeper.failed(endpoint, self.now)
        for address in keeper.take_endpoints().values():
            self.endpoint = address
            self.set_at.append((self.now, address))

    @property
    def addresses_set(self) -> list[TransportAddress]:
        return [address for _, address in self.set_at]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_the_first_address_is_set_at_once(scene: Scene) -> None:
    scene.run(1, sending=False)
    assert scene.set_at == [(1.0, V6)]
    assert scene.keeper.destinations() == [V6.ip]
    assert scene.keeper.is_ours(KEY, V4)
    assert not scene.keeper.is_ours(KEY, ROAMED)


def test_while_it_answers_nothing_is_changed(scene: Scene) -> None:
    scene.answers_at = V6
    scene.run(1000, sending=True)
    assert scene.addresses_set == [V6]


def test_when_it_does_not_answer_the_next_address_is_tried(scene: Scene) -> None:
    scene.answers_at = V4
    scene.run(100, sending=True)
    assert scene.addresses_set == [V6, V4]
    assert scene.set_at[1][0] <= 1 + TRY_S + 2 * OBSERVE_S
    assert scene.handshake_at == 100.0


def test_after_the_last_address_the_name_is_looked_up_again(scene: Scene) -> None:
    scene.run(5, sending=True)
    scene.dns = (NEW,)
    scene.answers_at = NEW
    scene.run(60, sending=True)
    assert scene.addresses_set == [V6, V4, NEW]
    assert scene.handshake_at == 65.0


def test_an_idle_peer_is_left_alone_while_its_name_stays(scene: Scene) -> None:
    scene.run(1000, sending=False)
    assert scene.addresses_set == [V6]
    intervals = [b - a for a, b in zip(scene.looked_up_at, scene.looked_up_at[1:], strict=False)]
    assert intervals
    assert min(intervals) >= LOOKUP_AGAIN_S


def test_an_idle_peer_follows_its_name(scene: Scene) -> None:
    scene.run(10, sending=False)
    scene.dns = (NEW,)
    scene.run(2 * LOOKUP_AGAIN_S, sending=False)
    assert scene.addresses_set == [V6, NEW]


def test_a_peer_that_roamed_and_is_heard_from_keeps_its_address(scene: Scene) -> None:
    scene.answers_at = V6
    scene.run(10, sending=True)
    scene.endpoint = scene.answers_at = ROAMED
    scene.dns = (NEW,)
    scene.run(1000, sending=True)
    assert scene.addresses_set == [V6]


def test_a_peer_that_roamed_and_fell_silent_is_tried_where_the_config_says(scene: Scene) -> None:
    scene.answers_at = V6
    scene.run(10, sending=True)
    scene.endpoint = ROAMED
    scene.run(200, sending=True)
    assert scene.endpoint == V6
    assert scene.handshake_at == 210.0


def test_failed_lookups_are_repeated_with_growing_pauses(scene: Scene) -> None:
    scene.dns = ()
    scene.run(400, sending=True)
    pauses = [b - a for a, b in zip(scene.looked_up_at, scene.looked_up_at[1:], strict=False)]
    assert pauses[:6] == [1, 2, 4, 8, 16, 32]
    assert set(pauses[6:]) == {BACKOFF_MAX_S}
    assert scene.addresses_set == []


def test_a_change_of_the_network_repeats_a_failed_lookup_at_once(scene: Scene) -> None:
    scene.dns = ()
    scene.run(100, sending=False)
    scene.dns = (V4,)
    scene.keeper.hurry(scene.now)
    scene.run(1, sending=False)
    assert scene.set_at == [(101.0, V4)]


def test_an_adopted_peer_keeps_the_address_it_has(scene: Scene) -> None:
    scene.endpoint = scene.answers_at = ROAMED
    scene.handshake_at = 0.5
    scene.keeper.adopt([PeerStatus(KEY, None, ROAMED, (), 0, 5 * 10**8, 0, 0)])
    scene.run(300, sending=True)
    assert scene.addresses_set == []


def test_a_new_data_plane_is_told_the_address_again(scene: Scene) -> None:
    scene.answers_at = V6
    scene.run(10, sending=True)
    scene.keeper.reset(scene.now)
    assert scene.keeper.take_endpoints() == {KEY: V6}


def test_an_endpoint_that_changes_in_the_config_is_set(scene: Scene) -> None:
    scene.answers_at = V6
    scene.run(10, sending=True)
    scene.keeper.want({KEY: NAME}, scene.now)
    scene.run(10, sending=True)
    assert scene.addresses_set == [V6], "the same endpoint again is no news"
    scene.keeper.want({KEY: Endpoint("other.example.net", 1)}, scene.now)
    scene.dns = (NEW,)
    scene.run(5, sending=True)
    assert scene.addresses_set == [V6, NEW]


def test_without_endpoints_there_is_nothing_to_wake_for() -> None:
    keeper = EndpointKeeper()
    assert keeper.next_deadline() is None
    assert keeper.observe_at() == float("inf")


def test_the_next_deadline_says_why(scene: Scene) -> None:
    scene.run(1, sending=False)
    deadline = scene.keeper.next_deadline()
    assert deadline == (1.0 + OBSERVE_S, "see whether the peers answer")


def test_a_name_with_a_thousand_addresses_is_cut_short(scene: Scene) -> None:
    scene.dns = tuple(_at(f"10.0.{n >> 8}.{n & 255}") for n in range(1000))
    scene.run(1, sending=False)
    assert scene.keeper.is_ours(KEY, scene.dns[CANDIDATES_MAX - 1])
    assert not scene.keeper.is_ours(KEY, scene.dns[CANDIDATES_MAX])
