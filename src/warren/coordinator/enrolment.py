"""How a node becomes a member, is let in when it comes back, and says what it is.

The proof of the node's key was verified on the very connection that asks; who it is comes from there and from nowhere
else. Whether it may is decided here, inside the transaction that acts on it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from warren.coordinator.conditions import equal
from warren.coordinator.core import Core
from warren.coordinator.memberships import plan_of, remove, take_place, write_membership
from warren.coordinator.minting import hash_of
from warren.coordinator.problems import Problem
from warren.coordinator.rows import DocumentRow, InviteRow, KeyRow, MemberRow, RevokedRow
from warren.coordinator.work import Work, when
from warren.errors import MalformedPacket
from warren.identity.signing import KEY_BYTES, VerifyKey
from warren.model.documents import NodeRecord
from warren.model.envelope import Envelope, pack_envelope, unpack_envelope_untrusted
from warren.model.verified import Verified, verify

RECORD_BYTES_MAX: Final = 8 << 10
"""A NodeRecord with 64 candidates takes 4 KiB; every member holds everybody's."""
KEY_TAKEN_RETRY_S: Final = 1.0
"""A node makes a fresh key at once."""

_node_record: Final = msgspec.msgpack.Decoder(NodeRecord)
_ASK = "Ask for a new ticket."


class Enrolment:
    def __init__(self, core: Core) -> None:
        self._core = core

    async def enrol(self, network: bytes, node: bytes, secret: bytes, name: str) -> None:
        """Make ``node`` a member by the invite of ``secret``. The same node with the same secret succeeds again and
        uses up nothing, since the first answer may have been lost. See :data:`Refused.kind` for the problems.
        """
        digest = hash_of(secret)
        try:
            await self._core.write(lambda work: self._enrol(work, network, node, digest, name))
        except Problem:
            self._core.metrics.enrolments_refused += 1
            raise

    async def admit(self, network: bytes, node: bytes) -> None:
        """Let a member in again; renews its lease when that is due. Problem ``unknown-network``, ``not-a-member``,
        ``revoked``.
        """
        try:
            async with self._core.read() as work:
                member = await admitted(work, network, node)
            if member.renew_at <= self._core.now():
                await self._core.write(lambda work: renew(work, self._core, network, node))
        except Problem as problem:
            if problem.kind != "unavailable":
                self._core.metrics.admissions_refused += 1
            raise
        self._core.metrics.admissions += 1

    async def publish(self, network: bytes, node: bytes, record: Envelope) -> int:
        """Put the node's own record on the map; its version. Problem ``invalid`` for one that is not the node's or
        not signed by it, ``version-conflict`` for one that is older than what is there, ``key-taken`` for one with the
        WireGuard key of another member, whose packets it would draw to itself.
        """
        verified = _record(network, node, record)
        version = verified.document.version

        async def operation(work: Work) -> int:
            await admitted(work, network, node)
            known = await work.get(DocumentRow, network, NodeRecord.KIND, node)
            if known is not None and known.envelope == pack_envelope(record):
                return version
            if known is not None and version <= known.version:
                raise Problem(
                    "version-conflict",
                    f"the record has version {version}, and {known.version} was published before",
                    f"Publish it with a version above {known.version}.",
                )
            if _keys_of(verified.document) != _keys_of(_stored(known)):
                await _take_keys(work, verified.document)
            await work.publish(verified)
            return version

        self._core.metrics.publishes += 1
        return await self._core.write(operation)

    async def leave(self, network: bytes, node: bytes) -> None:
        """The node gives its membership up. It may join again by a new ticket."""

        async def operation(work: Work) -> None:
            member = await admitted(work, network, node)
            await remove(work, self._core, member)
            work.event(f"node:{member.name}", "member.leave", network, member.name, str(VerifyKey(node)))

        await self._core.write(operation)

    async def _enrol(self, work: Work, network: bytes, node: bytes, digest: bytes, name: str) -> None:
        invite = await _usable_invite(work, network, node, digest)
        if invite is None:
            return
        row = await work.known_network(network)
        place = await take_place(work, self._core, row, node, name)
        await work.put(msgspec.structs.replace(invite, used=invite.used + 1))
        address4 = None
        if row.prefix4 is not None:
            address4 = str(plan_of(row).address4(place.slot))
        member = MemberRow(
            network=network,
            node=node,
            name=place.name,
            slot=place.slot,
            address4=address4,
            tags=invite.tags,
            routes=(),
            ephemeral=invite.ephemeral,
            joined=work.now,
            lease_ends=0.0,
            lease_last=0.0,
            renew_at=0.0,
            version=0,
            invite=invite.id,
            last_seen=work.now,
            observed="",
        )
        await write_membership(work, self._core, member)
        self._core.metrics.enrolments += 1
        work.event(f"node:{member.name}", "member.join", network, member.name, f"{VerifyKey(node)} by {invite.id}")


