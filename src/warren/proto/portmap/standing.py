"""How a gateway stands with us: what happened there, and what is under way in its two lanes."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from warren.proto.portmap.exchange import Exchange, Script, Transmit
from warren.proto.portmap.natpmp_client import NatPmpClient
from warren.proto.portmap.pcp_client import PcpClient
from warren.proto.portmap.upnp_client import UpnpClient
from warren.proto.portmap.values import Found, Gateway, Lease, ProtocolName

NEVER_RESTS = float("-inf")

Client = PcpClient | NatPmpClient | UpnpClient


@dataclass(frozen=True, slots=True)
class Gained:
    """There is a way in, or it lies elsewhere now."""

    gateway: Gateway
    lease: Lease


@dataclass(frozen=True, slots=True)
class Lost:
    """There was one; ``why`` completes "the gateway …"."""

    gateway: Gateway
    lease: Lease
    why: str


@dataclass(frozen=True, slots=True)
class Declined:
    """The gateway speaks the protocol and gives nothing; ``why`` completes "the gateway …"."""

    gateway: Gateway
    protocol: ProtocolName
    why: str


Event = Gained | Lost | Declined | Found


class Task(enum.Enum):
    """What a lane is doing."""

    PROBE = enum.auto()
    MAP = enum.auto()
    RENEW = enum.auto()
    WATCH = enum.auto()
    RELEASE = enum.auto()


class Standing:
    """How one protocol stands with the gateway."""

    __slots__ = ("client", "rest_until", "spoken", "why")

    def __init__(self, client: Client) -> None:
        self.client = client
        self.spoken: bool | None = None
        """None: not known; it is to be probed."""
        self.rest_until = NEVER_RESTS
        """Until then it is left alone."""
        self.why = ""
        """Why it gave nothing."""


class Lane:
    """The requests to one of a gateway's ports, of which one is outstanding at a time."""

    __slots__ = ("exchange", "leftover", "number", "standing", "standings", "task")

    def __init__(self, number: int, clients: list[Client]) -> None:
        self.number = number
        self.standings = [Standing(client) for client in clients]
        self.exchange: Exchange[Any] | None = None
        self.task = Task.PROBE
        self.standing = self.standings[0]
        self.leftover: tuple[Standing, Lease] | None = None
        """What an abandoned request may have made."""

    @property
    def is_idle(self) -> bool:
        """Nothing is under way, nor to be cleared away."""
        return self.exchange is None and self.leftover is None

    def run(self, task: Task, standing: Standing, gateway: Gateway, script: Script[Any], now: float) -> list[Transmit]:
        """Begin an exchange; returns what is to be sent for it."""
        self.task, self.standing = task, standing
        self.exchange = Exchange(self.number, gateway, script, now)
        return self.exchange.take_transmits()

    def abandon(self) -> list[Transmit]:
        """End what is under way; what a first request may just have been given is left behind, to be released."""
        if self.exchange is None:
            return []
        self.exchange.abandon()
        last = self.exchange.take_transmits()
        self.exchange = None
        self.leave_behind(keep=self.task is not Task.MAP)
        return last

    def leave_behind(self, *, keep: bool) -> None:
        """What was asked for and then not believed, or not waited for, may be there all the same, unless ``keep``."""
        attempt, self.standing.client.attempt = self.standing.client.attempt, None
        if attempt is not None and not keep:
            self.leftover = self.standing, attempt
