"""A node's trusted view of one network: the verified documents, by what they are about, and what follows from them.

Documents come from a coordinator, from the cache on disk, from anybody: :meth:`NetworkMap.apply` believes signatures
only. Whatever the carrier does, versions never go back, a Revocation or NetworkSpec once known is never forgotten, and
memory stays bounded. What a carrier *can* do is to withhold documents; that is what leases are for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from warren.errors import MalformedPacket
from warren.identity.signing import VerifyKey
from warren.model.addresses import INDEX_MAX
from warren.model.documents import (
    KINDS,
    Document,
    DocumentKey,
    Key,
    Membership,
    NetworkSpec,
    NodeRecord,
    Revocation,
    Version,
    verify,
)
from warren.model.envelope import Envelope, check_envelope_untrusted, is_signed_by
from warren.model.members import Member, check_within_network

__all__ = ["Applied", "MapDelta", "Member", "NetworkMap", "Refusal", "diff"]

MEMBERS_MAX: Final = INDEX_MAX
"""More than that have no address."""
UNKNOWN_MAX: Final = 1024
UNKNOWN_BYTES_MAX: Final = 4 << 20
"""Documents of kinds that a later version of Warren may bring: enough to pass them on, too little to hurt."""
MARKS_MAX: Final = 2 * MEMBERS_MAX
"""High-water marks of members that are gone: two documents for each address, then the oldest are forgotten."""
REFUSALS_MAX: Final = 32
"""Of one update: enough to see what is wrong."""

_KEPT: Final = frozenset({DocumentKey("network"), DocumentKey("revocation")})


@dataclass(frozen=True, slots=True)
class Refusal:
    """A document that was not taken, and why."""

    kind: str
    reason: str


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


@dataclass(frozen=True, slots=True)
class _Held:
    """A document with its envelope; ``document`` is None for a kind that is not known."""

    version: int
    envelope: Envelope
    document: Document | None


@dataclass(slots=True)
class _Staged:
    """The parts of an update that came so far."""

    whole: bool = False
    put: dict[DocumentKey, _Held] = field(default_factory=dict)
    dropped: set[bytes] = field(default_factory=set)
    refused: list[Refusal] = field(default_factory=list)
    refused_count: int = 0

    def refuse(self, kind: str, reason: str) -> None:
        self.refused_count += 1
        if len(self.refused) < REFUSALS_MAX:
            self.refused.append(Refusal(kind[:32], reason))


class NetworkMap:
    """The documents of one network that were verified, the newest of each. Single owner; not for threads."""

    def __init__(self, network: VerifyKey) -> None:
        self.network = network
        self.revision = 0
        """Where the map stands in the coordinator's count; 0: nowhere, ask for a whole one."""
        self._held: dict[DocumentKey, _Held] = {}
        self._marks: dict[DocumentKey, int] = {}  # of documents that were dropped, oldest first
        self._members: dict[bytes, Member] = {}
        self._by_signature: dict[bytes, DocumentKey] = {}
        self._unknown: dict[DocumentKey, int] = {}  # payload bytes
        self._revoked: frozenset[bytes] = frozenset()
        self._staged: _Staged | None = None

    # What it knows

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
        return tuple(self._held[key].envelope for key in sorted(self._held, key=_order))

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
        staged = self._staged = self._staged or _Staged()
        staged.whole |= whole
        if revision < self.revision and not staged.whole:
            staged.refuse("update", f"revision {revision} came after {self.revision}: nothing in it was dropped")
            drop = ()
        for node in drop:
            self._stage_drop(staged, bytes(node))
        for envelope in put:
            try:
                self._stage(staged, envelope)
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

    def _stage_drop(self, staged: _Staged, node: bytes) -> None:
        if node:
            for key in [key for key in staged.put if key.subject == node]:
                del staged.put[key]
            if len(staged.dropped) < 2 * MEMBERS_MAX:
                staged.dropped.add(node)

    def _stage(self, staged: _Staged, envelope: Envelope) -> None:
        """Raises MalformedPacket when the document is not to be taken."""
        key, held = self._read(envelope)
        known = staged.put.get(key) or self._held.get(key)
        lowest = max(known.version if known is not None else 0, self._marks.get(key, 0))
        if held.version < lowest:
            raise MalformedPacket(f"version {held.version} of a {key.kind} document came after version {lowest}")
        if known is not None and held.version == known.version and held.envelope.payload != known.envelope.payload:
            raise MalformedPacket(f"another {key.kind} document has version {held.version} too; the first one stays")
        if key not in staged.put and len(staged.put) >= 2 * MEMBERS_MAX + UNKNOWN_MAX:
            raise MalformedPacket("the update has more documents than a network can have")
        staged.put[key] = held

    def _read(self, envelope: Envelope) -> tuple[DocumentKey, _Held]:
        key = self._by_signature.get(envelope.signature)
        if key is not None and self._held[key].envelope == envelope:
            return key, self._held[key]  # verified before
        if envelope.kind not in KINDS:
            return _read_unknown(envelope, self.network)
        verified = verify(envelope, self.network)
        try:
            check_within_network(verified.document, self.network)
        except ValueError as error:
            raise MalformedPacket(f"a {envelope.kind} document that is not to be: {error}") from None
        return verified.key, _Held(verified.document.version, envelope, verified.document)

    def _commit(self, staged: _Staged) -> Applied:
        before = {key: self._held[key].version for key in self._gone(staged)}
        for key in before:
            self._forget(key)
        changed = set()
        for key, held in sorted(staged.put.items(), key=lambda item: _order(item[0])):
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

    def _gone(self, staged: _Staged) -> set[DocumentKey]:
        if staged.whole:
            gone = {key for key in self._held if key not in staged.put}
        else:
            gone = {key for node in staged.dropped for key in self._about(node)}
        gone |= {DocumentKey("node", key.subject) for key in gone if key.kind == "membership"} & self._held.keys()
        return gone - _KEPT

    def _about(self, node: bytes) -> Iterator[DocumentKey]:
        for kind in ("membership", "node", *{key.kind for key in self._unknown}):
            key = DocumentKey(kind, node)
            if key in self._held:
                yield key

    def _reason_against(self, key: DocumentKey, held: _Held) -> str | None:
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

    def _keep(self, key: DocumentKey, held: _Held, version_before: int | None) -> bool:
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


