"""Members as administrators see and change them, and their revocation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from warren.coordinator.conditions import above, equal
from warren.coordinator.core import Core
from warren.coordinator.memberships import documents, is_free_name, plan_of, remove, write_membership
from warren.coordinator.network_rows import next_network_version, shown_network
from warren.coordinator.problems import Problem
from warren.coordinator.rows import DocumentRow, MemberRow, NetworkRow, PlaceRow, ReportRow, RevokedRow, SessionRow
from warren.coordinator.sessions import Sessions, living
from warren.coordinator.state_problems import check_changed_member
from warren.coordinator.work import Work, key_of, shown, when
from warren.identity.signing import VerifyKey
from warren.model.documents import Candidate, NodeRecord, Revocation
from warren.model.envelope import unpack_envelope_untrusted
from warren.model.ip import join_host_port
from warren.model.verified import sign
from warren.proto.control.administration import Actor, Member, MemberChange, MemberStatus, NetworkStatus, Revoked
from warren.proto.control.messages import Report

REVOKED_MAX: Final = 16_384
"""That a Revocation can list at once."""
LISTED_LONGER_S: Final = 3600.0
"""Beyond the end of the last lease: clocks differ."""

_record: Final = msgspec.msgpack.Decoder(NodeRecord)
_report: Final = msgspec.msgpack.Decoder(Report)


class Members:
    def __init__(self, core: Core, sessions: Sessions) -> None:
        self._core = core
        self._sessions = sessions

    async def list(self, actor: Actor, ref: str) -> tuple[Member, ...]:
        async with self._core.read() as work:
            network = await work.network_for(actor, ref)
            view = await self._view(work, network)
        return tuple(Member(**view.member(row)) for row in view.rows)

    async def status(self, actor: Actor, ref: str) -> NetworkStatus:
        async with self._core.read() as work:
            network = await work.network_for(actor, ref)
            view = await self._view(work, network)
            shown_one = await shown_network(work, network)
        return NetworkStatus(
            network=shown_one,
            connected=len(view.sessions),
            members=tuple(MemberStatus(**view.member(row), **view.report(row)) for row in view.rows),
        )

    async def get(self, actor: Actor, ref: str, member: str) -> MemberStatus:
        """By name or key. Problem ``not-found``."""
        async with self._core.read() as work:
            network = await work.network_for(actor, ref)
            row = await _member(work, network, member)
            view = await self._view(work, network, row)
        return MemberStatus(**view.member(row), **view.report(row))

    async def change(self, actor: Actor, ref: str, member: str, change: MemberChange) -> Member:
        """Rename, retag, or give other routes. Problem ``name-taken``, or ``invalid`` for what cannot be."""

        async def operation(work: Work) -> Member:
            await work.authorise(actor)
            network = await work.network_for(actor, ref)
            row = await _member(work, network, member)
            changed = msgspec.structs.replace(
                row,
                name=row.name if change.name is None else change.name,
                tags=row.tags if change.tags is None else tuple(sorted(set(change.tags))),
                routes=row.routes if change.routes is None else tuple(sorted(set(change.routes))),
            )
            if changed != row:
                await self._change(work, network, row, changed)
                work.event(actor.name, "member.change", network.key, changed.name, _summary(row, changed))
                row = await _member(work, network, changed.name)
            return Member(**(await self._view(work, network, row)).member(row))

        return await self._core.write(operation)

    async def revoke(self, actor: Actor, ref: str, member: str) -> Revoked:
        """End a membership for good: sessions at once, on partitioned members when its lease ends. Revoking again
        changes nothing. Problem ``not-found``.
        """

        async def operation(work: Work) -> Revoked:
            await work.authorise(actor)
            network = await work.network_for(actor, ref)
            key = key_of(member)
            before = None if key is None else await work.get(RevokedRow, network.key, key)
            if before is not None:
                return _revoked(before)
            row = await _member(work, network, member)
            revoked = RevokedRow(
                network=network.key, node=row.node, name=row.name, at=work.now, lease_ended=row.lease_last
            )
            await work.put(revoked)
            await remove(work, self._core, row)
            await write_revocation(work, self._core, network)
            work.event(actor.name, "member.revoke", network.key, row.name, str(VerifyKey(row.node)))
            self._core.metrics.revocations += 1
            return _revoked(revoked)

        return await self._core.write(operation)

    async def revocations(self, actor: Actor, ref: str) -> tuple[Revoked, ...]:
        """All that ever were, the newest first."""
        async with self._core.read() as work:
            network = await work.network_for(actor, ref)
            rows = await work.find(RevokedRow, equal("network", network.key), order="at", descending=True)
        return tuple(map(_revoked, rows))

    async def _change(self, work: Work, network: NetworkRow, row: MemberRow, changed: MemberRow) -> None:
        if changed.name != row.name and not await is_free_name(work, network.key, row.node, changed.name):
            raise Problem(
                "name-taken", f"another member has the name {changed.name}, or had it lately", "Choose another."
            )
        await check_changed_member(work, network, row.node, name=changed.name, tags=changed.tags, routes=changed.routes)
        place = await work.get(PlaceRow, network.key, row.slot)
        if place is not None and place.name != changed.name:
            await work.put(msgspec.structs.replace(place, name=changed.name))
        work.change(msgspec.structs.replace(network, version=next_network_version(work, network)))
        await write_membership(work, self._core, changed)

    async def _view(self, work: Work, network: NetworkRow, only: MemberRow | None = None) -> _View:
        where = [equal("network", network.key)]
        if only is not None:
            where.append(equal("node", only.node))
        alive = await living(work, self._core)
        sessions = {row.node: row for row in await work.find(SessionRow, *where) if row.replica in alive}
        reports = {row.node: row for row in await work.find(ReportRow, *where)}
        reports |= {
            node: row
            for (of, node), row in self._sessions.reports.items()
            if of == network.key and (only is None or node == only.node)
        }
        if only is None:
            rows = await work.find(MemberRow, *where, order="name")
            records = await documents(work, network.key, NodeRecord.KIND)
        else:
            rows = [only]
            record = await work.get(DocumentRow, network.key, NodeRecord.KIND, only.node)
            records = {} if record is None or not record.envelope else {only.node: record}
        return _View(work.now, network, rows, sessions, reports, records)


class _View:
    """Rows of one moment, put together as they are shown."""

    def __init__(
        self,
        now: float,
        network: NetworkRow,
        rows: list[MemberRow],
        sessions: Mapping[bytes, SessionRow],
        reports: Mapping[bytes, ReportRow],
        records: Mapping[bytes, DocumentRow],
    ) -> None:
        self.rows = rows
        self.sessions = sessions
        self._now = now
        self._plan = plan_of(network)
        self._reports = reports
        self._records = records

    def member(self, row: MemberRow) -> dict[str, Any]:
        """The fields of :class:`Member`."""
        session = self.sessions.get(row.node)
        report = self._reports.get(row.node)
        stored = self._records.get(row.node)
        record = None if stored is None else _record.decode(unpack_envelope_untrusted(stored.envelope).payload)
        seen = max(row.last_seen if row.observed else 0.0, report.at if report is not None else 0.0)
        return {
            "id": str(VerifyKey(row.node)),
            "name": row.name,
            "prefix6": str(self._plan.prefix(row.slot)),
            "address6": str(self._plan.address6(row.slot)),
            "address4": row.address4,
            "tags": row.tags,
            "routes": row.routes,
            "ephemeral": row.ephemeral,
            "joined": when(row.joined),
            "lease_ends": when(row.lease_ends),
            "connected": session is not None,
            "connected_since": None if session is None else when(session.since),
            "last_seen": when(self._now) if session is not None else when(seen) if seen else None,
            "reachability": "unknown" if record is None else record.reachability,
            "observed": row.observed if session is None else session.observed,
            "candidates": () if record is None else tuple(map(_candidate, record.candidates)),
        }

    def report(self, row: MemberRow) -> dict[str, Any]:
        """What :class:`MemberStatus` adds."""
        stored = self._reports.get(row.node)
        report = Report(uptime_s=0.0) if stored is None else _report.decode(stored.report)
        return {
            "stated": report.stated,
            "interfaces": report.interfaces,
            "tasks": report.tasks,
            "version": report.version,
            "system": report.system,
        }


async def write_revocation(work: Work, core: Core, network: NetworkRow) -> None:
    """Sign the list of those revoked whose leases may still be believed somewhere. Problem ``limit`` when there are
    more than fit: that many have to wait for leases to end.
    """
    rows = await work.find(
        RevokedRow, equal("network", network.key), above("lease_ended", work.now - LISTED_LONGER_S), order="at"
    )
    if len(rows) > REVOKED_MAX:
        raise Problem("limit", f"{REVOKED_MAX} were revoked whose leases have not ended", "Wait for them to end.")
    document = Revocation(
        network=network.key,
        version=await work.next_version(network.key, Revocation),
        nodes=tuple(row.node for row in rows),
    )
    await work.publish(sign(document, core.authority(network)))


async def _member(work: Work, network: NetworkRow, ref: str) -> MemberRow:
    """By name or key. Problem ``not-found``."""
    key = key_of(ref)
    row = None if key is None else await work.get(MemberRow, network.key, key)
    if row is None:
        row = await work.one(MemberRow, equal("network", network.key), equal("name", ref))
    if row is None:
        raise Problem("not-found", f"{network.name} has no member {shown(ref)}", "List the members to see their names.")
    return row


def _summary(before: MemberRow, after: MemberRow) -> str:
    """For the audit log."""
    told = [f"was {before.name}"] if before.name != after.name else []
    for what, old, new in (("tags", before.tags, after.tags), ("routes", before.routes, after.routes)):
        if old != new:
            told.append(f"{what} {', '.join(new) or 'none'}, before {', '.join(old) or 'none'}")
    return "; ".join(told)


def _revoked(row: RevokedRow) -> Revoked:
    return Revoked(id=str(VerifyKey(row.node)), name=row.name, at=when(row.at), lease_ended=when(row.lease_ended))


def _candidate(candidate: Candidate) -> str:
    return join_host_port(candidate.address, candidate.port)
