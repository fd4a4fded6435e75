"""What a :class:`~warren.proto.control.client.ClientSession` tells its owner."""

from __future__ import annotations

from dataclasses import dataclass

from warren.proto.control import messages


@dataclass(frozen=True, slots=True)
class Opened:
    """The coordinator took the node as a member. ``time_s`` is its wall clock now, ``observed`` the source address
    that it sees.
    """

    time_s: float
    observed: str
    report_every_s: float


@dataclass(frozen=True, slots=True)
class UpdateReceived:
    """A change of the map; its documents are not verified yet."""

    update: messages.Update


@dataclass(frozen=True, slots=True)
class Published:
    """The coordinator has stored the record of that version."""

    version: int


@dataclass(frozen=True, slots=True)
class SignalReceived:
    """Bytes of the member ``node``, as far as the coordinator may be believed."""

    node: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class SignalUndeliverable:
    """The member ``to`` is not connected."""

    to: bytes


@dataclass(frozen=True, slots=True)
class RelayAccessReceived:
    """What is needed to use the relays of the NetworkSpec; it replaces what came before."""

    credentials: tuple[messages.RelayCredential, ...]


@dataclass(frozen=True, slots=True)
class RefusedByCoordinator:
    """The coordinator said no, and why. Ended follows."""

    refused: messages.Refused


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over: close the connection. Always the last event."""

    why: str


Event = (
    Opened
    | UpdateReceived
    | Published
    | SignalReceived
    | SignalUndeliverable
    | RelayAccessReceived
    | RefusedByCoordinator
    | Ended
)
