"""Connected nodes: which are, where, what they report, and what they send each other."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Final

import msgspec

from warren.coordinator.alarms import KeyAlarms
from warren.coordinator.conditions import above, equal
from warren.coordinator.core import Core
from warren.coordinator.enrolment import admitted
from warren.coordinator.notices import SessionEnded, SignalSent, notice_of
from warren.coordinator.problems import Problem
from warren.coordinator.rows import MemberRow, ReplicaRow, ReportRow, SessionRow
from warren.coordinator.wakes import Wake
from warren.coordinator.work import Work
from warren.identity.signing import VerifyKey
from warren.proto.control.messages import SIGNAL_BYTES_MAX, Report, Signal

REPLICA_DEAD_S: Final = 20.0
"""Without a heartbeat; they come every 5 s."""
REPORTS_MAX: Final = 65_536
"""That wait to be written; one for each member of the largest network."""

_COPIED: Final = "its key may have been copied; revoke it"

Peer = tuple[bytes, bytes]
"""Network and node."""


@dataclass(frozen=True, slots=True)
class SessionToken:
    """A session that was let in: what ends it."""

    network: bytes
    node: bytes
    id: str


class Sessions:
    """Single owner: one event loop."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._alarms = KeyAlarms()
        self._local: dict[Peer, SessionRow] = {}
        self._networks: Counter[bytes] = Counter()
        self._unwritten = False
        self.ending = False
        """This replica stops: what ends from now on is written off together, at the end."""
        self.reports: OrderedDict[Peer, ReportRow] = OrderedDict()
        """Not written yet, the newest of each node."""

    def is_here(self, network: bytes, node: bytes) -> bool:
        """Whether the node has its session at this replica."""
        return (network, node) in self._local

    def are_of(self, network: bytes) -> bool:
        """Whether any node of the network has."""
        return self._networks[network] > 0

    async def connected(self, network: bytes, node: bytes, observed: str) -> SessionToken:
        """The node, admitted before, has a session at this replica now, from the address ``observed``. An older one
        ends, wherever it is: a node is in one place. Problem as for ``admit``.
        """
        row = self._row(network, node, observed)

        async def operation(work: Work) -> SessionRow | None:
            member = await admitted(work, network, node)
            former = await work.get(SessionRow, network, node)
            await work.put(row)
            if former is not None:
                work.tell(notice_of(SessionEnded(network, node, former.id)))
                if self._alarms.moved((network, node), former.observed, observed, work.now):
                    self._core.metrics.key_alarms += 1
                    what = f"{VerifyKey(node)} connects from {former.observed} and {observed} by turns"
                    work.event("coordinator", "member.two-places", network, member.name, f"{what}: {_COPIED}")
            return former

        before = self._enter(row)
        try:
            former = await self._core.write(operation)
        except BaseException:
            self._depart(row, before)
            raise
        if former is not None:
            self.end_older(network, node, former.id)
        return SessionToken(network, node, row.id)

    def remember(self, network: bytes, node: bytes, observed: str) -> SessionToken:
        """As :meth:`connected`, but written later: for when the database is away."""
        row = self._row(network, node, observed)
        before = self._enter(row)
        self._unwritten = True
        if before is not None:
            self.end_older(network, node, before.id)
        return SessionToken(network, node, row.id)

    async def disconnected(self, session: SessionToken) -> None:
        """The session is over. Nothing happens when the node has another one by now."""
        network, node = session.network, session.node
        row = self._local.get((network, node))
        if row is not None and row.id == session.id:
            self._depart(row, None)
        if self.ending:
            return

        async def operation(work: Work) -> None:
            written = await work.get(SessionRow, network, node)
            if written is not None and written.id == session.id:
                await work.delete(SessionRow, equal("network", network), equal("node", node))
                await gone(work, written)

        try:
            await self._core.write(operation)
        except Problem:
            self._unwritten = True
            raise

    async def reconcile(self, *, forgotten: bool) -> None:
        """Write the sessions of this replica as they are, when that failed before; ``forgotten``: the others took this
        replica for dead, and its sessions with it.
        """
        if not (self._unwritten or forgotten):
            return

        async def operation(work: Work) -> list[SessionRow]:
            written = {row.id: row for row in await work.find(SessionRow, equal("replica", self._core.replica))}
            for row in [row for row in written.values() if self._local.get((row.network, row.node)) != row]:
                await work.delete(SessionRow, equal("network", row.network), equal("node", row.node))
                await gone(work, row)
            strangers = []
            for row in [row for row in self._local.values() if row.id not in written]:
                other = await work.get(SessionRow, row.network, row.node)
                if await work.get(MemberRow, row.network, row.node) is None or (other and other.since > row.since):
                    strangers.append(row)
                else:
                    await work.put(row)
            return strangers

        self._unwritten = False
        try:
            for row in await self._core.write(operation):
                self.end_older(row.network, row.node, row.id)
        except Problem:
            self._unwritten = True
            raise

    def end_older(self, network: bytes, node: bytes, session_id: str) -> None:
        problem = Problem(
            "conflict", "the node has connected anew", "If that was not you, its key was copied: revoke it."
        )
        self._core.hub.publish(Wake(network=network, node=node, ended=problem, session=session_id))

    def report(self, network: bytes, node: bytes, report: Report) -> None:
        """Keep what the node says of itself. It is written within seconds; a crash may lose it, the next one comes
        by itself.
        """
        if not self.is_here(network, node):
            return
        self._core.metrics.reports += 1
        kept = msgspec.structs.replace(report, peers=())  # of which nobody asks, and which grow with the network
        self.reports[network, node] = ReportRow(
            network=network, node=node, at=self._core.now(), report=msgspec.msgpack.encode(kept)
        )
        while len(self.reports) > REPORTS_MAX:
            self.reports.popitem(last=False)

    async def flush_reports(self) -> int:
        """Write what waits; how many there were."""
        rows = [row for peer, row in self.reports.items() if peer in self._local]
        self.reports.clear()

        async def operation(work: Work) -> None:
            await work.put(*rows)

        try:
            if rows:
                await self._core.write(operation)
        except Problem:
            for row in rows:
                self.reports.setdefault((row.network, row.node), row)
            raise
        return len(rows)

    async def send_signal(self, network: bytes, sender: bytes, to: bytes, data: bytes) -> bool:
        """Whether ``to`` is connected, here or at another replica, and the bytes are on their way. Problem ``limit``
        for more than SIGNAL_BYTES_MAX.
        """
        if len(data) > SIGNAL_BYTES_MAX:
            raise Problem("limit", f"a signal of {len(data)} bytes; {SIGNAL_BYTES_MAX} are the most")
        if self.is_here(network, to):
            self.hand_over(SignalSent(network, sender, to, data))
            return True
        if self._core.store.shared:
            async with self._core.read() as work:
                row = await work.get(SessionRow, network, to)
                alive = row is not None and row.replica in await living(work, self._core)
            if alive:
                await self._core.store.notify(notice_of(SignalSent(network, sender, to, data)))
                self._core.metrics.signals += 1
                return True
        self._core.metrics.signals_undelivered += 1
        return False

    def hand_over(self, sent: SignalSent) -> None:
        """Give a signal to the session here, if there is one."""
        if self.is_here(sent.network, sent.to):
            self._core.metrics.signals += 1
            signal = Signal(node=sent.sender, data=sent.data)
            self._core.hub.publish(Wake(network=sent.network, node=sent.to, signal=signal))

    def _row(self, network: bytes, node: bytes, observed: str) -> SessionRow:
        return SessionRow(
            network=network,
            node=node,
            id=self._core.random(8).hex(),
            replica=self._core.replica,
            since=self._core.now(),
            observed=observed,
        )

    def _enter(self, row: SessionRow) -> SessionRow | None:
        """The session that was in its place."""
        before = self._local.get((row.network, row.node))
        self._local[row.network, row.node] = row
        if before is None:
            self._networks[row.network] += 1
        self._core.metrics.sessions = len(self._local)
        return before

    def _depart(self, row: SessionRow, before: SessionRow | None) -> None:
        """Put ``before`` in its place, unless a newer one is there."""
        peer = (row.network, row.node)
        if self._local.get(peer) != row:
            return
        if before is not None:
            self._local[peer] = before
            return
        del self._local[peer]
        self._networks[row.network] -= 1
        if not self._networks[row.network]:
            del self._networks[row.network]
        self._core.metrics.sessions = len(self._local)


async def gone(work: Work, session: SessionRow) -> None:
    """Remember when and where the member was last seen, its session being over."""
    member = await work.get(MemberRow, session.network, session.node)
    if member is not None:
        await work.put(msgspec.structs.replace(member, last_seen=work.now, observed=session.observed))


async def living(work: Work, core: Core) -> frozenset[str]:
    """The replicas whose hearts beat, and this one."""
    rows = await work.find(ReplicaRow, above("heartbeat", work.now - REPLICA_DEAD_S))
    return frozenset({core.replica, *(row.id for row in rows)})
