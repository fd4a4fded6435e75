"""Joining: exactly as often as an invite says, whatever races, and never again for a revoked key."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.coordinators import Clock, Node, World, replica, run, world
from tests.support.postgres import PostgresServer, postgres_server
from warren.coordinator.problems import Problem
from warren.coordinator.service import Options
from warren.identity.signing import VerifyKey
from warren.model.documents import NodeRecord
from warren.model.tickets import read_ticket
from warren.model.verified import sign
from warren.proto.control.administration import InviteRequest, MemberChange, NetworkRequest


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        made: PostgresServer = request.getfixturevalue("server")
        return made.database()
    return "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/c.db"


def test_of_two_hundred_redemptions_of_a_one_use_invite_one_succeeds(url: str) -> None:
    async def scenario(w: World) -> None:
        ticket = await w.ticket(uses=1)
        nodes = [Node(i + 1) for i in range(200)]
        outcomes = await asyncio.gather(
            *(w.service.enrol(w.key, node.key, ticket.secret, "web") for node in nodes), return_exceptions=True
        )
        assert Counter(getattr(outcome, "kind", None) for outcome in outcomes) == {None: 1, "ticket-used": 199}
        assert len(await w.service.members(w.admin, "home")) == 1
        (invite,) = await w.service.invites(w.admin, "home")
        assert invite.used == 1
        assert (await w.actions()).count("member.join") == 1

    run(scenario, url)


def test_replicas_share_the_count_of_an_invite(server: PostgresServer) -> None:
    async def main(url: str) -> None:
        async with world(url) as w, replica(url, w.clock, seed=2) as other:
            ticket = await w.ticket(uses=7)
            services = [w.service, other]
            outcomes = await asyncio.gather(
                *(services[i % 2].enrol(w.key, Node(i + 1).key, ticket.secret, "web") for i in range(100)),
                return_exceptions=True,
            )
            assert Counter(getattr(outcome, "kind", None) for outcome in outcomes) == {None: 7, "ticket-used": 93}
            members = await other.members(w.admin, "home")
            assert len({member.name for member in members}) == len({member.prefix6 for member in members}) == 7

    asyncio.run(main(server.database()))


def test_the_same_node_repeats_its_enrolment_as_often_as_it_likes(url: str) -> None:
    async def scenario(w: World) -> None:
        ticket, node = await w.ticket(uses=1), Node(1)
        await asyncio.gather(*(w.service.enrol(w.key, node.key, ticket.secret, "web") for _ in range(20)))
        w.clock.now += 10_000  # the ticket has expired since
        await w.service.enrol(w.key, node.key, ticket.secret, "web")
        assert (await w.service.invites(w.admin, "home"))[0].used == 1
        assert [member.name for member in await w.service.members(w.admin, "home")] == ["web"]

    run(scenario, url)


def test_members_that_join_at_once_have_names_and_addresses_of_their_own(url: str) -> None:
    async def scenario(w: World) -> None:
        ticket = await w.ticket(uses=100)
        await asyncio.gather(*(w.service.enrol(w.key, Node(i + 1).key, ticket.secret, "web") for i in range(60)))
        members = await w.service.members(w.admin, "home")
        assert {member.name for member in members} == {"web", *(f"web-{i}" for i in range(2, 61))}
        assert len({member.prefix6 for member in members}) == 60
        assert {member.address4 for member in members} == {f"10.77.0.{i}" for i in range(1, 61)}
        known = await w.map()
        assert len(known.members()) == 60

    run(scenario, url, prefix4="10.77.0.0/24")


def test_a_ticket_that_is_no_good_says_why() -> None:
    async def scenario(w: World) -> None:
        async def kind(secret: bytes, network: bytes = w.key) -> str:
            with pytest.raises(Problem) as refused:
                await w.service.enrol(network, Node(9).key, secret, "x")
            assert refused.value.retry_after_s is None
            return refused.value.kind

        expired, withdrawn, good = await w.ticket(ttl_s=10), await w.ticket(), await w.ticket()
        invites = await w.service.invites(w.admin, "home")
        await w.service.revoke_invite(w.admin, "home", invites[1].id)
        other = await w.service.create_network(w.admin, NetworkRequest(name="other"))
        w.clock.now += 10
        assert await kind(expired.secret) == "ticket-expired"
        assert await kind(withdrawn.secret) == "ticket-unknown"
        assert await kind(bytes(32)) == "ticket-unknown"
        assert await kind(good.secret, bytes(32)) == "unknown-network"
        assert await kind(good.secret, VerifyKey.from_text(other.id).raw) == "ticket-unknown"
        assert w.service.metrics.enrolments_refused == 5
        assert (await w.actions()).count("member.join") == 0

    run(scenario)


def test_a_revoked_key_is_never_let_in_again(url: str) -> None:
    async def scenario(w: World) -> None:
        node, ticket = Node(1), await w.ticket(uses=5)
        await w.service.enrol(w.key, node.key, ticket.secret, "web")
        await w.service.revoke_member(w.admin, "home", "web")
        w.clock.now += 10 * 86_400
        await w.service.sweep()
        fresh = await w.ticket(uses=5)
        for attempt in (
            w.service.enrol(w.key, node.key, ticket.secret, "web"),
            w.service.enrol(w.key, node.key, fresh.secret, "web"),
            w.service.admit(w.key, node.key),
            w.service.connected(w.key, node.key, "192.0.2.1:1"),
            w.service.publish(w.key, node.key, node.record(w.key)),
            w.service.leave(w.key, node.key),
        ):
            with pytest.raises(Problem) as refused:
                await attempt
            assert refused.value.kind == "revoked"
        assert await w.service.renew_due() == 0
        assert (await w.map()).members() == {}

    run(scenario, url)


def test_a_member_that_left_may_join_by_a_new_ticket_and_gets_its_place_back() -> None:
    async def scenario(w: World) -> None:
        node = Node(1)
        await w.join(node, "web")
        before = await w.service.member(w.admin, "home", "web")
        known = await w.map()
        await w.service.leave(w.key, node.key)
        with pytest.raises(Problem) as refused:
            await w.service.admit(w.key, node.key)
        assert refused.value.kind == "not-a-member"
        await w.join(node, "web")
        after = await w.service.member(w.admin, "home", "web")
        assert (after.name, after.address6) == (before.name, before.address6)
        assert list((await w.map(known)).members()) == [node.key]  # its version went on growing

    run(scenario)


def test_an_address_rests_before_another_node_has_it() -> None:
    options = Options(quarantine_s=3 * 86_400)

    async def scenario(w: World) -> None:
        for i in range(6):
            await w.join(Node(i + 1), f"n{i}")
        with pytest.raises(Problem) as refused:
            await w.join(Node(7), "late")
        assert refused.value.kind == "no-address"
        was = await w.service.member(w.admin, "home", "n2")
        await w.service.revoke_member(w.admin, "home", "n2")
        w.clock.now += options.quarantine_s - 1
        with pytest.raises(Problem):
            await w.join(Node(7), "late")
        w.clock.now += 1
        await w.join(Node(7), "late")
        now = await w.service.member(w.admin, "home", "late")
        assert (now.address6, now.address4) == (was.address6, was.address4)

    run(scenario, options=options, prefix4="10.77.0.0/29")


def test_an_address_rests_at_least_until_the_lease_that_had_it_has_ended() -> None:
    async def scenario(w: World) -> None:
        for i in range(6):
            await w.join(Node(i + 1), f"n{i}")
        await w.service.leave(w.key, Node(1).key)
        w.clock.now += 86_399
        with pytest.raises(Problem):
            await w.join(Node(7), "late")
        w.clock.now += 1
        await w.join(Node(7), "late")

    run(scenario, options=Options(quarantine_s=0), prefix4="10.77.0.0/29")


def test_a_name_rests_with_its_address_because_policies_speak_of_names() -> None:
    async def scenario(w: World) -> None:
        await w.join(Node(1), "admin")
        await w.service.revoke_member(w.admin, "home", "admin")
        await w.join(Node(2), "admin")
        assert [member.name for member in await w.service.members(w.admin, "home")] == ["admin-2"]

    run(scenario)


def test_a_record_is_taken_only_from_its_node_and_only_newer(url: str) -> None:
    async def scenario(w: World) -> None:
        node, other = Node(1), Node(2)
        await w.join(node, "web")
        await w.join(other, "db")
        assert await w.service.publish(w.key, node.key, node.record(w.key, 5)) == 5
        revision = (await w.map()).revision
        assert await w.service.publish(w.key, node.key, node.record(w.key, 5)) == 5  # the answer got lost
        assert (await w.map()).revision == revision
        for record in (node.record(w.key, 5, "192.0.2.9"), node.record(w.key, 4)):
            with pytest.raises(Problem) as refused:
                await w.service.publish(w.key, node.key, record)
            assert refused.value.kind == "version-conflict"
        forged = sign(
            NodeRecord(network=w.key, version=9, node=other.key, wireguard_key=bytes(32)), other.signing_key
        ).envelope
        membership = next(one for one in (await w.map()).envelopes() if one.kind == "membership")
        for record in (forged, membership, node.record(bytes(32), 9)):
            with pytest.raises(Problem) as refused:
                await w.service.publish(w.key, node.key, record)
            assert refused.value.kind == "invalid"
        record = (await w.map()).members()[node.key].record
        assert record is not None
        assert record.version == 5

    run(scenario, url)


def test_no_member_may_name_the_wireguard_key_of_another(url: str) -> None:
    """It would draw the other's packets to itself, or keep them from arriving."""
    present, announced, own = b"p" * 32, b"n" * 32, b"o" * 32

    async def scenario(w: World) -> None:
        victim, insider = Node(1), Node(2)
        for node in (victim, insider):
            await w.join(node)
        await w.service.publish(w.key, victim.key, victim.record(w.key, 1, key=present, next_key=announced))
        await w.service.publish(w.key, insider.key, insider.record(w.key, 1, key=own))
        for key, next_key in ((present, None), (announced, None), (own, present), (own, announced), (present, own)):
            with pytest.raises(Problem) as refused:
                await w.service.publish(w.key, insider.key, insider.record(w.key, 2, key=key, next_key=next_key))
            assert refused.value.kind == "key-taken"
            assert refused.value.retry_after_s is not None
        record = (await w.map()).members()[insider.key].record
        assert record is not None
        assert (record.version, record.wireguard_key) == (1, own)
        await w.service.publish(w.key, victim.key, victim.record(w.key, 2, key=announced))
        await w.service.publish(w.key, insider.key, insider.record(w.key, 3, key=own, next_key=present))  # free again
        await w.service.publish(w.key, insider.key, insider.record(w.key, 4, key=present))
        await w.service.publish(w.key, victim.key, victim.record(w.key, 3, key=own))

    run(scenario, url)


