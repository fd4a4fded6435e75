"""A coordinator's service for tests: a clock that is set by hand, randomness from a seed, nodes with keys."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from warren.coordinator.service import Options, Service
from warren.coordinator.store import open_store
from warren.identity.signing import SigningKey, VerifyKey
from warren.model.documents import Candidate, NodeRecord, Ticket
from warren.model.envelope import Envelope
from warren.model.netmap import NetworkMap
from warren.model.tickets import read_ticket
from warren.model.verified import sign
from warren.proto.control.administration import Actor, InviteRequest, Network, NetworkRequest

START_S = 1_800_000_000.0
ADMIN_S = 5 * 366 * 86_400
"""For how long the administrator of a test is let in."""
URL = "https://coordinator.example:8443"


class Clock:
    def __init__(self, now: float = START_S) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Node:
    """A key, and what its holder does."""

    def __init__(self, seed: int) -> None:
        self.signing_key = SigningKey(seed.to_bytes(32))
        self.key = self.signing_key.verify_key.raw

    @property
    def text(self) -> str:
        return str(VerifyKey(self.key))

    def record(
        self,
        network: bytes,
        version: int = 1,
        address: str = "192.0.2.1",
        key: bytes = bytes(32),  # of all zeros: nobody's
        next_key: bytes | None = None,
    ) -> Envelope:
        document = NodeRecord(
            network=network,
            version=version,
            node=self.key,
            wireguard_key=key,
            next_wireguard_key=next_key,
            candidates=(Candidate(kind="host", address=address, port=51820),),
        )
        return sign(document, self.signing_key).envelope


@dataclass
class World:
    """A started service with an administrator and the network ``home``."""

    service: Service
    clock: Clock
    admin: Actor
    network: Network

    @property
    def key(self) -> bytes:
        return VerifyKey.from_text(self.network.id).raw

    async def ticket(self, **options: object) -> Ticket:
        request = InviteRequest(**options)  # type: ignore[arg-type]
        invite = await self.service.create_invite(self.admin, "home", request)
        return read_ticket(invite.ticket, self.clock.now).document

    async def join(self, node: Node, name: str = "node", **options: object) -> None:
        ticket = await self.ticket(**options)
        await self.service.enrol(self.key, node.key, ticket.secret, name)

    async def map(self, start: NetworkMap | None = None) -> NetworkMap:
        """What a node knows that has taken all updates; nothing of them was refused."""
        known = start or NetworkMap(VerifyKey(self.key))
        for update in await self.service.updates_since(self.key, known.revision):
            applied = known.apply(
                revision=update.revision, whole=update.whole, more=update.more, put=update.put, drop=update.drop
            )
            assert applied.refused == ()
        return known

    async def actions(self) -> list[str]:
        return [event.action for event in await self.service.events(self.admin, None, limit=1000)]


def seeded(seed: int) -> Callable[[int], bytes]:
    return random.Random(seed).randbytes


@asynccontextmanager
async def replica(
    url: str, clock: Clock, *, seed: int = 1, options: Options | None = None, at: str = URL
) -> AsyncIterator[Service]:
    service = Service(await open_store(url), urls=(at,), wall_clock=clock, random=seeded(seed), options=options)
    try:
        await service.start()
        yield service
    finally:
        await service.close()


@asynccontextmanager
async def world(
    url: str = "memory:", *, options: Options | None = None, prefix4: str | None = None
) -> AsyncIterator[World]:
    clock = Clock()
    options = dataclasses.replace(options or Options(), first_token_ttl_s=ADMIN_S)
    async with replica(url, clock, options=options) as service:
        secret = await service.first_token()
        assert secret is not None
        admin = await service.actor(secret)
        network = await service.create_network(admin, NetworkRequest(name="home", prefix4=prefix4))
        yield World(service, clock, admin, network)


def run(
    scenario: Callable[[World], Awaitable[None]],
    url: str = "memory:",
    *,
    options: Options | None = None,
    prefix4: str | None = None,
) -> None:
    async def main() -> None:
        async with world(url, options=options, prefix4=prefix4) as made:
            await scenario(made)

    asyncio.run(asyncio.wait_for(main(), 100))
