"""Connected nodes: one session each, signals between them, and keys that are in two hands."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest

from tests.support.coordinators import Node, World, run
from warren.coordinator.alarms import NODES_MAX, WINDOW_S, KeyAlarms
from warren.coordinator.problems import Problem
from warren.coordinator.wakes import Wake
from warren.proto.control.messages import SIGNAL_BYTES_MAX, Signal


async def following(wakes: AsyncIterator[Wake]) -> Wake:
    return await asyncio.wait_for(anext(wakes), 30)


def test_a_revoked_node_loses_its_session_at_once_and_the_others_are_woken() -> None:
    async def scenario(w: World) -> None:
        for i in range(2):
            await w.join(Node(i + 1), f"n{i}")
            await w.service.connected(w.key, Node(i + 1).key, "192.0.2.1:1")
        async with w.service.watch() as wakes:
            await w.service.revoke_member(w.admin, "home", "n0")
            ended, changed = await following(wakes), await following(wakes)
        assert ended.ended is not None
        assert (ended.node, ended.ended.kind) == (Node(1).key, "revoked")
        assert changed.revision == (await w.map()).revision

    run(scenario)


def test_a_revoked_node_loses_its_session_also_when_somebody_asks_for_the_map_in_between() -> None:
    async def scenario(w: World) -> None:
        await w.join(Node(1), "n")
        await w.service.connected(w.key, Node(1).key, "192.0.2.1:1")
        async with w.service.watch() as wakes:
            revoking = asyncio.create_task(w.service.revoke_member(w.admin, "home", "n"))
            changed = w.service._core.changed
            assert changed is not None

            async def ask_first(touched: dict[bytes, int]) -> None:
                await w.service.updates_since(w.key, 0)
                await changed(touched)

            w.service._core.changed = ask_first
            await revoking
            ended = await following(wakes)
        assert ended.ended is not None
        assert (ended.node, ended.ended.kind) == (Node(1).key, "revoked")

    run(scenario)


def test_a_node_that_left_or_vanished_is_told_that_it_is_no_member() -> None:
    async def scenario(w: World) -> None:
        await w.join(Node(1), "n")
        await w.service.connected(w.key, Node(1).key, "192.0.2.1:1")
        async with w.service.watch() as wakes:
            await w.service.leave(w.key, Node(1).key)
            ended = await following(wakes)
        assert ended.ended is not None
        assert ended.ended.kind == "not-a-member"

    run(scenario)


def test_a_signal_reaches_who_is_connected_and_the_sender_is_who_proved_to_be() -> None:
    async def scenario(w: World) -> None:
        for i in range(2):
            await w.join(Node(i + 1), "n")
        assert not await w.service.send_signal(w.key, Node(1).key, Node(2).key, b"hello")
        session = await w.service.connected(w.key, Node(2).key, "192.0.2.1:1")
        async with w.service.watch() as wakes:
            assert await w.service.send_signal(w.key, Node(1).key, Node(2).key, b"hello")
            wake = await following(wakes)
            assert (wake.node, wake.signal) == (Node(2).key, Signal(node=Node(1).key, data=b"hello"))
        with pytest.raises(Problem) as refused:
            await w.service.send_signal(w.key, Node(1).key, Node(2).key, bytes(SIGNAL_BYTES_MAX + 1))
        assert refused.value.kind == "limit"
        await w.service.disconnected(session)
        assert not await w.service.send_signal(w.key, Node(1).key, Node(2).key, b"hello")
        assert (w.service.metrics.signals, w.service.metrics.signals_undelivered) == (1, 2)

    run(scenario)


def test_a_newer_session_ends_the_older_one_and_the_older_ending_does_not_end_the_newer() -> None:
    async def scenario(w: World) -> None:
        await w.join(Node(1), "n")
        first = await w.service.connected(w.key, Node(1).key, "192.0.2.1:1")
        async with w.service.watch() as wakes:
            second = await w.service.connected(w.key, Node(1).key, "198.51.100.1:1")
            wake = await following(wakes)
            assert (wake.node, wake.session) == (Node(1).key, first.id)
        await w.service.disconnected(first)
        member = await w.service.member(w.admin, "home", "n")
        assert (member.connected, member.observed) == (True, "198.51.100.1:1")
        await w.service.disconnected(second)
        assert w.service.metrics.sessions == 0

    run(scenario)


def test_who_is_no_member_has_no_session_and_no_report() -> None:
    async def scenario(w: World) -> None:
        with pytest.raises(Problem) as refused:
            await w.service.connected(w.key, Node(1).key, "192.0.2.1:1")
        assert refused.value.kind == "not-a-member"
        assert w.service.metrics.sessions == 0

    run(scenario)


def test_a_key_in_two_hands_is_written_in_the_log_once_in_a_while() -> None:
    async def scenario(w: World) -> None:
        await w.join(Node(1), "n")
        for i in range(12):
            await w.service.connected(w.key, Node(1).key, f"{'192.0.2.1' if i % 2 else '198.51.100.1'}:{i + 1}")
            w.clock.now += 30
        assert (await w.actions()).count("member.two-places") == 1
        assert w.service.metrics.key_alarms == 1
        event = (await w.service.events(w.admin, "home"))[-1]
        assert "198.51.100.1" in event.detail
        assert "revoke it" in event.detail

    run(scenario)


def test_a_node_that_roams_or_comes_back_once_raises_no_alarm() -> None:
    alarms = KeyAlarms()
    places = ["192.0.2.1:1", "192.0.2.1:2", "[2001:db8::1]:1", "198.51.100.1:1", "192.0.2.1:9", "203.0.113.1:1"]
    peer = (bytes(32), bytes(32))
    moves = itertools.pairwise(places)
    assert not any(alarms.moved(peer, before, after, 10.0 * i) for i, (before, after) in enumerate(moves))
    slowly = [alarms.moved(peer, f"192.0.2.{i % 2}:1", f"192.0.2.{1 - i % 2}:1", WINDOW_S * (i + 2)) for i in range(9)]
    assert not any(slowly)


def test_alarms_remember_a_bounded_number_of_nodes() -> None:
    alarms = KeyAlarms()
    for i in range(NODES_MAX + 100):
        alarms.moved((bytes(32), i.to_bytes(32)), "192.0.2.1:1", "192.0.2.2:1", 0.0)
    assert len(alarms._nodes) == NODES_MAX


def test_a_coordinator_that_stops_writes_its_sessions_off_all_at_once() -> None:
    async def scenario(w: World) -> None:
        sessions = []
        for i in range(5):
            await w.join(Node(i + 1), f"n{i}")
            sessions.append(await w.service.connected(w.key, Node(i + 1).key, "192.0.2.1:1"))
        w.service.stopping()
        before = w.service.metrics.commits
        for session in sessions:
            await w.service.disconnected(session)
        assert w.service.metrics.commits == before
        await w.service._upkeep.end()
        assert w.service.metrics.commits == before + 1
        assert not any(member.connected for member in await w.service.members(w.admin, "home"))

    run(scenario)