def test_keys_of_records_from_before_there_was_a_table_of_them_are_taken_too(tmp_path: Path) -> None:
    async def main() -> None:
        url, present, announced = f"sqlite:///{tmp_path}/c.db", b"p" * 32, b"n" * 32
        async with world(url) as w:
            for i in range(3):
                await w.join(Node(i + 1), f"n{i}")
            await w.service.publish(w.key, Node(1).key, Node(1).record(w.key, key=present, next_key=announced))
            await w.service.publish(w.key, Node(3).key, Node(3).record(w.key, key=b"3" * 32))
            await w.service.leave(w.key, Node(3).key)
        with closing(sqlite3.connect(tmp_path / "c.db")) as database:
            database.executescript(
                "DROP TABLE wireguard_keys; DROP TABLE relays; UPDATE schema_version SET version_num = '0001'"
            )
        async with replica(url, w.clock) as service:
            for key in (present, announced):
                with pytest.raises(Problem) as refused:
                    await service.publish(w.key, Node(2).key, Node(2).record(w.key, key=key))
                assert refused.value.kind == "key-taken"
            await service.publish(w.key, Node(2).key, Node(2).record(w.key, key=b"3" * 32))

    asyncio.run(main())


def test_the_wireguard_key_of_who_left_or_was_revoked_is_free_and_keys_are_of_one_network(url: str) -> None:
    key = b"k" * 32

    async def scenario(w: World) -> None:
        nodes = [Node(i + 1) for i in range(3)]
        for node in nodes:
            await w.join(node, f"n{node.key[0]}")
        await w.service.publish(w.key, nodes[0].key, nodes[0].record(w.key, key=key))
        await w.service.leave(w.key, nodes[0].key)
        await w.service.publish(w.key, nodes[1].key, nodes[1].record(w.key, key=key))
        await w.service.revoke_member(w.admin, "home", nodes[1].text)
        await w.service.publish(w.key, nodes[2].key, nodes[2].record(w.key, key=key))
        await w.join(nodes[0])
        with pytest.raises(Problem):
            await w.service.publish(w.key, nodes[0].key, nodes[0].record(w.key, 2, key=key))
        other = await w.service.create_network(w.admin, NetworkRequest(name="other"))
        network = VerifyKey.from_text(other.id).raw
        invite = await w.service.create_invite(w.admin, "other", InviteRequest())
        ticket = read_ticket(invite.ticket, w.clock.now).document
        await w.service.enrol(network, nodes[0].key, ticket.secret, "n")
        await w.service.publish(network, nodes[0].key, nodes[0].record(network, key=key))

    run(scenario, url)


