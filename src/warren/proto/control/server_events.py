"""What a :class:`~warren.proto.control.server.ServerSession` tells its owner, who asks the service.

Nothing in them but :attr:`EnrolWanted.secret` is secret, and no ``repr`` shows that.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from warren.model.envelope import Envelope
from warren.proto.control.messages import Report


@dataclass(frozen=True, slots=True)
class AuthenticateWanted:
    """``node`` has proved its key and says that it is a member: ask ``Service.admit``; then ``accept`` or
    ``refuse``.
    """

    network: bytes
    node: bytes
    since: int
    version: str


@dataclass(frozen=True, slots=True)
class EnrolWanted:
    """``node`` has proved its key and wants to become a member: ask ``Service.enrol``; then ``accept`` or
    ``refuse``.
    """

    network: bytes
    node: bytes
    secret: bytes = field(repr=False)
    name: str
    version: str


@dataclass(frozen=True, slots=True)
class PublishWanted:
    """A record with the node's name on it; its signature is not verified yet. Answer with ``published``."""

    record: Envelope


@dataclass(frozen=True, slots=True)
class Reported:
    """How the node is."""

    report: Report


@dataclass(frozen=True, slots=True)
class SignalWanted:
    """Bytes for the member ``to``. Answer ``undeliverable`` when it is not connected anywhere."""

    to: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class LeaveWanted:
    """The node gives its membership up: tell the service, then ``end`` (or ``refuse``, when that failed)."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over: send the last transmits and close the connection. Always the last event."""

    why: str


Event = AuthenticateWanted | EnrolWanted | PublishWanted | Reported | SignalWanted | LeaveWanted | Ended
