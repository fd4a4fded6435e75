"""The node's link and the administrator's client against the real coordinator, on loopback."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest

from tests.unit.coordinator.web.harness import Running, running
from warren.api.node import NodeLink
from warren.api.node_events import (
    Connected,
    Disconnected,
    Event,
    Published,
    Refused,
    SignalReceived,
    SignalUndeliverable,
    UpdateReceived,
)
from warren.api.rest import AdminClient, RequestInvalid
from warren.errors import OperationFailed
from warren.identity.signing import SigningKey, VerifyKey
from warren.model.documents import Coordinator, NodeRecord, Rule
from warren.model.netmap import NetworkMap
from warren.model.tickets import Access, access_text, read_access, read_ticket
from warren.model.verified import sign
from warren.proto.control.administration import InviteRequest, MemberChange, NetworkRequest, TokenRequest
from warren.proto.control.client import EnrolRequest
from warren.proto.control.desired_state import ApplyRequest, DesiredState
from warren.proto.control.messages import Report, Task

E = TypeVar("E")


class Machine:
    """A node with its link and its map."""

    def __init__(self, number: int, network: VerifyKey, coordinator: Coordinator, enrol: EnrolRequest | None) -> None:
        self.key = SigningKey(bytes([number]) * 32)
        self.map = NetworkMap(network)
        self.link = NodeLink(
            network=network,
            node=self.key,
            coordinators=[coordinator],
            since=lambda: self.map.revision,
            enrol=enrol,
            version="test",
            random=random.Random(number),
        )
        self._events = self.link.events()

    async def until(self, kind: type[E]) -> E:
        async for event in self._events:
            self._heed(event)
            if isinstance(event, kind):
                return event
        raise AssertionError(f"the link ended without {kind.__name__}")

    async def until_named(self, *names: str) -> None:
        """Until these are the members that the map knows."""
        while {member.name for member in self.map.members().values()} != set(names):
            await self.until(UpdateReceived)

    def publish(self, version: int) -> None:
        raw = self.key.verify_key.raw
        record = NodeRecord(network=self.map.network.raw, version=version, node=raw, wireguard_key=raw)
        self.link.publish(sign(record, self.key))

    def _heed(self, event: Event) -> None:
        if isinstance(event, Connected):
            self.map.abandon()
        if isinstance(event, UpdateReceived):
            one = event.update
            applied = self.map.apply(revision=one.revision, whole=one.whole, more=one.more, put=one.put, drop=one.drop)
            assert not applied.refused


@asynccontextmanager
async def administered() -> AsyncIterator[tuple[Running, AdminClient]]:
    async with asyncio.timeout(60), running() as server:
        access = read_access(access_text(Access((server.url,), server.service.identity.verify_key, server.token)))
        async with AdminClient(access) as admin:
            yield server, admin


async def machine(server: Running, admin: AdminClient, number: int, name: str) -> Machine:
    """One that is about to join the network ``home`` by a ticket."""
    made = await admin.create_invite("home", InviteRequest())
    ticket = read_ticket(made.ticket, server.clock.now).document
    (named,) = {one.key for one in ticket.coordinators}
    coordinator = Coordinator(url=server.url, key=named)
    return Machine(number, VerifyKey(ticket.network), coordinator, EnrolRequest(ticket.secret, name))


def test_two_machines_join_see_each_other_and_one_is_revoked() -> None:
    async def run() -> None:
        async with administered() as (server, admin):
            await admin.create_network(NetworkRequest(name="home"))
            web, db = await machine(server, admin, 1, "web"), await machine(server, admin, 2, "db")
            async with web.link, db.link:
                assert (await web.until(Connected)).observed == "127.0.0.1"
                await db.until(Connected)
                await web.until_named("web", "db")
                await db.until_named("web", "db")
                web.publish(1)
                assert (await web.until(Published)).version == 1
                while db.map.members()[web.key.verify_key.raw].record is None:
                    await db.until(UpdateReceived)

                await admin.change_member("home", "db", MemberChange(name="database"))
                await web.until_named("web", "database")

                assert web.link.signal(db.key.verify_key.raw, b"hello")
                assert await db.until(SignalReceived) == SignalReceived(web.key.verify_key.raw, b"hello")

                await admin.revoke_member("home", "database")
                refused = await db.until(Refused)
                assert (refused.refused.kind, refused.final) == ("revoked", True)
                await web.until_named("web")
                assert web.link.signal(db.key.verify_key.raw, b"gone")
                assert await web.until(SignalUndeliverable) == SignalUndeliverable(db.key.verify_key.raw)

    asyncio.run(run())


def test_a_machine_comes_back_to_where_it_stood_and_leaves() -> None:
    async def run() -> None:
        async with administered() as (server, admin):
            await admin.create_network(NetworkRequest(name="home"))
            web = await machine(server, admin, 1, "web")
            async with web.link:
                await web.until_named("web")
            web.link = NodeLink(
                network=web.map.network,
                node=web.key,
                coordinators=web.link.coordinators,
                since=lambda: web.map.revision,
                random=random.Random(1),
            )
            web._events = web.link.events()
            policy = (Rule(action="deny", sources=("members",), destinations=("members",)),)
            await admin.apply("home", ApplyRequest(state=DesiredState(policy=policy)))
            async with web.link:
                update = (await web.until(UpdateReceived)).update
                assert (update.whole, len(update.put)) == (False, 1)
                assert web.map.spec is not None
                assert web.map.spec.policy == policy
                web.link.report(Report(uptime_s=1.0, tasks=(Task(name="dns", state="failed", reason="why"),)))
                while not (await admin.member("home", "web")).tasks:
                    await asyncio.sleep(0.01)
                await web.link.leave()
                assert (await web.until(Disconnected)).retry_in_s is None
            assert await admin.members("home") == ()

    asyncio.run(run())


def test_a_ticket_serves_once() -> None:
    async def run() -> None:
        async with administered() as (server, admin):
            await admin.create_network(NetworkRequest(name="home"))
            web = await machine(server, admin, 1, "web")
            thief = Machine(2, web.map.network, web.link.coordinators[0], web.link._enrol)
            async with web.link:
                await web.until(Connected)
            async with thief.link:
                refused = await thief.until(Refused)
                assert refused.refused.kind == "ticket-used"
                assert str(refused)

    asyncio.run(run())


def test_a_link_that_is_closed_while_it_connects_leaves_nothing_open() -> None:
    async def run() -> None:
        async with administered() as (server, admin):
            await admin.create_network(NetworkRequest(name="home"))
            web = await machine(server, admin, 1, "web")
            async with web.link:
                await web.until(Connected)
            for turns in range(10, 52, 3):
                link = NodeLink(
                    network=web.map.network,
                    node=web.key,
                    coordinators=web.link.coordinators,
                    random=random.Random(turns),
                )
                async with link:
                    for _ in range(turns):
                        await asyncio.sleep(0)

    asyncio.run(run())
    gc.collect()  # what was left open is told of now


def test_what_the_coordinator_refuses_an_administrator_says_what_to_do() -> None:
    async def run() -> None:
        async with administered() as (_, admin):
            made = await admin.create_network(NetworkRequest(name="home"))
            assert await admin.network("home") == await admin.network(made.id)
            with pytest.raises(OperationFailed, match="no network"):
                await admin.network("nowhere")
            with pytest.raises(OperationFailed, match="home"):
                await admin.create_network(NetworkRequest(name="home"))
            reader = await admin.create_token(TokenRequest(label="reader", role="reader", ttl_s=60))
            assert {token.label for token in await admin.tokens()} >= {"reader"}
            state = await admin.desired_state("home")
            wrong = DesiredState(policy=(Rule(action="allow", sources=("member:nobody",), destinations=("members",)),))
            plan = await admin.plan("home", wrong)
            assert [problem.where for problem in plan.problems] == ["policy[0].sources"]
            assert (await admin.plan("home", state)).changes == ()
            with pytest.raises((RequestInvalid, OperationFailed)):
                await admin.apply("home", ApplyRequest(state=wrong))
            assert (await admin.events("home", after=0, limit=1))[0].action == "network.create"
            assert (await admin.status("home")).connected == 0
            await admin.revoke_token(reader.id)

    asyncio.run(run())


def test_a_token_that_is_not_known_is_not_let_in() -> None:
    async def run() -> None:
        async with running() as server:
            access = Access((server.url,), server.service.identity.verify_key, "not-a-token-of-anybody")
            async with AdminClient(access) as client:
                with pytest.raises(OperationFailed, match="not known here"):
                    await client.networks()

    asyncio.run(run())
