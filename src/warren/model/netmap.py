"""A node's trusted view of one network: the verified documents, by what they are about, and what follows from them.

Documents come from a coordinator, from the cache on disk, from anybody: :meth:`NetworkMap.apply` believes signatures
only. Whatever the carrier does, versions never go back, a Revocation or NetworkSpec once known is never forgotten, and
memory stays bounded. What a carrier *can* do is to withhold documents; that is what leases are for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from warren.errors import MalformedPacket
from warren.identity.signing import VerifyKey
from warren.model.documents import DocumentKey, Membership, NetworkSpec, NodeRecord, Revocation
from warren.model.envelope import Envelope
from warren.model.intake import (
    KEPT,
    MEMBERS_MAX,
    UNKNOWN_BYTES_MAX,
    UNKNOWN_MAX,
    Held,
    Refusal,
    Staged,
    about,
    order,
    read,
)
from warren.model.members import Member

__all__ = ["Applied", "Member", "NetworkMap", "Refusal"]

MARKS_MAX: Final = 2 * MEMBERS_MAX
"""High-water marks of members that are gone: two documents for each address, then the oldest are forgotten."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What an update did."""

    complete: bool
    """False: more parts follow, and nothing has changed yet."""
    changed: frozenset[DocumentKey] = frozenset()
    """Documents that are new or newer."""
    dropped: frozenset[DocumentKey] = frozenset()
    refused: tuple[Refusal, ...] = ()
    """The first REFUSALS_MAX since the last complete update."""
    refused_count: int = 0


