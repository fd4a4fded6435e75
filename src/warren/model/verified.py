"""How a document becomes trusted: signed by whom it must be, and verified by whoever it reaches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec

from warren.errors import MalformedPacket
from warren.identity.signing import SigningKey, VerifyKey
from warren.model.documents import KINDS, Document, DocumentKey, NetworkSpec, NodeRecord, Revocation
from warren.model.envelope import Envelope, check_envelope_untrusted, is_signed_by, seal

D = TypeVar("D", bound=Document)
D_co = TypeVar("D_co", bound=Document, covariant=True)

SMALL_BYTES_MAX: Final = 16 << 10
"""The payload of a document of which there is one for each node; the largest that can be made today has 8 KB."""
_LARGE: Final = frozenset({NetworkSpec.KIND, Revocation.KIND})

_encoder: Final = msgspec.msgpack.Encoder()
_decoders: Final = {kind: msgspec.msgpack.Decoder(struct) for kind, struct in KINDS.items()}


@dataclass(frozen=True, slots=True)
class Verified(Generic[D_co]):
    """A document whose signature was checked, with the envelope it came in. Only this module makes one."""

    document: D_co
    envelope: Envelope

    @property
    def key(self) -> DocumentKey:
        return DocumentKey(self.document.KIND, self.document.subject)


def sign(document: D, key: SigningKey) -> Verified[D]:
    """Sign ``document`` with its signer's key. Raises ValueError when that is somebody else's key."""
    if signer_of(document) != key.verify_key:
        raise ValueError(f"a {document.KIND} document is not signed with the key {key.verify_key.short}")
    return Verified(document, seal(document.KIND, _encoder.encode(document), key))


def verify(envelope: Envelope, network: VerifyKey) -> Verified[Document]:
    """The one way from bytes to trust: ``envelope`` as a document of ``network``, signed by whom it must be.

    Raises MalformedPacket, saying what is wrong; the envelope is then worth nothing. About 150 µs. What is inside is
    read only once the signature is right, so that strangers cannot make anybody parse a policy of a megabyte.
    """
    check_envelope_untrusted(envelope)
    decoder = _decoders.get(envelope.kind)
    if decoder is None:
        raise MalformedPacket(f"a document of the unknown kind {envelope.kind!r}")
    if envelope.kind not in _LARGE and len(envelope.payload) > SMALL_BYTES_MAX:
        raise MalformedPacket(f"a {envelope.kind} document of {len(envelope.payload)} bytes")
    signer = VerifyKey(envelope.signer) if envelope.kind == NodeRecord.KIND else network
    if not is_signed_by(envelope, signer):
        raise MalformedPacket(f"a {envelope.kind} document that {signer.short} did not sign")
    try:
        document = decoder.decode(envelope.payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedPacket(f"not a {envelope.kind} document: {error}") from None
    if document.network != network.raw:
        raise MalformedPacket(f"a {envelope.kind} document of another network")
    if signer_of(document) != signer:
        raise MalformedPacket(f"a {envelope.kind} document about another node than the one that signed it")
    return Verified(document, envelope)


def signer_of(document: Document) -> VerifyKey:
    """Who must have signed it: the node for its record, the authority for all else."""
    return VerifyKey(document.node if isinstance(document, NodeRecord) else document.network)