def test_a_restarted_coordinator_goes_on_where_it_was(tmp_path: Path) -> None:
    async def main() -> None:
        url, clock = f"sqlite:///{tmp_path}/c.db", Clock()
        async with world(url) as w:
            await w.join(Node(1), "web")
            identity, known = w.service.identity, await w.map()
            admin, key = w.admin, w.key
        async with replica(url, clock, seed=5) as service:
            assert service.identity == identity
            await service.admit(key, Node(1).key)
            assert await service.updates_since(key, known.revision) == ()
            assert await service.first_token() is None
            assert [member.name for member in await service.members(admin, "home")] == ["web"]

    asyncio.run(main())


def test_versions_are_at_least_the_time_so_that_an_old_backup_signs_nothing_older(tmp_path: Path) -> None:
    async def main() -> None:
        url = f"sqlite:///{tmp_path}/c.db"
        async with world(url) as w:
            for i in range(3):
                await w.join(Node(i + 1), f"n{i}")
            key, admin = w.key, w.admin
        backup = (tmp_path / "c.db").read_bytes()
        clock = Clock(w.clock.now + 100)
        async with replica(url, clock, seed=2) as service:
            later = World(service, clock, admin, w.network)
            for name in ("a", "b", "c"):
                await service.change_member(admin, "home", Node(1).text, MemberChange(name=name))
            for i in range(1, 3):
                await service.revoke_member(admin, "home", f"n{i}")
            known = await later.map()
        for journal in tmp_path.glob("c.db-*"):
            journal.unlink()
        (tmp_path / "c.db").write_bytes(backup)
        clock.now += 100
        async with replica(url, clock, seed=3) as service:
            restored = World(service, clock, admin, w.network)
            await service.revoke_member(admin, "home", "n0")
            assert (await restored.map(known)).is_revoked(Node(1).key)
            assert key == restored.key

    asyncio.run(main())