class _AnyDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What documents of later kinds must have to be kept: of which network, about what, how new."""

    network: Key
    version: Version
    node: Key | None = None
    subject: Annotated[bytes, Meta(max_length=64)] = b""


_any_decoder: Final = msgspec.msgpack.Decoder(_AnyDocument)


def _read_unknown(envelope: Envelope, network: VerifyKey) -> tuple[DocumentKey, _Held]:
    """A document of a kind that is not known yet, signed by the authority. Raises MalformedPacket."""
    check_envelope_untrusted(envelope)
    try:
        document = _any_decoder.decode(envelope.payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedPacket(f"a document of the unknown kind {envelope.kind!r}: {error}") from None
    if document.network != network.raw or not is_signed_by(envelope, network):
        raise MalformedPacket(f"a document of the unknown kind {envelope.kind!r} that the authority did not sign")
    return DocumentKey(envelope.kind, document.node or document.subject), _Held(document.version, envelope, None)


_RANKS: Final = {"network": 0, "revocation": 1, "membership": 2, "node": 3}


def _order(key: DocumentKey) -> tuple[int, str, bytes]:
    """Members before what they say of themselves."""
    return _RANKS.get(key.kind, 4), key.kind, key.subject


# What an update is made of


@dataclass(frozen=True, slots=True)
class MapDelta:
    """What to send to somebody who has one map so that they have another: the arguments of NetworkMap.apply."""

    put: tuple[Envelope, ...] = ()
    drop: tuple[bytes, ...] = ()
    whole: bool = False


def diff(
    old: Mapping[DocumentKey, int], new: Mapping[DocumentKey, Envelope], versions: Mapping[DocumentKey, int]
) -> MapDelta:
    """What changed from the map with the versions ``old`` to the map ``new`` with ``versions``.

    Its size grows with the change. Only when something vanished that is about no node (of a kind that is not known
    here) it is the whole map, for want of a way to name it. NetworkSpec and Revocation cannot vanish.
    """
    vanished = [key for key in old if key not in new and key not in _KEPT]
    if any(not key.subject for key in vanished):
        return MapDelta(put=tuple(new[key] for key in sorted(new, key=_order)), whole=True)
    gone = {key.subject for key in vanished}
    put = (key for key in new if key.subject in gone or versions[key] > old.get(key, 0))
    return MapDelta(tuple(new[key] for key in sorted(put, key=_order)), tuple(sorted(gone)))
