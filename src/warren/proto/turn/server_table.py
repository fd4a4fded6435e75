"""Who holds what at a TURN server: allocations with their relayed addresses, from the first to their end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from warren.proto.turn.quota import Quotas
from warren.proto.turn.server_allocate import Ports
from warren.proto.turn.server_peers import forget_channel
from warren.proto.turn.server_values import (
    UDP,
    Allocation,
    Client,
    RelayedPort,
    Settings,
    SocketAddress,
    Sockets,
)
from warren.proto.wireguard.timers import Deadline

SILENT_S: Final = 60.0
"""A user with all its allocations taken loses the one that was silent so long: its client has moved on. Clients that
live keep the mapping of their NAT open more often than this.
"""


class AllocationTable:
    """``by_client`` and ``relayed`` are for reading; ``closed`` hears of each end, and why."""

    def __init__(
        self,
        settings: Settings,
        sockets: Sockets,
        random: Callable[[int], bytes],
        closed: Callable[[Allocation, str], None],
    ) -> None:
        self.by_client: dict[Client, Allocation] = {}
        self.relayed: dict[SocketAddress, RelayedPort] = {}
        self.ports = Ports(settings, sockets, random)
        self._quotas = Quotas(settings.allocations_max, settings.allocations_per_user, settings.allocations_per_prefix)
        self._closed = closed
        self._wake_at: float | None = None

    def why_not(self, identity: str, host: str, now: float) -> int:
        """0, or the error number why this user at ``host`` gets no other allocation. Room is made for a user who comes
        from a new place: the allocation that was silent the longest is dropped.
        """
        if self._quotas.user_is_full(identity):
            mine = [one for one in self.by_client.values() if one.identity == identity]
            oldest = min(mine, key=lambda one: one.heard_at, default=None)
            if oldest is not None and now - oldest.heard_at >= SILENT_S and oldest.client.transport == UDP:
                self.close(oldest, "its user needs another and has too many")
        return self._quotas.why_not(identity, host)

    def add(self, allocation: Allocation, ports: Sequence[RelayedPort], expires_at: float) -> None:
        """``ports`` are granted, and :meth:`why_not` was 0."""
        self._quotas.take(allocation.identity, allocation.client.remote[0])
        self.by_client[allocation.client] = allocation
        for port in ports:
            allocation.relayed[port.family] = port
            self.relayed[port.address] = port
        self.prolong(allocation, expires_at)

    def prolong(self, allocation: Allocation, expires_at: float) -> None:
        allocation.expires_at = expires_at
        if self._wake_at is None or expires_at < self._wake_at:
            self._wake_at = expires_at

    def close(self, allocation: Allocation, why: str) -> None:
        for family in list(allocation.relayed):
            self.close_family(allocation, family)
        del self.by_client[allocation.client]
        self._quotas.give_back(allocation.identity, allocation.client.remote[0])
        self._closed(allocation, why)

    def close_family(self, allocation: Allocation, family: int) -> None:
        relayed = allocation.relayed.pop(family)
        del self.relayed[relayed.address]
        for channel in [one for one in allocation.channels.values() if one.relayed is relayed]:
            forget_channel(allocation, channel)
        self.ports.close(relayed)

    def close_users(self, identities: Collection[str], why: str) -> None:
        for allocation in [one for one in self.by_client.values() if one.identity in identities]:
            self.close(allocation, why)

    def close_all(self, why: str) -> None:
        """Reserved ports, too."""
        for allocation in list(self.by_client.values()):
            self.close(allocation, why)
        self.ports.expire(float("inf"))

    def handle_timeout(self, now: float) -> None:
        for allocation in [one for one in self.by_client.values() if one.expires_at <= now]:
            self.close(allocation, "it was not refreshed")
        self.ports.expire(now)
        self._wake_at = min((one.expires_at for one in self.by_client.values()), default=None)

    def next_deadline(self) -> Deadline | None:
        """May be earlier than needed: refreshed allocations move it only when it has passed."""
        reserved = self.ports.next_expiry()
        if reserved is not None and (self._wake_at is None or reserved < self._wake_at):
            return Deadline(reserved, "a reserved port was not claimed")
        return None if self._wake_at is None else Deadline(self._wake_at, "an allocation was not refreshed")
