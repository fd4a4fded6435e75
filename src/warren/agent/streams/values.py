"""What streams a node is to carry, as values between the pure parts that work it out and the driver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from warren.l4.config import Backend, Entry

Kind = Literal["service", "connector", "gateway", "forward", "socks", "subnets"]


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that was asked for, by a network or by this node's operator: a task, and a line of status."""

    id: str
    """Of its entry, where it has one, and unique."""
    task: str
    """How it is called among the tasks of its network."""
    kind: Kind
    networks: tuple[str, ...]
    """Labels of the networks whose task it is."""
    target: str
    """Where it goes, as people wrote it."""
    backends: tuple[str, ...] = ()
    """Who it goes to, the best first, by name."""
    entry: Entry | None = None
    part_of: str = ""
    """The id of the shared entry that does its work; empty: it has its own, or none."""
    problem: str = ""
    """Why it does not work, a sentence with what to do; empty: as far as is known here it does."""
    pending: bool = False
    """It waits for something that is being found out."""
    site: str = ""
    """The web site that Caddy has for it."""
    origin: Literal["network", "config", "kept", "held"] = "network"


@dataclass(frozen=True, slots=True)
class Backends:
    """Where streams may go, and if nowhere, why."""

    usable: tuple[Backend, ...]
    refusal: str = ""
    """Why those that there are may not be used, a sentence."""
    nobody: str = ""
    """Why there are none, a sentence."""
    unresolved: bool = False
    """There are none since nobody has that name or address."""

    @property
    def problem(self) -> str:
        return self.refusal or self.nobody

    @property
    def refused_as(self) -> str:
        """How streams are counted that are refused for :attr:`problem`."""
        if self.refusal:
            return "policy"
        return "unresolved" if self.unresolved else "no-backend"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(backend.name for backend in self.usable))
