"""What replicas tell each other through the database: one short line of text, which says where to look.

The database is trusted (it holds all keys); a line that does not parse is from another version of Warren, and is
passed over.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

import msgspec

from warren.identity.signing import VerifyKey


@dataclass(frozen=True, slots=True)
class RevisionReached:
    """The map of the network is at this revision."""

    network: bytes
    revision: int


class SignalSent(msgspec.Struct, frozen=True, array_like=True, tag="s"):
    """Bytes from one member to another, for the replica where that is connected (5.6 KB of text at most)."""

    network: bytes
    sender: bytes
    to: bytes
    data: bytes


class SessionEnded(msgspec.Struct, frozen=True, array_like=True, tag="e"):
    """The node has connected anew somewhere; this older session of it ends."""

    network: bytes
    node: bytes
    session: str


_decoder: msgspec.msgpack.Decoder[SignalSent | SessionEnded] = msgspec.msgpack.Decoder(SignalSent | SessionEnded)


def revision_notice(network: bytes, revision: int) -> str:
    return f"{VerifyKey(network)} {revision}"


def notice_of(value: SignalSent | SessionEnded) -> str:
    return "+" + base64.b64encode(msgspec.msgpack.encode(value)).decode("ascii")


def read_notice(text: str) -> RevisionReached | SignalSent | SessionEnded | None:
    """None for what cannot be read."""
    try:
        if text.startswith("+"):
            return _decoder.decode(base64.b64decode(text[1:], validate=True))
        network, _, revision = text.partition(" ")
        return RevisionReached(VerifyKey.from_text(network).raw, int(revision))
    except (ValueError, binascii.Error, msgspec.DecodeError):
        return None
