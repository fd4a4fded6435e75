"""What a node's link to the coordinators (:mod:`warren.api.node`) tells its owner."""

from __future__ import annotations

from dataclasses import dataclass

from warren.errors import problem_line
from warren.proto.control import messages
from warren.proto.control.client_events import (
    Published,
    RelayAccessReceived,
    SignalReceived,
    SignalUndeliverable,
    UpdateReceived,
)

__all__ = [
    "Connected",
    "Disconnected",
    "Event",
    "Published",
    "Refused",
    "RelayAccessReceived",
    "SignalReceived",
    "SignalUndeliverable",
    "UpdateReceived",
]


@dataclass(frozen=True, slots=True)
class Connected:
    """The coordinator at ``url`` took the node as a member. Parts of an Update before it will not be continued."""

    url: str
    time_s: float
    """The coordinator's wall clock."""
    offset_s: float
    """It minus this host's."""
    observed: str
    """The source address that the coordinator sees."""
    report_every_s: float


@dataclass(frozen=True, slots=True)
class Disconnected:
    """There is no connection: the last one was lost, or an attempt was in vain. ``why`` is a sentence for a person."""

    why: str
    retry_in_s: float | None
    """When the next attempt begins; None: never."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A coordinator said no. ``final``: trying again will not help until somebody changes something; the link then
    tries rarely, and when it was to enrol, ends.
    """

    refused: messages.Refused
    final: bool

    def __str__(self) -> str:
        return problem_line(self.refused.title, self.refused.detail, self.refused.remedy)


Event = (
    Connected
    | Disconnected
    | Refused
    | UpdateReceived
    | Published
    | SignalReceived
    | SignalUndeliverable
    | RelayAccessReceived
)
