"""What reaching others needs of the world, as Protocols and values; tests have their own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from warren.identity.keys import PublicKey
from warren.model.tunnel import IPAddress, TransportAddress
from warren.paths.values import RemoteCandidate
from warren.reach.alarm import MakeAlarm
from warren.reach.relay_values import RelayPlace, Transport


class Bridge(Protocol):
    """A stream to a relay whose near end takes datagrams (:class:`warren.reach.bridge.StreamBridge`)."""

    @property
    def address(self) -> TransportAddress:
        """Where the data plane sends to."""

    @property
    def closed(self) -> Awaitable[str]:
        """Done when the stream has ended: why."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Doors:
    """``clock`` in seconds, never going back; ``random`` gives so many bytes."""

    clock: Callable[[], float]
    alarm: MakeAlarm
    random: Callable[[int], bytes]
    resolve: Callable[[Sequence[str]], Awaitable[Sequence[IPAddress]]]
    """The addresses of hosts, names resolved. Raises OperationFailed."""
    open_bridge: Callable[[RelayPlace, Transport, Callable[[], int]], Awaitable[Bridge]]
    """From the relay, the transport, and the data plane's port. Raises OperationFailed, Unreachable."""
    tcp_mapped: Callable[[Sequence[RelayPlace], int], Awaitable[Sequence[TransportAddress]]]
    """How relays see TCP from that port of this host."""
    punch_tcp: Callable[[Sequence[TransportAddress], bytes, bool, int], Awaitable[Bridge | None]]
    """To a peer's addresses, with the check key, controlling or not, from that TCP port and for that UDP port."""


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """Another member, as far as reaching it goes."""

    node: bytes
    keys: tuple[PublicKey, ...]
    """WireGuard keys by which the data plane may know it, the present one first."""
    check_keys: tuple[bytes, ...] = field(repr=False)
    candidates: tuple[RemoteCandidate, ...] = ()
    nat: str = ""


class Owner(Protocol):
    """Who is told what happens. None of these may call back."""

    def course_changed(self, node: bytes) -> None:
        """Packets to that peer are to travel another way."""

    def reach_changed(self) -> None:
        """The candidates of this node, or how it stands with the relays, are others."""

    def send_signal(self, node: bytes, data: bytes) -> bool:
        """By the coordinator. False: none is connected."""

    def observed(self, address: TransportAddress, source: IPAddress) -> None:
        """A server sees the tunnel's port at ``address`` for packets that leave from ``source``."""

    def came_in_by(self, address: TransportAddress) -> None:
        """What was sent to ``address`` from outside has come in."""

    def learned(self, envelope: bytes) -> None:
        """A member sent a document, not verified yet."""
