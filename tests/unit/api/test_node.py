"""A node's standing link, over real TLS and WebSockets on loopback."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest

from tests.support.control_pair import AUTHORITY, NODE, OTHER, TICKET, record
from tests.support.control_server import TestCoordinator, certificate, certificate_issued_by
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
from warren.errors import OperationFailed, Unreachable
from warren.model.documents import Coordinator, NodeRecord
from warren.model.verified import Verified, verify
from warren.proto.control import messages
from warren.proto.control.client import EnrolRequest
from warren.proto.control.messages import Report, Update
from warren.proto.control.server_events import AuthenticateWanted, EnrolWanted, PublishWanted, Reported, SignalWanted

E = TypeVar("E")


class Impatient(random.Random):
    """Draws the beginning of every window: no test waits for a back-off."""

    def random(self) -> float:
        return 0.0

    def shuffle(self, _x: object) -> None:
        """As they were given."""


@asynccontextmanager
async def linked(
    *coordinators: TestCoordinator, enrol: EnrolRequest | None = None, since: int = 0
) -> AsyncIterator[tuple[NodeLink, Events]]:
    addresses = [one.coordinator for one in coordinators]
    async with asyncio.timeout(30), link_to(addresses, enrol=enrol, since=since) as link:
        yield link, Events(link)


def link_to(addresses: Sequence[Coordinator], *, enrol: EnrolRequest | None = None, since: int = 0) -> NodeLink:
    return NodeLink(
        network=AUTHORITY.verify_key,
        node=NODE,
        coordinators=addresses,
        since=lambda: since,
        enrol=enrol,
        version="test",
        random=Impatient(),
    )


class Events:
    """What a link tells, taken by kind."""

    def __init__(self, link: NodeLink) -> None:
        self._events = link.events()
        self.seen: list[Event] = []

    async def until(self, kind: type[E]) -> E:
        """The next event of that kind; those before it are passed over."""
        async for event in self._events:
            self.seen.append(event)
            if isinstance(event, kind):
                return event
        raise AssertionError(f"the link ended without {kind.__name__}: {self.seen}")

    async def rest(self) -> list[Event]:
        """Everything to the end of the link."""
        return [event async for event in self._events]


def verified(version: int = 1) -> Verified[NodeRecord]:
    document = verify(record(version=version), AUTHORITY.verify_key)
    assert isinstance(document.document, NodeRecord)
    return Verified(document.document, document.envelope)


def test_a_member_connects_and_gets_the_map() -> None:
    async def run() -> None:
        update = Update(revision=9, whole=True)
        async with TestCoordinator(updates=[update], offset_s=500) as server, linked(server, since=4) as (link, events):
            connected = await events.until(Connected)
            assert (connected.url, connected.observed) == (server.url, "127.0.0.1")
            assert connected.offset_s == pytest.approx(500, abs=15)
            assert link.connected
            assert (await events.until(UpdateReceived)).update == update
            assert server.events == [AuthenticateWanted(AUTHORITY.verify_key.raw, NODE.verify_key.raw, 4, "test")]

    asyncio.run(run())


def test_a_node_enrols_once_and_is_a_member_afterwards() -> None:
    async def run() -> None:
        async with TestCoordinator() as server, linked(server, enrol=TICKET) as (_, events):
            await events.until(Connected)
            assert isinstance(server.events[0], EnrolWanted)
            await server.sessions[0][1].close(1012)
            await events.until(Connected)
            assert isinstance(server.events[1], AuthenticateWanted)

    asyncio.run(run())


def test_a_ticket_that_is_refused_ends_the_link() -> None:
    def refuse(_: object) -> messages.Refused:
        return messages.Refused(
            kind="ticket-used", title="used", detail="the invite was used", remedy="ask for another"
        )

    async def run() -> None:
        async with TestCoordinator(decide=refuse) as server, linked(server, enrol=TICKET) as (_, events):
            refused, disconnected = await events.rest()
            assert isinstance(refused, Refused)
            assert refused.final
            assert str(refused) == "the invite was used; ask for another"
            assert isinstance(disconnected, Disconnected)
            assert disconnected.retry_in_s is None

    asyncio.run(run())


def test_a_refusal_for_now_is_tried_again() -> None:
    answers: list[messages.Refused | None] = [
        messages.Refused(kind="unavailable", title="not now", retry_after_s=0.01),
        None,
    ]

    async def run() -> None:
        async with (
            TestCoordinator(decide=lambda _: answers.pop(0)) as server,
            linked(server, enrol=TICKET) as (_, events),
        ):
            assert not (await events.until(Refused)).final
            await events.until(Connected)

    asyncio.run(run())


def test_a_member_that_is_refused_for_good_asks_rarely() -> None:
    def refuse(_: object) -> messages.Refused:
        return messages.Refused(kind="revoked", title="revoked")

    async def run() -> None:
        async with TestCoordinator(decide=refuse) as server, linked(server) as (link, events):
            assert (await events.until(Refused)).final
            assert (await events.until(Disconnected)).retry_in_s == 300.0
            server.decide = lambda _: None
            link.retry_now()
            await events.until(Connected)

    asyncio.run(run())


def test_what_is_said_arrives_and_the_answers_come_back() -> None:
    async def run() -> None:
        async with TestCoordinator() as server, linked(server) as (link, events):
            link.report(Report(uptime_s=1.0))
            link.publish(verified())
            assert not link.signal(OTHER.verify_key.raw, b"too early")
            await events.until(Connected)
            assert await events.until(Published) == Published(1)
            assert link.signal(OTHER.verify_key.raw, b"hello")
            assert await events.until(SignalUndeliverable) == SignalUndeliverable(OTHER.verify_key.raw)
            assert server.events[1:] == [
                PublishWanted(record()),
                Reported(Report(uptime_s=1.0)),
                SignalWanted(OTHER.verify_key.raw, b"hello"),
            ]
            server.open_sessions()[0].signal(OTHER.verify_key.raw, b"you")
            await server.say()
            assert await events.until(SignalReceived) == SignalReceived(OTHER.verify_key.raw, b"you")

    asyncio.run(run())


def test_a_record_goes_out_at_every_connection_until_it_is_stored() -> None:
    async def run() -> None:
        async with TestCoordinator() as server, linked(server) as (link, events):
            await events.until(Connected)
            link.publish(verified(2))
            await events.until(Published)
            for expected in ([], [PublishWanted(record(version=3))]):
                await server.sessions[-1][1].close(1012)
                await events.until(Disconnected)
                if expected:
                    link.publish(verified(3))
                server.events.clear()
                await events.until(Connected)
                await server.until(lambda: len(server.events) == 1 + len(expected))  # noqa: B023 - awaited here
                assert server.events[1:] == expected

    asyncio.run(run())


def test_it_moves_to_another_replica_when_its_own_is_killed() -> None:
    async def run() -> None:
        async with (
            TestCoordinator() as first,
            TestCoordinator(certificate=certificate(5)) as second,
            linked(first, second) as (_, events),
        ):
            assert (await events.until(Connected)).url == first.url
            first.kill()
            assert (await events.until(Connected)).url == second.url

    asyncio.run(run())


def test_a_coordinator_that_comes_back_is_found_without_asking_for_trust_again() -> None:
    async def run() -> None:
        async with TestCoordinator() as server, linked(server) as (_, events):
            await events.until(Connected)
            server.kill()
            await events.until(Disconnected)
            await server.stop()
            await server.start()
            await events.until(Connected)
            assert server.identity_requests == 1

    asyncio.run(run())


def test_a_renewed_certificate_has_to_be_stated() -> None:
    async def run() -> None:
        async with TestCoordinator() as server, linked(server) as (_, events):
            await events.until(Connected)
            await server.stop()
            await events.until(Disconnected)
            server.certificate = certificate(6)
            await server.start()
            await events.until(Connected)
            assert server.identity_requests == 2
            assert not any("proxy" in str(event) for event in events.seen)

    asyncio.run(run())


def test_an_interceptor_that_takes_over_later_is_found_out() -> None:
    async def run() -> None:
        async with TestCoordinator() as server, linked(server) as (_, events):
            await events.until(Connected)
            await server.stop()
            await events.until(Disconnected)
            await server.start(served=certificate(6))
            while "intercepting" not in (await events.until(Disconnected)).why:
                pass
            assert len(server.sessions) == 1

    asyncio.run(run())


def test_a_certificate_that_the_pinned_one_issued_is_not_taken() -> None:
    """Without comparing the leaf itself, the link would talk to it, and sign for a certificate that is not there."""

    async def run() -> None:
        issuer = certificate(3, ca=True)
        async with TestCoordinator(certificate=issuer) as server, linked(server) as (_, events):
            await events.until(Connected)
            await server.stop()
            await events.until(Disconnected)
            await server.start(served=certificate_issued_by(issuer))
            while "intercepting" not in (await events.until(Disconnected)).why:
                pass
            assert not server.open_sessions()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("status", "headers", "body", "sentence", "wait_s"),
    [
        (503, {"Retry-After": "7"}, b'{"title": "not now", "detail": "too many nodes"}', "too many nodes", 7.0),
        (429, {"Retry-After": "x"}, b"", "HTTP status 429", 0.0),
        (429, {"Retry-After": "9" * 30}, b"", "HTTP status 429", 3600.0),
        (404, {}, b"<html>", "does not take node connections (HTTP status 404)", 0.0),
    ],
)
def test_an_upgrade_that_is_refused_says_why(
    status: int, headers: dict[str, str], body: bytes, sentence: str, wait_s: float
) -> None:
    async def run() -> None:
        async with TestCoordinator(node_answer=(status, headers, body)) as server, linked(server) as (_, events):
            disconnected = await events.until(Disconnected)
            assert sentence in disconnected.why
            assert disconnected.retry_in_s == wait_s

    asyncio.run(run())


def test_another_subprotocol_is_no_coordinator() -> None:
    async def run() -> None:
        async with TestCoordinator(subprotocol=None) as server, linked(server) as (_, events):
            assert "does not speak" in (await events.until(Disconnected)).why

    asyncio.run(run())


def test_a_coordinator_that_talks_nonsense_is_left() -> None:
    async def run() -> None:
        async with TestCoordinator() as server, linked(server) as (_, events):
            for nonsense in (b"nonsense", "text"):
                await events.until(Connected)
                await server.sessions[-1][1].send(nonsense)
                why = (await events.until(Disconnected)).why
                assert "does not parse" in why or "text" in why

    asyncio.run(run())


# Leaving


def test_leaving_is_confirmed_and_ends_the_link() -> None:
    async def run() -> None:
        async with TestCoordinator() as server, linked(server) as (link, events):
            await events.until(Connected)
            await link.leave()
            assert [event.retry_in_s for event in await events.rest() if isinstance(event, Disconnected)] == [None]
            assert not link.connected

    asyncio.run(run())


def test_leaving_that_is_refused_or_lost_is_told_and_the_link_goes_on() -> None:
    async def run() -> None:
        async with TestCoordinator(leaves=False) as server, linked(server) as (link, events):
            with pytest.raises(Unreachable, match="does not answer now"):
                await link.leave()
            await events.until(Connected)
            with pytest.raises(OperationFailed, match="the database is away; try again"):
                await link.leave()
            await events.until(Connected)
            leaving = asyncio.ensure_future(link.leave())
            await asyncio.sleep(0)
            server.sessions[-1][1].transport.abort()
            with pytest.raises((Unreachable, OperationFailed)):
                await leaving
            await events.until(Connected)

    asyncio.run(run())


def test_a_link_that_is_closed_lets_nobody_wait() -> None:
    async def run() -> None:
        async with TestCoordinator() as server:
            async with linked(server) as (link, events):
                await events.until(Connected)
                rest = asyncio.ensure_future(events.rest())
                leaving = asyncio.ensure_future(link.leave())
                await asyncio.sleep(0)
            with pytest.raises(Unreachable, match="link was closed"):
                await leaving
            assert await rest == []

    asyncio.run(run())


def test_an_owner_that_does_not_listen_makes_the_coordinator_wait() -> None:
    async def run() -> None:
        updates = [Update(revision=revision) for revision in range(1, 400)]
        async with TestCoordinator(updates=updates) as server, linked(server) as (link, events):
            await server.until(lambda: link.connected)
            await events.until(Connected)
            revisions = [(await events.until(UpdateReceived)).update.revision for _ in updates]
            assert revisions == list(range(1, 400))

    asyncio.run(run())


def test_nobody_answers_at_any_address() -> None:
    async def run() -> None:
        server = TestCoordinator()
        await server.start()
        await server.stop()
        async with linked(server) as (_, events):
            first, second = await events.until(Disconnected), await events.until(Disconnected)
            assert "is the coordinator running" in first.why
            assert (first.retry_in_s, second.retry_in_s) == (0.0, 0.0)

    asyncio.run(run())
