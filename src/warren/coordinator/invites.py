"""Invites: tickets handed out, counted, and taken back."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from warren.coordinator.conditions import above, equal
from warren.coordinator.core import Core
from warren.coordinator.minting import Minted, mint
from warren.coordinator.network_rows import coordinators
from warren.coordinator.problems import Problem
from warren.coordinator.rows import InviteRow, NetworkRow
from warren.coordinator.work import Work, shown, when
from warren.model.documents import Coordinator, Ticket
from warren.model.tickets import ticket_text
from warren.model.verified import sign
from warren.proto.control.administration import Actor, Invite, InviteRequest, NewInvite
from warren.proto.control.spans import exact_span

INVITES_MAX: Final = 10_000
"""Of one network that have not expired."""
TICKET_COORDINATORS_MAX: Final = 4


class Invites:
    def __init__(self, core: Core) -> None:
        self._core = core

    async def create(self, actor: Actor, ref: str, request: InviteRequest) -> NewInvite:
        """With the ticket, which is shown this once."""

        async def operation(work: Work) -> NewInvite:
            await work.authorise(actor)
            network = await work.network_for(actor, ref)
            open_ones = await work.count(InviteRow, equal("network", network.key), above("expires", work.now))
            if open_ones >= INVITES_MAX:
                raise Problem("limit", f"there are {INVITES_MAX} invites", "Let some expire, or make counted ones.")
            minted = mint(self._core.random, now=work.now, ttl_s=request.ttl_s)
            if await work.get(InviteRow, minted.id) is not None:
                raise Problem("conflict", "the same random number came twice", "Try again.")
            row = _row(minted, network, request)
            await work.put(row)
            work.event(actor.name, "invite.create", network.key, row.id, _summary(request))
            ticket = await self._ticket(work, network, minted)
            return NewInvite(**_fields(row), ticket=ticket)

        return await self._core.write(operation)

    async def list(self, actor: Actor, ref: str) -> tuple[Invite, ...]:
        """Also those used up, revoked or expired, until they are forgotten a day after they expired."""
        async with self._core.read() as work:
            network = await work.network_for(actor, ref)
            rows = await work.find(InviteRow, equal("network", network.key), order="created")
        return tuple(Invite(**_fields(row)) for row in rows)

    async def revoke(self, actor: Actor, ref: str, invite_id: str) -> Invite:
        """Nobody joins by it any more; those who did stay. Problem ``not-found``."""

        async def operation(work: Work) -> Invite:
            await work.authorise(actor)
            network = await work.network_for(actor, ref)
            row = await work.get(InviteRow, invite_id)
            if row is None or row.network != network.key:
                raise Problem(
                    "not-found", f"there is no invite {shown(invite_id)}", "List the invites to see their ids."
                )
            if not row.revoked:
                row = msgspec.structs.replace(row, revoked=True)
                await work.put(row)
                work.event(actor.name, "invite.revoke", network.key, row.id, f"used {row.used} of {row.uses}")
            return Invite(**_fields(row))

        return await self._core.write(operation)

    async def _ticket(self, work: Work, network: NetworkRow, minted: Minted) -> str:
        everywhere = await coordinators(work, self._core)
        own = tuple(Coordinator(url=url, key=self._core.identity.verify_key.raw) for url in self._core.urls)
        document = Ticket(
            network=network.key,
            version=max(int(work.now), 1),
            name=network.name,
            coordinators=tuple(dict.fromkeys((*own, *everywhere)))[:TICKET_COORDINATORS_MAX],
            secret=minted.secret,
            not_after=int(minted.expires),
        )
        return ticket_text(sign(document, self._core.authority(network)))


def _row(minted: Minted, network: NetworkRow, request: InviteRequest) -> InviteRow:
    return InviteRow(
        id=minted.id,
        network=network.key,
        hash=minted.hash,
        uses=request.uses,
        used=0,
        tags=tuple(sorted(set(request.tags))),
        ephemeral=request.ephemeral,
        created=minted.created,
        expires=minted.expires,
        revoked=False,
    )


def _summary(request: InviteRequest) -> str:
    """For the audit log."""
    whom = "one machine" if request.uses == 1 else f"{request.uses} machines"
    tags = (f"tagged {', '.join(request.tags)}",) if request.tags else ()
    return ", ".join((f"for {whom}", f"within {exact_span(request.ttl_s)}", *tags, *["ephemeral"] * request.ephemeral))


def _fields(row: InviteRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "uses": row.uses,
        "used": row.used,
        "tags": row.tags,
        "ephemeral": row.ephemeral,
        "created": when(row.created),
        "expires": when(row.expires),
        "revoked": row.revoked,
    }
