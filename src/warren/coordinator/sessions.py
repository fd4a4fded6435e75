"""Connected nodes: which are, where, what they report, and what they send each other."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import msgspec

from warren.coordinator.alarms import KeyAlarms
from warren.coordinator.core import Core
from warren.coordinator.enrolment import admitted
from warren.coordinator.notices import SessionEnded, SignalSent, notice_of
from warren.coordinator.problems import Problem
from warren.coordinator.rows import MemberRow, ReplicaRow, ReportRow, SessionRow, above, equal
from warren.coordinator.wakes import Wake
from warren.coordinator.work import Work
from warren.identity.signing import VerifyKey
from warren.proto.control.messages import SIGNAL_BYTES_MAX, Report, Signal

REPLICA_DEAD_S: Final = 20.0
"""Without a heartbeat; they come every 5 s."""
REPORTS_MAX: Final = 65_536
"""That wait to be written; one for each member of the largest network."""

Peer = tuple[bytes, bytes]
"""Network and node."""


@dataclass(frozen=True, slots=True)
class SessionToken:
    """A session that was let in: what ends it."""

    network: bytes
    node: bytes
    id: str


class Sessions:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._alarms = KeyAlarms()
        self.local: dict[Peer, SessionToken] = {}
        """Those of this replica."""
        self.reports: OrderedDict[Peer, ReportRow] = OrderedDict()
        """Not written yet, the newest of each node."""

    async def connected(self, network: bytes, node: bytes, observed: str) -> SessionToken:
        """The node, admitted before, has a session at this replica now, from the address ``observed``. An older one
        ends, wherever it is: a node is in one place. Problem as for ``admit``.
        """
        token = SessionToken(network, node, self._core.random(8).hex())

        async def operation(work: Work) -> SessionRow | None:
            member = await admitted(work, network, node)
            former = await work.get(SessionRow, network, node)
            await work.put(
                SessionRow(
                    network=network,
                    node=node,
                    id=token.id,
                    replica=self._core.replica,
                    since=work.now,
                    observed=observed,
                )
            )
            if former is not None:
                work.tell(notice_of(SessionEnded(network, node, former.id)))
                if self._alarms.moved((network, node), former.observed, observed, work.now):
                    self._core.metrics.key_alarms += 1
                    work.event(
                        "coordinator",
                        "member.two-places",
                        network,
                        member.name,
                        f"{VerifyKey(node)} connects from {former.observed} and {observed} by turns: its key may have "
                        f"been copied; revoke it",
                    )
            return former

        former = await self._core.write(operation)
        self.local[network, node] = token
        self._core.metrics.sessions = len(self.local)
        if former is not None:
            self.end_older(network, node, former.id)
        return token

    async def disconnected(self, session: SessionToken) -> None:
        """The session is over. Nothing happens when the node has another one by now."""
        network, node = session.network, session.node
        if self.local.get((network, node)) == session:
            del self.local[network, node]
            self._core.metrics.sessions = len(self.local)

        async def operation(work: Work) -> None:
            row = await work.get(SessionRow, network, node)
            if row is None or row.id != session.id:
                return
            await work.delete(SessionRow, equal("network", network), equal("node", node))
            await gone(work, row)

        await self._core.write(operation)

    def end_older(self, network: bytes, node: bytes, session_id: str) -> None:
        problem = Problem(
            "conflict", "the node has connected anew", "If that was not you, its key was copied: revoke it."
        )
        self._core.hub.publish(Wake(network=network, node=node, ended=problem, session=session_id))

    def report(self, network: bytes, node: bytes, report: Report) -> None:
        """Keep what the node says of itself. It is written within seconds; a crash may lose it, the next one comes
        by itself.
        """
        if (network, node) not in self.local:
            return
        self._core.metrics.reports += 1
        self.reports[network, node] = ReportRow(
            network=network, node=node, at=self._core.now(), report=msgspec.msgpack.encode(report)
        )
        while len(self.reports) > REPORTS_MAX:
            self.reports.popitem(last=False)

    async def flush_reports(self) -> int:
        """Write what waits; how many there were."""
        rows = [row for peer, row in self.reports.items() if peer in self.local]
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
        if (network, to) in self.local:
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
        if (sent.network, sent.to) in self.local:
            self._core.metrics.signals += 1
            signal = Signal(node=sent.sender, data=sent.data)
            self._core.hub.publish(Wake(network=sent.network, node=sent.to, signal=signal))


async def gone(work: Work, session: SessionRow) -> None:
    """Remember when and where the member was last seen, its session being over."""
    member = await work.get(MemberRow, session.network, session.node)
    if member is not None:
        await work.put(msgspec.structs.replace(member, last_seen=work.now, observed=session.observed))


async def living(work: Work, core: Core) -> frozenset[str]:
    """The replicas whose hearts beat, and this one."""
    rows = await work.find(ReplicaRow, above("heartbeat", work.now - REPLICA_DEAD_S))
    return frozenset({core.replica, *(row.id for row in rows)})
