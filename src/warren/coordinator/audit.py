"""What was done, by whom: the log that administrators read."""

from __future__ import annotations

from typing import Final

from warren.coordinator.conditions import Where, above, equal
from warren.coordinator.core import Core
from warren.coordinator.rows import EventRow
from warren.coordinator.work import key_of, when
from warren.identity.signing import VerifyKey
from warren.proto.control.administration import Actor, Event

EVENTS_LIMIT_MAX: Final = 1000


class Audit:
    """Events are written with the change that they tell of (:meth:`.Work.event`); this reads them."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def list(self, actor: Actor, ref: str | None, after: int | None, limit: int) -> tuple[Event, ...]:
        """The audit log of one network or of all the actor may see, the oldest first: what follows that sequence
        number, or else its end; at most ``limit`` and EVENTS_LIMIT_MAX of them. Problem ``not-found``.
        """
        where: list[Where] = [] if after is None else [above("sequence", after)]
        async with self._core.read() as work:
            if ref is not None:
                where.append(equal("network", (await work.network_for(actor, ref)).key))
            elif actor.network is not None:
                where.append(equal("network", key_of(actor.network)))
            most = max(1, min(limit, EVENTS_LIMIT_MAX))
            rows = await work.find(EventRow, *where, order="sequence", descending=after is None, limit=most)
        return tuple(_event(row) for row in (reversed(rows) if after is None else rows))


def _event(row: EventRow) -> Event:
    return Event(
        sequence=row.sequence,
        at=when(row.at),
        actor=row.actor,
        action=row.action,
        network=None if row.network is None else str(VerifyKey(row.network)),
        subject=row.subject,
        detail=row.detail,
    )
