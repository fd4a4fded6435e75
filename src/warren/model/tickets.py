"""What a person pastes: tickets, by which a machine joins, and access strings, by which an administrator is let in.

::

    warren-ticket:  base64url(envelope of a Ticket)                        no padding
    warren-access:  base64url(msgpack {urls, key, secret, check})          no padding

Both hold a secret and the key of the coordinator, so that it needs no certificate anybody else vouches for. A ticket is
signed by the network's authority. An access string is the coordinator's own, shown on its terminal: it has four bytes
of SHA-256 against slips of the hand only.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Final, cast

import msgspec
from msgspec import Meta

from warren.errors import MalformedPacket, UsageError
from warren.identity.signing import VerifyKey
from warren.model.documents import Ticket
from warren.model.envelope import is_signed_by, pack_envelope, unpack_envelope_untrusted
from warren.model.parts import Key, Url
from warren.model.verified import Verified, verify

TICKET_SCHEME: Final = "warren-ticket:"
ACCESS_SCHEME: Final = "warren-access:"
TEXT_CHARACTERS_MAX: Final = 8192
"""Four coordinators with URLs of 256 characters take some 2,000."""

_CHECK_DOMAIN: Final = b"warren access 1\0"
_CHECK_BYTES: Final = 4


class _Damaged(Exception):
    """The text began well, but is not what was once written."""


# Tickets


def ticket_text(ticket: Verified[Ticket]) -> str:
    """One line to paste. It is a secret."""
    return TICKET_SCHEME + _encode(pack_envelope(ticket.envelope))


def read_ticket(text: str, now_s: float) -> Verified[Ticket]:
    """The ticket in ``text``, however it was wrapped; ``now_s`` is this host's wall clock (s since 1970).

    Raises UsageError, which says whether it is no ticket at all, was damaged, was not signed by its network, or has
    expired since when.
    """
    try:
        packed = _decode(text, TICKET_SCHEME, "a ticket")
        envelope = unpack_envelope_untrusted(packed)
        if pack_envelope(envelope) != packed:
            raise _Damaged
    except (_Damaged, MalformedPacket):
        raise UsageError(
            "the ticket was cut off or damaged on its way; copy all of it, from warren-ticket: to its end"
        ) from None
    network = VerifyKey(envelope.signer)
    if not is_signed_by(envelope, network):
        raise UsageError(
            "the signature of the ticket is wrong: a character was changed, or it is a forgery; copy the ticket again "
            "from where it was made"
        )
    if envelope.kind != Ticket.KIND:
        raise UsageError(f"this is a signed {envelope.kind} document, not a ticket; paste what `invite` printed")
    try:
        verified = cast("Verified[Ticket]", verify(envelope, network))
    except MalformedPacket as error:
        raise UsageError(f"the ticket cannot be used ({error}); ask for a new one, or update Warren here") from None
    ticket = verified.document
    if ticket.not_after <= now_s:
        raise UsageError(
            f"the ticket for {ticket.name} expired at {_moment(ticket.not_after)}, and by the clock of this machine it "
            f"is {_moment(now_s)}; ask for a new ticket, or set the clock right"
        )
    return verified


# Access strings


@dataclass(frozen=True)
class Access:
    """Where a coordinator answers, by which key it is known, and the bearer token for its REST API."""

    urls: tuple[str, ...]
    key: VerifyKey
    secret: str = field(repr=False)


class _Access(msgspec.Struct, frozen=True, kw_only=True):
    urls: Annotated[tuple[Url, ...], Meta(min_length=1, max_length=16)]
    key: Key
    secret: Annotated[str, Meta(pattern=r"^[!-~]{16,256}$(?!\n)")]
    check: Annotated[bytes, Meta(min_length=_CHECK_BYTES, max_length=_CHECK_BYTES)]

    def __post_init__(self) -> None:
        if not hmac.compare_digest(self.check, _check(self.urls, self.key, self.secret)):
            raise ValueError("the check does not match")


_access_decoder: Final = msgspec.msgpack.Decoder(_Access)


def access_text(access: Access) -> str:
    """One line to paste. It is a secret. Raises ValueError for what :func:`read_access` would refuse."""
    value = _Access(
        urls=access.urls,
        key=access.key.raw,
        secret=access.secret,
        check=_check(access.urls, access.key.raw, access.secret),
    )
    packed = msgspec.msgpack.encode(value)
    try:
        _access_decoder.decode(packed)
    except msgspec.ValidationError as error:
        raise ValueError(f"no access string can be made: {error}") from None
    return ACCESS_SCHEME + _encode(packed)


def read_access(text: str) -> Access:
    """The access in ``text``, however it was wrapped. Raises UsageError: no access string at all, or damaged."""
    try:
        packed = _decode(text, ACCESS_SCHEME, "an access string")
        value = _access_decoder.decode(packed)
    except (_Damaged, msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise UsageError(
            "the access string was cut off or damaged on its way; copy all of it, from warren-access: to its end"
        ) from None
    return Access(value.urls, VerifyKey(value.key), value.secret)


def _check(urls: tuple[str, ...], key: bytes, secret: str) -> bytes:
    covered = msgspec.msgpack.encode((urls, key, secret))
    return hashlib.sha256(_CHECK_DOMAIN + covered).digest()[:_CHECK_BYTES]


# Text


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode(text: str, scheme: str, what: str) -> bytes:
    """The bytes behind ``scheme``. Raises UsageError when that is not what the text is, and _Damaged."""
    joined = "".join(text.split())  # terminals and mail programs wrap long lines
    if not joined.lower().startswith(scheme):
        for other, name in ((TICKET_SCHEME, "a ticket"), (ACCESS_SCHEME, "an access string")):
            if joined.lower().startswith(other):
                raise UsageError(f"this is {name}, not {what}; {what} begins with {scheme}")
        raise UsageError(f"this is not {what}; {what} begins with {scheme}")
    body = joined[len(scheme) :]
    if len(body) > TEXT_CHARACTERS_MAX or not body.isascii():
        raise _Damaged
    try:
        data = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise _Damaged from None
    if _encode(data) != body:
        raise _Damaged
    return data


def _moment(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return f"second {seconds:.0f} since 1970"
