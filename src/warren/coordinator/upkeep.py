"""What a coordinator does by itself: its heartbeat, leases, and what is over.

Each replica does all of it. Every step looks again in the transaction that writes, so doing it twice does nothing.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from warren import log
from warren.coordinator.conditions import above, at_most, equal
from warren.coordinator.core import Core
from warren.coordinator.enrolment import renew
from warren.coordinator.maps import Maps
from warren.coordinator.members import LISTED_LONGER_S, write_revocation
from warren.coordinator.memberships import remove
from warren.coordinator.network_rows import coordinators, next_network_version, spec_of
from warren.coordinator.problems import Problem
from warren.coordinator.relays import forget_unseen
from warren.coordinator.rows import (
    DocumentRow,
    EventRow,
    InviteRow,
    MemberRow,
    NetworkRow,
    ReplicaRow,
    RevokedRow,
    SessionRow,
    TokenRow,
    UrlRow,
)
from warren.coordinator.sessions import REPLICA_DEAD_S, Sessions, gone, living
from warren.coordinator.work import Work
from warren.identity.signing import VerifyKey
from warren.model.documents import Revocation
from warren.model.envelope import unpack_envelope_untrusted
from warren.model.verified import sign

HEARTBEAT_S: Final = 5.0
SWEEP_S: Final = 30.0
DAY_S: Final = 86_400.0
INVITES_KEPT_S: Final = DAY_S
"""Beyond their end, so that a late node is told "expired" instead of "unknown"."""
TOKENS_KEPT_S: Final = 30 * DAY_S
TOMBSTONES_KEPT_S: Final = 30 * DAY_S
"""A node that was away for longer is sent the whole map."""
URLS_KEPT_S: Final = 30 * DAY_S
EVENTS_MAX: Final = 1_000_000
"""About 300 MB; the oldest go first."""
STEP_MAX: Final = 1000
"""Rows that one transaction of the sweep takes away, so that nobody waits long behind it."""

_revocation: Final = msgspec.msgpack.Decoder(Revocation)
_log = log.get("coordinator")


class Upkeep:
    def __init__(self, core: Core, sessions: Sessions, maps: Maps) -> None:
        self._core = core
        self._sessions = sessions
        self._maps = maps
        self._started = 0.0

    async def begin(self) -> None:
        """Enter this replica, and where it answers. Where nobody else can use the database, sessions it still knows
        are those of a process that died.
        """
        self._started = self._core.now()

        async def operation(work: Work) -> None:
            await self._beat(work)
            await work.put(*(UrlRow(url=url, seen=work.now) for url in self._core.urls))
            if not self._core.store.shared:
                for replica in await work.find(ReplicaRow):
                    if replica.id != self._core.replica:
                        await _bury(work, replica.id)
            await _sign_coordinators(work, self._core)

        await self._core.write(operation)

    async def end(self) -> None:
        """Leave in order: the sessions of this replica are over."""

        async def operation(work: Work) -> None:
            await _bury(work, self._core.replica)

        await self._core.write(operation)

    async def run(self) -> None:
        """Do everything when it is due, until cancelled. A database that is away is no reason to stop."""
        since_sweep = 0.0
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            since_sweep += HEARTBEAT_S
            try:
                await self.heartbeat()
                await self.renew_due()
                if since_sweep >= SWEEP_S:
                    since_sweep = 0.0
                    await self.sweep()
            except Problem as problem:
                _log.warning("upkeep is late: %s", problem)

    async def heartbeat(self) -> None:
        """Show that this replica lives, write what nodes reported, and look for changes nobody told of."""
        forgotten = await self._core.write(self._beat)
        await self._sessions.reconcile(forgotten=forgotten)
        await self._sessions.flush_reports()
        await self._maps.catch_up()

    async def renew_due(self) -> int:
        """Renew the leases of nodes connected here that are due; how many."""
        now = self._core.now()
        async with self._core.read() as work:
            due = await work.find(MemberRow, at_most("renew_at", now))
        here = [member for member in due if self._sessions.is_here(member.network, member.node)]
        renewed = 0
        for first in range(0, len(here), STEP_MAX):
            results = await asyncio.gather(
                *(self._renew(member) for member in here[first : first + STEP_MAX]), return_exceptions=True
            )
            renewed += sum(result is True for result in results)
            for result in results:
                if isinstance(result, Problem) and result.kind == "unavailable":
                    raise result
                if isinstance(result, BaseException) and not isinstance(result, Problem):
                    raise result
        return renewed

    async def sweep(self) -> int:
        """Forget what is over; how many things went."""
        core = self._core
        went = 0
        for step in (
            self._dead_replicas,
            self._vanished,
            self._invites_and_tokens,
            self._tombstones,
            self._events,
            self._revocations,
            self._urls,
            self._relays,
        ):
            while (gone_now := await core.write(step)) > 0:
                went += gone_now
                if gone_now < STEP_MAX:
                    break
        self._maps.forget_unused()
        return went

    async def _renew(self, member: MemberRow) -> bool:
        return await self._core.write(lambda work: renew(work, self._core, member.network, member.node))

    async def _beat(self, work: Work) -> bool:
        """Whether this replica was not known."""
        known = await work.get(ReplicaRow, self._core.replica)
        await work.put(ReplicaRow(id=self._core.replica, started=self._started, heartbeat=work.now))
        return known is None

    # Steps of the sweep, each a transaction

    async def _dead_replicas(self, work: Work) -> int:
        dead = await work.find(ReplicaRow, at_most("heartbeat", work.now - REPLICA_DEAD_S))
        return sum([await _bury(work, row.id) for row in dead if row.id != self._core.replica])

    async def _vanished(self, work: Work) -> int:
        """Ephemeral members that are gone; the time this coordinator was away itself does not count."""
        since = work.now - self._core.options.ephemeral_grace_s
        if self._started > since:
            return 0
        alive = await living(work, self._core)
        went = 0
        for member in await work.find(MemberRow, equal("ephemeral", True), at_most("last_seen", since)):
            session = await work.get(SessionRow, member.network, member.node)
            if session is not None and session.replica in alive:
                continue
            await remove(work, self._core, member)
            work.event("coordinator", "member.vanish", member.network, member.name, str(VerifyKey(member.node)))
            self._core.metrics.vanished += 1
            went += 1
            if went == STEP_MAX:
                break
        return went

    async def _invites_and_tokens(self, work: Work) -> int:
        return await work.delete(InviteRow, at_most("expires", work.now - INVITES_KEPT_S)) + await work.delete(
            TokenRow, at_most("expires", work.now - TOKENS_KEPT_S)
        )

    async def _tombstones(self, work: Work) -> int:
        old = await work.find(
            DocumentRow, equal("envelope", b""), at_most("changed", work.now - TOMBSTONES_KEPT_S), limit=STEP_MAX
        )
        for row in old:
            await work.delete(
                DocumentRow, equal("network", row.network), equal("kind", row.kind), equal("subject", row.subject)
            )
            network = await work.known_network(row.network)
            work.change(msgspec.structs.replace(network, horizon=max(network.horizon, row.revision)))
        return len(old)

    async def _events(self, work: Work) -> int:
        last = await work.find(EventRow, order="sequence", descending=True, limit=1)
        return await work.delete(EventRow, at_most("sequence", last[0].sequence - EVENTS_MAX)) if last else 0

    async def _revocations(self, work: Work) -> int:
        """Take those from the lists whose leases have ended, once a day or so: each new list goes to everybody."""
        went = 0
        for row in await work.find(DocumentRow, equal("kind", Revocation.KIND), at_most("changed", work.now - DAY_S)):
            listed = _revocation.decode(unpack_envelope_untrusted(row.envelope).payload).nodes
            kept = await work.count(
                RevokedRow, equal("network", row.network), above("lease_ended", work.now - LISTED_LONGER_S)
            )
            if kept < len(listed):
                await write_revocation(work, self._core, await work.known_network(row.network))
                went += 1
        return went

    async def _urls(self, work: Work) -> int:
        known = await work.find(UrlRow)
        ours = [row for row in known if row.url in self._core.urls and row.seen <= work.now - DAY_S]
        if ours:
            await work.put(*(msgspec.structs.replace(row, seen=work.now) for row in ours))
        went = await work.delete(UrlRow, at_most("seen", work.now - URLS_KEPT_S))
        if went:
            await _sign_coordinators(work, self._core)
        return went

    async def _relays(self, work: Work) -> int:
        return await forget_unseen(work, self._core)


async def _bury(work: Work, replica: str) -> int:
    """A replica is no more; its nodes were last seen now, as far as anybody knows."""
    sessions = await work.find(SessionRow, equal("replica", replica))
    for session in sessions:
        await gone(work, session)
    await work.delete(SessionRow, equal("replica", replica))
    await work.delete(ReplicaRow, equal("id", replica))
    return len(sessions)


async def _sign_coordinators(work: Work, core: Core) -> None:
    """See to it that all networks name the coordinators there are."""
    wanted = await coordinators(work, core)
    for row in await work.find(NetworkRow):
        network = await work.known_network(row.key)
        spec = await spec_of(work, row.key)
        if spec.coordinators != wanted:
            version = next_network_version(work, network)
            work.change(msgspec.structs.replace(network, version=version))
            changed = msgspec.structs.replace(spec, version=version, coordinators=wanted)
            await work.publish(sign(changed, core.authority(network)))
            work.event("coordinator", "network.coordinators", row.key, row.name, ", ".join(one.url for one in wanted))