class NetworkMap:
    """The documents of one network that were verified, the newest of each. Single owner; not for threads."""

    def __init__(self, network: VerifyKey) -> None:
        self.network = network
        self.revision = 0
        """Where the map stands in the coordinator's count; 0: nowhere, ask for a whole one."""
        self._held: dict[DocumentKey, Held] = {}
        self._marks: dict[DocumentKey, int] = {}  # of documents that were dropped, oldest first
        self._members: dict[bytes, Member] = {}
        self._by_signature: dict[bytes, DocumentKey] = {}
        self._unknown: dict[DocumentKey, int] = {}  # payload bytes
        self._revoked: frozenset[bytes] = frozenset()
        self._staged: Staged | None = None

    # What it knows

    @property
    def staging(self) -> bool:
        """Parts of an update are here whose end has not come yet."""
        return self._staged is not None

    @property
    def spec(self) -> NetworkSpec | None:
        held = self._held.get(DocumentKey("network"))
        return held.document if held is not None and isinstance(held.document, NetworkSpec) else None

    @property
    def revocation(self) -> Revocation | None:
        held = self._held.get(DocumentKey("revocation"))
        return held.document if held is not None and isinstance(held.document, Revocation) else None

    def envelopes(self) -> tuple[Envelope, ...]:
        """All documents as they were signed, in one fixed order: applied as a whole, they make the same map."""
        return tuple(self._held[key].envelope for key in sorted(self._held, key=order))

    def versions(self) -> Mapping[DocumentKey, int]:
        return {key: held.version for key, held in self._held.items()}

    def members(self) -> Mapping[bytes, Member]:
        """By node key, also those whose lease is over and those revoked. A view; it follows the map."""
        return MappingProxyType(self._members)

    def member(self, node: bytes) -> Member | None:
        return self._members.get(node)

    def is_revoked(self, node: bytes) -> bool:
        return node in self._revoked

    def live_members(self, now_s: float) -> tuple[Member, ...]:
        """Whose lease holds at ``now_s`` (wall clock, s since 1970) and who is not revoked."""
        return tuple(
            member
            for node, member in self._members.items()
            if node not in self._revoked and member.membership.holds_at(now_s)
        )

    def next_lease_change(self, now_s: float) -> float | None:
        """When :meth:`live_members` will next give another answer if no document comes; None: never."""
        moments = (
            moment
            for node, member in self._members.items()
            if node not in self._revoked and member.membership.not_before < member.membership.not_after
            for moment in (member.membership.not_before, member.membership.not_after)
            if moment > now_s
        )
        return min(moments, default=None)

    # What comes in

    def apply(
        self, *, revision: int, whole: bool, more: bool, put: Iterable[Envelope], drop: Iterable[bytes]
    ) -> Applied:
        """Take an update's documents; never raises for their content.

        Of each part first ``drop`` counts (all documents about these nodes), then ``put``. While ``more`` parts follow
        nothing changes; ``whole`` holds for the whole sequence once one part said so. What is dropped, or was not named
        by a whole map, is forgotten but for its version: nothing older is taken afterwards. NetworkSpec and Revocation
        stay in any case.
        """
        staged = self._staged = self._staged or Staged()
        staged.whole |= whole
        if revision < self.revision and not staged.whole:
            staged.refuse("update", f"revision {revision} came after {self.revision}: nothing in it was dropped")
            drop = ()
        for node in drop:
            staged.drop(node)
        for envelope in put:
            try:
                key, held = self._read(envelope)
                staged.stage(key, held, self._held.get(key), self._marks.get(key, 0))
            except MalformedPacket as error:
                staged.refuse(envelope.kind, str(error))
        if more:
            return Applied(complete=False)
        self._staged = None
        applied = self._commit(staged)
        self.revision = revision if staged.whole else max(revision, self.revision)
        return applied

    def abandon(self) -> None:
        """Forget the parts of an update whose end will not come: the connection was lost. Call it at each new one."""
        self._staged = None

    def _read(self, envelope: Envelope) -> tuple[DocumentKey, Held]:
        key = self._by_signature.get(envelope.signature)
        if key is not None and self._held[key].envelope == envelope:
            return key, self._held[key]  # verified before
        return read(envelope, self.network)

    def _commit(self, staged: Staged) -> Applied:
        before = {key: self._held[key].version for key in self._gone(staged)}
        for key in before:
            self._forget(key)
        changed = set()
        for key, held in sorted(staged.put.items(), key=lambda item: order(item[0])):
            reason = self._reason_against(key, held)
            if reason is not None:
                staged.refuse(key.kind, reason)
            elif self._keep(key, held, before.get(key)):
                changed.add(key)
        dropped = frozenset(key for key in before if key not in self._held)
        for node in {key.subject for key in (*changed, *before) if key.kind in {"membership", "node"}}:
            self._renew_member(node)
        if DocumentKey("revocation") in changed and self.revocation is not None:
            self._revoked = frozenset(self.revocation.nodes)
        return Applied(True, frozenset(changed), dropped, tuple(staged.refused), staged.refused_count)

    def _gone(self, staged: Staged) -> set[DocumentKey]:
        if staged.whole:
            gone = {key for key in self._held if key not in staged.named}
        else:
            kinds = {key.kind for key in self._unknown}
            gone = {key for node in staged.dropped for key in about(node, kinds) if key in self._held}
        gone |= {DocumentKey("node", key.subject) for key in gone if key.kind == "membership"} & self._held.keys()
        return gone - KEPT

    def _reason_against(self, key: DocumentKey, held: Held) -> str | None:
        """Why there is no room or no use for a verified document; None: it may stay."""
        if key.kind == "node" and DocumentKey("membership", key.subject) not in self._held:
            return f"{VerifyKey(key.subject).short} is not a member"
        if key.kind == "membership" and key.subject not in self._members and len(self._members) >= MEMBERS_MAX:
            return f"the network has {MEMBERS_MAX} members already"
        if held.document is None:
            size = sum(self._unknown.values()) - self._unknown.get(key, 0) + len(held.envelope.payload)
            if len(self._unknown.keys() | {key}) > UNKNOWN_MAX or size > UNKNOWN_BYTES_MAX:
                return "there are too many documents of unknown kinds"
        return None

    def _keep(self, key: DocumentKey, held: Held, version_before: int | None) -> bool:
        """Take a document; whether that changed anything."""
        old = self._held.get(key)
        if old is not None:
            version_before = old.version
            self._by_signature.pop(old.envelope.signature, None)
        self._held[key] = held
        self._by_signature[held.envelope.signature] = key
        self._marks.pop(key, None)
        if held.document is None:
            self._unknown[key] = len(held.envelope.payload)
        elif isinstance(held.document, Membership) and key.subject not in self._members:
            self._members[key.subject] = Member(held.document)
        return version_before != held.version

    def _forget(self, key: DocumentKey) -> None:
        held = self._held.pop(key)
        self._by_signature.pop(held.envelope.signature, None)
        self._unknown.pop(key, None)
        if key.kind == "membership":
            self._members.pop(key.subject, None)
        self._marks[key] = held.version
        if len(self._marks) > MARKS_MAX:
            del self._marks[next(iter(self._marks))]

    def _renew_member(self, node: bytes) -> None:
        membership = self._held.get(DocumentKey("membership", node))
        record = self._held.get(DocumentKey("node", node))
        if membership is not None and isinstance(membership.document, Membership):
            known = record.document if record is not None and isinstance(record.document, NodeRecord) else None
            self._members[node] = Member(membership.document, known)
