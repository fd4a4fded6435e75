"""Direct paths over TCP: offered, answered, sealed, given up and tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from tests.unit.reach.relay_world import at
from warren.model.tunnel import TransportAddress
from warren.reach import tcp_paths
from warren.reach.tcp_paths import AGAIN_S, MAGIC, TcpDoors, TcpPaths

A, B, KEY = bytes(32), bytes([1]) * 32, bytes([7]) * 32
PLACES = {A: at("45.80.1.2", 4000), B: at("45.80.2.2", 5000)}


class FakeBridge:
    def __init__(self) -> None:
        self.address = at("127.0.0.1", 7000)
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.ended = False

    def close(self) -> None:
        self.ended = True


class Pair:
    """Two nodes whose signals reach each other, and whose punches succeed or not."""

    def __init__(self) -> None:
        self.now = 0.0
        self.meets = True
        self.tampers = False
        self.signals: list[bytes] = []
        self.punched: list[tuple[bytes, tuple[TransportAddress, ...], bool]] = []
        self.bridges: dict[bytes, FakeBridge] = {}
        self.changes: list[tuple[bytes, bytes]] = []
        self.sides = {node: TcpPaths(node, self._doors(node), lambda _: KEY) for node in (A, B)}

    def _doors(self, node: bytes) -> TcpDoors:
        async def mapped() -> Sequence[TransportAddress]:
            return [PLACES[node]]

        async def punch(remote: Sequence[TransportAddress], key: bytes, controlling: bool) -> FakeBridge | None:
            self.punched.append((node, tuple(remote), controlling))
            assert key == KEY
            if not self.meets:
                return None
            self.bridges[node] = FakeBridge()
            return self.bridges[node]

        def signal(to: bytes, data: bytes) -> bool:
            self.signals.append(data)
            if self.tampers:
                data = data[:-1] + bytes([data[-1] ^ 1])
            return self.sides[to].received(node, data)

        return TcpDoors(lambda: self.now, mapped, punch, signal, lambda peer: self.changes.append((node, peer)))

    async def rest(self) -> None:
        for _ in range(30):
            await asyncio.sleep(0)


def scenario(work: Callable[[Pair], Awaitable[None]]) -> None:
    async def main() -> None:
        pair = Pair()
        await work(pair)
        for side in pair.sides.values():
            await side.close()

    asyncio.run(main())


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_paths, "AFTER_S", 0.0)
    monkeypatch.setattr(tcp_paths, "PUNCH_S", 0.05)


def test_one_offers_the_other_answers_and_both_begin() -> None:
    async def work(pair: Pair) -> None:
        for side, other in ((A, B), (B, A)):
            pair.sides[side].want(other)
        await pair.rest()
        assert pair.punched == [(B, (PLACES[A],), False), (A, (PLACES[B],), True)]
        assert pair.sides[A].bridge(B) == pair.sides[B].bridge(A) == at("127.0.0.1", 7000)
        assert sorted(pair.changes) == [(A, B), (B, A)]
        pair.sides[A].want(B)
        await pair.rest()
        assert len(pair.punched) == 2

    scenario(work)


def test_a_connection_that_ends_is_told_and_one_that_is_not_wanted_is_closed() -> None:
    async def work(pair: Pair) -> None:
        pair.sides[A].want(B)
        await pair.rest()
        pair.bridges[A].closed.set_result("the peer ended it")
        await pair.rest()
        assert pair.sides[A].bridge(B) is None
        assert pair.changes.count((A, B)) == 2
        pair.sides[B].drop(A)
        await pair.rest()
        assert pair.bridges[B].ended
        assert pair.sides[B].bridge(A) is None

    scenario(work)


def test_what_only_the_other_side_wants_stays_until_that_has_enough_of_it() -> None:
    """Each would else end what the other begins, if large packets get lost in one direction only."""

    async def work(pair: Pair) -> None:
        for asks, other in ((A, B), (B, A)):
            pair.now += AGAIN_S
            pair.sides[asks].want(other)
            await pair.rest()
            assert pair.sides[asks].wanted_since(other) == pair.now
            assert pair.sides[other].wanted_since(asks) is None
            pair.sides[other].release(asks)
            await pair.rest()
            assert pair.sides[other].bridge(asks) is not None
            pair.sides[asks].release(other)
            await pair.rest()
            assert pair.sides[asks].bridge(other) is None
            pair.bridges[other].closed.set_result("the peer ended it")
            await pair.rest()

    scenario(work)


def test_an_attempt_that_failed_is_not_repeated_at_once() -> None:
    async def work(pair: Pair) -> None:
        pair.meets = False
        pair.sides[A].want(B)
        await pair.rest()
        pair.sides[A].want(B)
        await pair.rest()
        assert [side for side, *_ in pair.punched] == [B, A]
        pair.now = AGAIN_S
        pair.sides[A].want(B)
        await pair.rest()
        assert [side for side, *_ in pair.punched] == [B, A, B, A]

    scenario(work)


def test_who_may_not_offer_asks_the_other_to_and_not_too_often() -> None:
    async def work(pair: Pair) -> None:
        pair.meets = False
        for _ in range(3):
            pair.sides[B].want(A)
            await pair.rest()
        assert [side for side, *_ in pair.punched] == [B, A]
        pair.now = AGAIN_S
        pair.meets = True
        pair.sides[B].want(A)
        await pair.rest()
        assert pair.sides[A].bridge(B) == pair.sides[B].bridge(A) == at("127.0.0.1", 7000)

    scenario(work)


def test_an_offer_that_was_changed_on_the_way_makes_nobody_connect() -> None:
    """The coordinator carries it, and could aim a node at anybody."""

    async def work(pair: Pair) -> None:
        pair.tampers = True
        pair.sides[A].want(B)
        await asyncio.sleep(0.1)
        assert pair.punched == []

    scenario(work)


def test_an_offer_of_one_pair_is_worth_nothing_in_the_other_direction() -> None:
    async def work(pair: Pair) -> None:
        pair.sides[A].want(B)
        await pair.rest()
        count = len(pair.punched)
        for data in pair.signals:
            assert pair.sides[A].received(B, data[:-1])
        assert pair.sides[A].received(B, pair.signals[0])
        await pair.rest()
        assert len(pair.punched) == count

    scenario(work)


def test_other_signals_are_left_to_others() -> None:
    async def work(pair: Pair) -> None:
        assert not pair.sides[A].received(B, b"something else")
        assert pair.sides[A].received(B, MAGIC)
        assert pair.sides[A].received(B, MAGIC + bytes(100))

    scenario(work)