async def admitted(work: Work, network: bytes, node: bytes) -> MemberRow:
    """The member that ``node`` is now. Problem ``unknown-network``, ``revoked`` or ``not-a-member``."""
    await work.known_network(network)
    await check_not_revoked(work, network, node)
    member = await work.get(MemberRow, network, node)
    if member is None:
        raise Problem("not-a-member", "the node is no member of this network: it never joined, or was forgotten", _ASK)
    return member


async def check_not_revoked(work: Work, network: bytes, node: bytes) -> None:
    """Problem ``revoked``: this key is never let in again, nor renewed, nor enrolled."""
    revoked = await work.get(RevokedRow, network, node)
    if revoked is not None:
        since = f"{when(revoked.at):%Y-%m-%d %H:%M} UTC"
        raise Problem("revoked", f"the membership was revoked at {since}", "Join with a new key and a new ticket.")


async def renew(work: Work, core: Core, network: bytes, node: bytes) -> bool:
    """Renew the lease, if it is due still; whether it was. Problem ``revoked``, ``not-a-member``."""
    member = await admitted(work, network, node)
    if member.renew_at > work.now:
        return False
    await write_membership(work, core, member)
    core.metrics.renewals += 1
    work.event("coordinator", "lease.renew", network, member.name)
    return True


async def _usable_invite(work: Work, network: bytes, node: bytes, digest: bytes) -> InviteRow | None:
    """The invite by which the node joins now; None when it is a member already, by this one or by another that is
    still good. Raises all the problems of :meth:`Enrolment.enrol` but for place and name.
    """
    await work.known_network(network)
    await check_not_revoked(work, network, node)
    member = await work.get(MemberRow, network, node)
    invite = await work.one(InviteRow, equal("hash", digest))
    if invite is None or invite.network != network:
        raise Problem("ticket-unknown", "nobody made such a ticket, or it expired long ago", _ASK)
    if member is not None and member.invite == invite.id:
        return None
    if invite.revoked:
        raise Problem("ticket-unknown", "the ticket was withdrawn by an administrator", _ASK)
    if invite.expires <= work.now:
        raise Problem("ticket-expired", f"the ticket expired at {when(invite.expires):%Y-%m-%d %H:%M} UTC", _ASK)
    if invite.used >= invite.uses:
        raise Problem(
            "ticket-used", f"the ticket was good for {invite.uses} node{'s'[: invite.uses > 1]}, and is used up", _ASK
        )
    return invite if member is None else None


def _keys_of(record: NodeRecord | None) -> frozenset[bytes]:
    """The WireGuard keys that a record names. The key of all zeros is nobody's, and never a peer's."""
    if record is None:
        return frozenset()
    return frozenset({record.wireguard_key, record.next_wireguard_key or b""}) - {b"", bytes(KEY_BYTES)}


def _stored(row: DocumentRow | None) -> NodeRecord | None:
    """The record on the map; None when there is none, or no more."""
    if row is None or not row.envelope:
        return None
    return _node_record.decode(unpack_envelope_untrusted(row.envelope).payload)


async def _take_keys(work: Work, record: NodeRecord) -> None:
    """The keys of ``record`` are its node's from now on, and those of before are free. Problem ``key-taken``."""
    network, node = equal("network", record.network), equal("node", record.node)
    held = {row.key for row in await work.find(KeyRow, network, node)}
    wanted = _keys_of(record)
    for key in wanted - held:
        if await work.get(KeyRow, record.network, key) is not None:
            raise Problem(
                "key-taken",
                "another member uses this WireGuard key, or has announced it",
                "Use a fresh key; if this machine was copied from another, let it join with a state of its own.",
                retry_after_s=KEY_TAKEN_RETRY_S,
            )
    for key in held - wanted:
        await work.delete(KeyRow, network, equal("key", key))
    await work.put(*(KeyRow(network=record.network, key=key, node=record.node) for key in sorted(wanted - held)))


def _record(network: bytes, node: bytes, envelope: Envelope) -> Verified[NodeRecord]:
    """Raises Problem ``invalid``."""
    try:
        if len(envelope.payload) > RECORD_BYTES_MAX:
            raise MalformedPacket(f"a record of {len(envelope.payload)} bytes; {RECORD_BYTES_MAX} are the most")
        verified = verify(envelope, VerifyKey(network))
    except MalformedPacket as error:
        raise Problem("invalid", str(error), "Update Warren on the node.") from None
    document = verified.document
    if not isinstance(document, NodeRecord) or document.node != node:
        raise Problem("invalid", "a node publishes its own record only", "Update Warren on the node.")
    return Verified(document, envelope)
