"""Signed envelopes: what carries every document, whoever carries it (coordinator, cache on disk, another member).

``{kind, payload, signer, signature}`` in msgpack. The signature covers a domain separation string, the kind and the
payload bytes as they were carried: nothing is encoded anew to verify it, so unknown kinds and unknown fields survive
every hand they pass through.

Trust is a type: :func:`unpack_envelope_untrusted` gives an :class:`Envelope`, which says nothing yet; only
:func:`warren.model.verified.verify` makes a :class:`~warren.model.verified.Verified` of it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from warren.errors import MalformedPacket
from warren.identity.signing import KEY_BYTES, SIGNATURE_BYTES, SigningKey, VerifyKey

KIND_CHARACTERS_MAX: Final = 32
PAYLOAD_BYTES_MAX: Final = 1 << 20
"""A NetworkSpec with thousands of rules takes some 200 KB; every other document is below 4 KB."""
ENVELOPE_BYTES_MAX: Final = PAYLOAD_BYTES_MAX + 256

_DOMAIN: Final = b"warren document 1\0"


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A document as carried. Nothing in it may be believed before it is verified."""

    kind: str
    payload: bytes
    signer: bytes
    signature: bytes

    def __repr__(self) -> str:
        return f"Envelope(kind={self.kind!r}, {len(self.payload)} bytes, …)"


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Envelope)


def seal(kind: str, payload: bytes, key: SigningKey) -> Envelope:
    """Sign ``payload`` as a document of ``kind``."""
    signature = key.sign(signed_bytes(kind, payload))
    return Envelope(kind=kind, payload=payload, signer=key.verify_key.raw, signature=signature)


def is_signed_by(envelope: Envelope, signer: VerifyKey) -> bool:
    """Whether ``signer``, and nobody else, signed exactly this kind and payload (about 120 µs)."""
    return envelope.signer == signer.raw and signer.verifies(
        envelope.signature, signed_bytes(envelope.kind, envelope.payload)
    )


def signed_bytes(kind: str, payload: bytes) -> bytes:
    """What a signature covers. The kind holds no NUL (checked when unpacked), so no two pairs give the same bytes."""
    return b"%b%b\0%b" % (_DOMAIN, kind.encode("ascii"), payload)


def pack_envelope(envelope: Envelope) -> bytes:
    return _encoder.encode(envelope)


def unpack_envelope_untrusted(data: bytes | memoryview) -> Envelope:
    """Raises MalformedPacket, and nothing else, for whatever ``data`` is."""
    if len(data) > ENVELOPE_BYTES_MAX:
        raise MalformedPacket(f"a document of {len(data)} bytes; {ENVELOPE_BYTES_MAX} are the most")
    try:
        envelope = _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedPacket(f"not a document: {error}") from None
    check_envelope_untrusted(envelope)
    return envelope


def check_envelope_untrusted(envelope: Envelope) -> None:
    """The limits of an envelope that came inside another message. Raises MalformedPacket."""
    kind = envelope.kind
    if not (0 < len(kind) <= KIND_CHARACTERS_MAX and kind.isascii() and kind.isprintable()):
        raise MalformedPacket("a document with an unusable kind")
    if len(envelope.payload) > PAYLOAD_BYTES_MAX:
        raise MalformedPacket(f"a payload of {len(envelope.payload)} bytes; {PAYLOAD_BYTES_MAX} are the most")
    if len(envelope.signer) != KEY_BYTES or len(envelope.signature) != SIGNATURE_BYTES:
        raise MalformedPacket("a document whose key or signature has the wrong length")
