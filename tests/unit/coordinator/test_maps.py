"""What a node is sent: the changes since it last heard, or the whole map, packed once for all who stand there."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.coordinators import Node, World, run
from warren.coordinator import maps
from warren.coordinator.maps import Mirror
from warren.coordinator.problems import Problem
from warren.coordinator.rows import DocumentRow
from warren.coordinator.store_sql import problem_of
from warren.coordinator.upkeep import TOMBSTONES_KEPT_S
from warren.model.envelope import pack_envelope
from warren.proto.control.administration import MemberChange


def test_a_node_is_sent_what_changed_and_nothing_else() -> None:
    async def scenario(w: World) -> None:
        nodes = [Node(i + 1) for i in range(20)]
        for node in nodes:
            await w.join(node, "n")
        known = await w.map()
        assert await w.service.updates_since(w.key, known.revision) == ()
        await w.service.publish(w.key, nodes[3].key, nodes[3].record(w.key))
        (update,) = await w.service.updates_since(w.key, known.revision)
        assert [envelope.kind for envelope in update.put] == ["node"]
        assert (update.drop, update.whole, update.more) == ((), False, False)
        await w.map(known)
        await w.service.leave(w.key, nodes[3].key)
        (update,) = await w.service.updates_since(w.key, known.revision)
        assert (update.put, update.drop) == ((), (nodes[3].key,))
        await w.map(known)
        assert len(known.members()) == 19

    run(scenario)


def test_whoever_follows_has_the_same_map_as_who_begins_anew() -> None:
    async def scenario(w: World) -> None:
        chance = random.Random(7)
        followers = [await w.map() for _ in range(3)]
        nodes: dict[int, Node] = {}
        for step in range(150):
            match chance.choice(["join", "join", "publish", "change", "leave", "revoke"]):
                case "join":
                    nodes[step] = Node(step + 1)
                    await w.join(nodes[step], "n")
                case "publish" if nodes:
                    node = chance.choice(list(nodes.values()))
                    await w.service.publish(w.key, node.key, node.record(w.key, step + 1))
                case "change" if nodes:
                    node = chance.choice(list(nodes.values()))
                    await w.service.change_member(w.admin, "home", node.text, MemberChange(tags=(f"t{step}",)))
                case "leave" if nodes:
                    await w.service.leave(w.key, nodes.pop(chance.choice(list(nodes))).key)
                case "revoke" if nodes:
                    await w.service.revoke_member(w.admin, "home", nodes.pop(chance.choice(list(nodes))).text)
            w.clock.now += chance.choice([0, 0, 1])
            await w.map(chance.choice(followers))
        fresh = await w.map()
        for follower in followers:
            await w.map(follower)
            assert follower.envelopes() == fresh.envelopes()
            assert follower.revision == fresh.revision
        assert set(fresh.members()) == {node.key for node in nodes.values()}

    run(scenario)


@pytest.mark.parametrize("since", [2**39, 1])
def test_who_stands_where_the_map_never_was_begins_anew(since: int) -> None:
    async def scenario(w: World) -> None:
        await w.join(Node(1), "a")
        if since == 1:  # long ago: the tombstone of who left meanwhile is forgotten
            await w.join(Node(2), "b")
            old = (await w.map()).revision
            await w.service.leave(w.key, Node(2).key)
            w.clock.now += TOMBSTONES_KEPT_S
            await w.service.sweep()
            await w.join(Node(3), "c")
            updates = await w.service.updates_since(w.key, old)
        else:
            updates = await w.service.updates_since(w.key, since)
        assert {update.whole for update in updates} == {True}

    run(scenario)


def test_many_who_stand_at_one_revision_have_it_packed_once() -> None:
    async def scenario(w: World) -> None:
        await w.join(Node(1), "a")
        before = (await w.map()).revision
        await w.join(Node(2), "b")
        first = await w.service.packed_updates_since(w.key, before)
        packed = w.service.metrics.map_bytes_packed
        for _ in range(50):
            assert await w.service.packed_updates_since(w.key, before) is first
        assert w.service.metrics.map_bytes_packed == packed

    run(scenario)


def row(i: int, revision: int, *, gone: bool = False) -> DocumentRow:
    envelope = pack_envelope(Node(1).record(bytes(32))) if not gone else b""
    return DocumentRow(
        network=bytes(32),
        kind="membership",
        subject=i.to_bytes(32),
        version=1,
        revision=revision,
        changed=0.0,
        envelope=envelope,
    )


def test_a_large_map_is_a_base_and_what_changed_since(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "BASE_BYTES_MIN", 1000)
    monkeypatch.setattr(maps, "UPDATE_BYTES_MAX", 4000)
    mirror = Mirror()
    mirror.absorb([row(i, i) for i in range(1, 101)], 100)
    base = mirror.whole()
    assert len(base) > 3
    assert all(len(part.message) < 5000 for part in base)
    assert [part.head.more for part in base] == [True] * (len(base) - 1) + [False]
    assert {part.head.whole for part in base} == {True}
    mirror.absorb([row(3, 101), row(4, 102, gone=True)], 102)
    again = mirror.whole()
    assert again[:-1] == base[:-1]  # packed before, and shared
    assert all(mine is theirs for mine, theirs in zip(again[:-1], base[:-1], strict=True))
    assert again[-1].head.revision == 102
    mirror.absorb([row(i, 102 + i) for i in range(1, 40)], 200)
    assert mirror.whole()[0] is not base[0]  # too much has changed: a new one


def test_the_order_of_a_mirror_is_bounded_by_what_it_holds() -> None:
    mirror = Mirror()
    for revision in range(1, 2000):
        mirror.absorb([row(revision % 5, revision)], revision)
    assert len(mirror._order) <= 2 * 5 + 65
    assert sum(1 for _ in mirror._places(0)) == 5


def test_nodes_are_told_their_map_from_memory_while_the_database_is_away(tmp_path: Path) -> None:
    async def scenario(w: World) -> None:
        node = Node(1)
        await w.join(node, "a")
        known = await w.map()
        store = w.service._core.store
        damaged = sqlite3.OperationalError("disk I/O error")

        def fail() -> object:
            raise problem_of(damaged)

        store.read = store.write = fail  # type: ignore[method-assign,assignment]
        try:
            assert (await w.map()).envelopes() == known.envelopes()
            await w.service.admit(w.key, node.key)
            session = await w.service.connected(w.key, node.key, "192.0.2.1:1")
            for attempt in (
                w.service.admit(w.key, Node(2).key),
                w.service.connected(w.key, Node(2).key, "192.0.2.1:1"),
                w.service.enrol(w.key, Node(2).key, bytes(32), "x"),
                w.service.ready(),
                w.service.disconnected(session),
            ):
                with pytest.raises(Problem) as refused:
                    await attempt
                assert refused.value.kind == "unavailable"
            session = await w.service.connected(w.key, node.key, "192.0.2.1:1")
            w.clock.now += 86_400
            with pytest.raises(Problem):  # its lease is over, and nobody can renew it
                await w.service.admit(w.key, node.key)
        finally:
            del store.read, store.write
        with closing(sqlite3.connect(tmp_path / "c.db")) as database:
            assert database.execute("SELECT count(*) FROM sessions").fetchone() == (0,)
        await w.service.heartbeat()
        assert (await w.service.member(w.admin, "home", "a")).connected
        await w.service.disconnected(session)
        assert not (await w.service.member(w.admin, "home", "a")).connected

    run(scenario, f"sqlite:///{tmp_path}/c.db")
