"""Coordinators on one PostgreSQL: they see each other's changes, carry each other's signals, outlive each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest

from tests.support.coordinators import Node, World, replica, world
from tests.support.postgres import PostgresServer, postgres_server
from warren.coordinator import store_postgres
from warren.coordinator.problems import Problem
from warren.coordinator.sessions import REPLICA_DEAD_S
from warren.coordinator.wakes import Wake
from warren.proto.control.administration import ConnectorRequest, ServiceRequest
from warren.proto.control.messages import Signal


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


async def wake(wakes: AsyncIterator[Wake], *, until: str) -> Wake:
    """The next that has ``until`` set; others are passed over."""

    async def search() -> Wake:
        async for one in wakes:
            if getattr(one, until) is not None:
                return one
        raise AssertionError("no more wakes")

    return await asyncio.wait_for(search(), 60)


async def told(wakes: AsyncIterator[Wake], revision: int) -> None:
    """Returns when it was told that the map is there; earlier ones may be told again."""
    while ((await wake(wakes, until="revision")).revision or 0) < revision:
        pass


def test_replicas_have_one_identity_and_see_each_others_changes(server: PostgresServer) -> None:
    async def main(url: str) -> None:
        async with world(url) as w, replica(url, w.clock, seed=2, at="https://other.example") as other:
            assert other.identity == w.service.identity
            await w.join(Node(1), "n")
            session = await other.connected(w.key, Node(1).key, "192.0.2.1:1")
            there = World(other, w.clock, w.admin, w.network)
            known = await there.map()
            async with other.watch() as wakes:
                await w.join(Node(2), "m")
                await told(wakes, (await w.map()).revision)
                assert set((await there.map(known)).members()) == {Node(1).key, Node(2).key}
                await w.service.revoke_member(w.admin, "home", "n")
                ended = await wake(wakes, until="ended")
                assert ended.ended is not None
                assert (ended.node, ended.ended.kind) == (Node(1).key, "revoked")
            await other.disconnected(session)

    asyncio.run(main(server.database()))


def test_a_signal_crosses_replicas_and_a_node_has_one_session_among_them(server: PostgresServer) -> None:
    async def main(url: str) -> None:
        async with world(url) as w, replica(url, w.clock, seed=2) as other:
            for i in range(2):
                await w.join(Node(i + 1), "n")
            await other.connected(w.key, Node(2).key, "192.0.2.1:1")
            async with w.service.watch() as here, other.watch() as there:
                assert await w.service.send_signal(w.key, Node(1).key, Node(2).key, b"x" * 4096)
                heard = await wake(there, until="signal")
                assert heard.signal == Signal(node=Node(1).key, data=b"x" * 4096)
                first = await w.service.connected(w.key, Node(1).key, "192.0.2.1:1")
                await other.connected(w.key, Node(1).key, "192.0.2.1:2")
                assert (await wake(here, until="ended")).session == first.id
            await w.service.disconnected(first)
            assert (await w.service.status(w.admin, "home")).connected == 2

    asyncio.run(main(server.database()))


def test_of_two_replicas_that_add_services_and_connectors_at_once_neither_loses_or_doubles_any(
    server: PostgresServer,
) -> None:
    async def main(url: str) -> None:
        async with world(url) as w, replica(url, w.clock, seed=2) as other:
            await w.join(Node(1), "n")
            services = [ServiceRequest(name=f"s{n}", at=("members",), target="localhost:80") for n in range(4)]
            connector = ConnectorRequest(name="c", at=("members",), service="s0", listen="*:81")
            both = (w.service, other)
            done = await asyncio.gather(
                *(one.add_service(w.admin, "home", request) for request in services for one in both),
                return_exceptions=True,
            )
            assert [one.kind for one in done if isinstance(one, Problem)] == ["conflict"] * 4
            done = await asyncio.gather(
                *(
                    one.add_connector(w.admin, "home", msgspec.structs.replace(connector, name=name))
                    for one, name in zip(both, "ab", strict=True)
                ),
                return_exceptions=True,
            )
            (refused,) = (one for one in done if isinstance(one, Problem))
            assert refused.kind == "conflict"
            assert "listens at tcp *:81 of n already" in str(refused)
            spec = (await World(other, w.clock, w.admin, w.network).map()).spec
            assert spec is not None
            assert [one.name for one in spec.services] == ["s0", "s1", "s2", "s3"]
            assert len(spec.connectors) == 1

    asyncio.run(main(server.database()))


def test_a_dead_replica_does_not_keep_its_nodes_connected(server: PostgresServer) -> None:
    async def main(url: str) -> None:
        async with world(url) as w:
            async with replica(url, w.clock, seed=2) as other:
                await w.join(Node(1), "n")
                await other.connected(w.key, Node(1).key, "192.0.2.1:1")
                assert (await w.service.status(w.admin, "home")).connected == 1
                other._started = False  # as after kill -9: it does not leave in order
            w.clock.now += REPLICA_DEAD_S
            await w.service.heartbeat()
            assert (await w.service.status(w.admin, "home")).connected == 0
            assert not await w.service.send_signal(w.key, bytes(32), Node(1).key, b"x")
            assert await w.service.sweep() == 1
            member = await w.service.member(w.admin, "home", "n")
            assert member.last_seen is not None
            await w.service.admit(w.key, Node(1).key)  # it comes here instead
            await w.service.connected(w.key, Node(1).key, "192.0.2.1:2")
            assert (await w.service.status(w.admin, "home")).connected == 1

    asyncio.run(main(server.database()))


def test_a_replica_that_was_taken_for_dead_writes_its_sessions_again(server: PostgresServer) -> None:
    async def main(url: str) -> None:
        async with world(url) as w, replica(url, w.clock, seed=2) as other:
            await w.join(Node(1), "n")
            await other.connected(w.key, Node(1).key, "192.0.2.1:7")
            w.clock.now += REPLICA_DEAD_S
            await w.service.sweep()
            assert (await w.service.status(w.admin, "home")).connected == 0
            await other.heartbeat()
            member = await w.service.member(w.admin, "home", "n")
            assert (member.connected, member.observed) == (True, "192.0.2.1:7")

    asyncio.run(main(server.database()))


def test_changes_are_caught_up_with_after_the_listener_was_cut_off(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_postgres, "LISTEN_AGAIN_S", (0.01, 0.1))

    async def main(url: str) -> None:
        async with world(url) as w, replica(url, w.clock, seed=2) as other:
            await w.join(Node(1), "n")
            await other.connected(w.key, Node(1).key, "192.0.2.1:1")
            await World(other, w.clock, w.admin, w.network).map()
            async with other.watch() as wakes:
                await asyncio.to_thread(server.cut_connections)
                await w.join(Node(2), "m")  # connections of the pool are found dead, and made anew
                await told(wakes, (await w.map()).revision)

    asyncio.run(main(server.database()))


def test_replicas_that_start_together_sign_with_one_key(server: PostgresServer) -> None:
    async def main(url: str) -> None:
        async with world(url) as w:
            pass

        async def one(seed: int) -> bytes:
            async with replica(url, w.clock, seed=seed, at=f"https://c{seed}.example") as service:
                return service.identity.verify_key.raw

        keys = await asyncio.gather(*(one(seed) for seed in range(2, 7)))
        assert set(keys) == {w.service.identity.verify_key.raw}
        async with replica(url, w.clock, seed=9) as service:
            spec = (await World(service, w.clock, w.admin, w.network).map()).spec
            assert spec is not None
            assert len(spec.coordinators) == 6
            assert await service.first_token() is None

    asyncio.run(main(server.database()))
