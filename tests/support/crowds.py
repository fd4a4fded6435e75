"""Many nodes and administrators at once against a real coordinator; to be called inside a lab host."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from warren.api.node import NodeLink
from warren.api.node_events import Connected, Disconnected, Refused
from warren.api.rest import AdminClient
from warren.errors import Unreachable, WarrenError
from warren.identity.signing import SigningKey, VerifyKey
from warren.model.tickets import read_access, read_ticket
from warren.proto.control.administration import InviteRequest, MemberChange
from warren.proto.control.client import EnrolRequest

PATIENCE_S = 60.0


@dataclass
class Acknowledged:
    """What the coordinator said it had done."""

    invites: list[str] = field(default_factory=list)
    members: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class Seen:
    """What the coordinator has."""

    invites: set[str]
    members: set[str]
    tags: dict[str, tuple[str, ...]]
    addresses: list[str]
    version: int
    revision: int


def redeem_at_once(ticket: str, count: int) -> tuple[int, dict[str, int]]:
    """``count`` nodes try to enrol with one ticket: how many became members, and why the others did not."""
    return asyncio.run(_redeem_at_once(ticket, count))


async def _redeem_at_once(ticket: str, count: int) -> tuple[int, dict[str, int]]:
    async with asyncio.timeout(PATIENCE_S):
        outcomes = await asyncio.gather(*(enrol(ticket, f"node{n}") for n in range(count)))
    refused: dict[str, int] = {}
    for outcome in outcomes:
        if outcome:
            refused[outcome] = refused.get(outcome, 0) + 1
    return outcomes.count(""), refused


async def enrol(ticket: str, name: str, key: SigningKey | None = None) -> str:
    """Empty when the node became a member, else the kind of the refusal."""
    read = read_ticket(ticket, time.time()).document
    link = NodeLink(
        network=VerifyKey(read.network),
        node=key or SigningKey(os.urandom(32)),
        coordinators=read.coordinators,
        enrol=EnrolRequest(read.secret, name),
        random=random.Random(name),
    )
    async with link:
        async for event in link.events():
            if isinstance(event, Connected):
                return ""
            if isinstance(event, Refused):
                return event.refused.kind
            if isinstance(event, Disconnected) and "429" in event.why:
                return "limit"
    return "ended"


def write_until_broken(access: str, network: str, ticket: str, round_number: int, began: Path) -> Acknowledged:
    """Make invites, enrol nodes and change tags, one after another, until the coordinator is gone; ``began`` is made
    when one of each kind has been acknowledged.
    """
    return asyncio.run(_write_until_broken(access, network, ticket, round_number, began))


async def _write_until_broken(access: str, network: str, ticket: str, number: int, began: Path) -> Acknowledged:
    done = Acknowledged()

    async def invite() -> None:
        async with AdminClient(read_access(access)) as client:
            while True:
                done.invites.append((await client.create_invite(network, InviteRequest())).id)

    async def tag() -> None:
        async with AdminClient(read_access(access)) as client:
            serial = 0
            while True:
                for member in list(done.members):
                    serial += 1
                    text = f"t{number}-{serial}"
                    await client.change_member(network, member, MemberChange(tags=(text,)))
                    done.tags[member] = text
                    began.touch()  # somebody had to become a member for that
                await asyncio.sleep(0)

    async def join() -> None:
        serial = 0
        while True:
            serial += 1
            key = SigningKey(os.urandom(32))
            if not await enrol(ticket, f"n{number}-{serial}", key):
                done.members.append(str(key.verify_key))

    async def until_broken(work: Coroutine[Any, Any, None]) -> None:
        with contextlib.suppress(WarrenError, TimeoutError):
            await work

    tasks = [asyncio.create_task(until_broken(work())) for work in (invite, tag, join)]
    # Who wants to become a member tries again for ever; who makes invites notices the end at once.
    await asyncio.wait(tasks, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return done


def what_is_there(access: str, network: str) -> Seen:
    """The coordinator's state as an administrator sees it, who asks again when it takes too long."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return asyncio.run(_what_is_there(access, network))
        except Unreachable:
            if time.monotonic() > end:
                raise


async def _what_is_there(access: str, network: str) -> Seen:
    async with AdminClient(read_access(access)) as client:
        invites = await client.invites(network)
        members = await client.members(network)
        state = await client.network(network)
    addresses = [member.address6 for member in members] + [member.address4 for member in members if member.address4]
    return Seen(
        {invite.id for invite in invites},
        {member.id for member in members},
        {member.id: member.tags for member in members},
        addresses,
        state.version,
        state.revision,
    )
