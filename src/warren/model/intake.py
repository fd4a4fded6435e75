"""What comes in to a map of a network: envelopes read and verified, and the parts of an update until its last is in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from warren.errors import MalformedPacket
from warren.identity.signing import VerifyKey
from warren.model.addresses import INDEX_MAX
from warren.model.documents import KINDS, Document, DocumentKey, Membership, NodeRecord
from warren.model.envelope import KIND_CHARACTERS_MAX, Envelope, check_envelope_untrusted, is_signed_by
from warren.model.members import check_within_network
from warren.model.parts import Key, Version
from warren.model.verified import verify

MEMBERS_MAX: Final = INDEX_MAX
"""More than that have no address."""
UNKNOWN_MAX: Final = 1024
UNKNOWN_BYTES_MAX: Final = 4 << 20
"""Documents of kinds that a later version of Warren may bring: enough to pass them on, too little to hurt."""
DOCUMENTS_MAX: Final = 2 * MEMBERS_MAX + UNKNOWN_MAX
STAGED_BYTES_MAX: Final = 256 << 20
"""Of an update whose end has not come: three times the largest network."""
REFUSALS_MAX: Final = 32
"""Of one update: enough to see what is wrong."""

KEPT: Final = frozenset({DocumentKey("network"), DocumentKey("revocation")})
"""What a map never forgets once it knows it."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A document that was not taken, and why."""

    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Held:
    """A document with its envelope; ``document`` is None for a kind that is not known."""

    version: int
    envelope: Envelope
    document: Document | None


class Staged:
    """The parts of an update that came so far, verified."""

    def __init__(self) -> None:
        self.whole = False
        self.put: dict[DocumentKey, Held] = {}
        self.named: set[DocumentKey] = set()
        """What was put, and what was refused only because something newer is known."""
        self.dropped: set[bytes] = set()
        self.refused: list[Refusal] = []
        self.refused_count = 0
        self._payload_bytes = 0
        self._other_kinds: set[str] = set()

    def refuse(self, kind: str, reason: str) -> None:
        self.refused_count += 1
        if len(self.refused) < REFUSALS_MAX:
            self.refused.append(Refusal(kind[:KIND_CHARACTERS_MAX], reason))

    def drop(self, node: bytes) -> None:
        """What was put about this node so far does not count, nor what is known."""
        if not node or len(self.dropped) >= DOCUMENTS_MAX:
            return
        self.dropped.add(node)
        for key in about(node, self._other_kinds):
            self.put.pop(key, None)
            self.named.discard(key)

    def stage(self, key: DocumentKey, new: Held, known: Held | None, lowest: int) -> None:
        """Take a verified document; ``lowest`` is the least version that may come. Raises MalformedPacket."""
        known = self.put.get(key) or known
        lowest = max(lowest, 0 if known is None else known.version)
        size = self._payload_bytes + len(new.envelope.payload)
        if size > STAGED_BYTES_MAX or (key not in self.named and len(self.named) >= DOCUMENTS_MAX):
            raise MalformedPacket("the update has more documents than a network can have")
        self.named.add(key)
        if new.document is None:
            self._other_kinds.add(key.kind)
        if new.version < lowest:
            raise MalformedPacket(f"version {new.version} of a {key.kind} document came after version {lowest}")
        if known is not None and new.version == known.version and new.envelope.payload != known.envelope.payload:
            raise MalformedPacket(f"another {key.kind} document has version {new.version} too; the first one stays")
        self.put[key] = new
        self._payload_bytes = size


def read(envelope: Envelope, network: VerifyKey) -> tuple[DocumentKey, Held]:
    """A document that may be part of a map of ``network``, verified. Raises MalformedPacket."""
    if envelope.kind not in KINDS:
        return _read_unknown(envelope, network)
    verified = verify(envelope, network)
    try:
        check_within_network(verified.document, network)
    except ValueError as error:
        raise MalformedPacket(f"a {envelope.kind} document that is not to be: {error}") from None
    return verified.key, Held(verified.document.version, envelope, verified.document)


class _AnyDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What documents of later kinds must have to be kept: of which network, about what, how new."""

    network: Key
    version: Version
    node: Key | None = None
    subject: Annotated[bytes, Meta(max_length=64)] = b""


_any_decoder: Final = msgspec.msgpack.Decoder(_AnyDocument)


def _read_unknown(envelope: Envelope, network: VerifyKey) -> tuple[DocumentKey, Held]:
    """A document of a kind that is not known yet, signed by the authority. Raises MalformedPacket."""
    check_envelope_untrusted(envelope)
    kind = f"a document of the unknown kind {envelope.kind!r}"
    if not is_signed_by(envelope, network):
        raise MalformedPacket(f"{kind} that the authority did not sign")
    try:
        document = _any_decoder.decode(envelope.payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedPacket(f"{kind}: {error}") from None
    if document.network != network.raw:
        raise MalformedPacket(f"{kind} of another network")
    return DocumentKey(envelope.kind, document.node or document.subject), Held(document.version, envelope, None)


_RANKS: Final = {"network": 0, "revocation": 1, "membership": 2, "node": 3}


def order(key: DocumentKey) -> tuple[int, str, bytes]:
    """Members before what they say of themselves."""
    return _RANKS.get(key.kind, 4), key.kind, key.subject


def about(node: bytes, other_kinds: Iterable[str]) -> Iterator[DocumentKey]:
    """All documents there may be about a node."""
    for kind in (Membership.KIND, NodeRecord.KIND, *other_kinds):
        yield DocumentKey(kind, node)
