"""Keeps the host's configuration as a config wants it: observes, plans, applies, and keeps the journal of what was
made.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from warren import log
from warren.errors import OperationFailed
from warren.linux.netlink_values import Address, Route
from warren.model.tunnel import IPAddress
from warren.tunnel.config import TunnelConfig
from warren.tunnel.desired import (
    Choices,
    DefaultRoute,
    choose_default_route,
    default_route_of,
    desired,
    tunnel_mtu,
)
from warren.tunnel.fields import IPInterface
from warren.tunnel.host import Doors, Host
from warren.tunnel.items import Item, Mtu, Up
from warren.tunnel.journal import Journal
from warren.tunnel.plan import Add, Change, Remove, plan
from warren.tunnel.tables import number_of

_ROUNDS_MAX = 4
"""Removing an address takes others and routes along in the kernel; each round puts back what went by itself."""

_log = log.get("tunnel")


class Network:
    """The network configuration of one tunnel. Errors: OperationFailed; what was done so far is in the journal."""

    def __init__(self, interface: str, doors: Doors, journal: Journal) -> None:
        self._interface = interface
        self._doors = doors
        self._host = Host(interface, doors)
        self.journal = journal

    async def choose_default_route(self, config: TunnelConfig) -> DefaultRoute | None:
        """The mark, table and rules for a default route through the tunnel: those in force, or free ones."""
        netlink = self._doors.netlink
        return choose_default_route(
            config, await netlink.routes(), await netlink.rules(), default_route_of(self.journal.made)
        )

    async def derive_mtu(self, destinations: Collection[IPAddress], mark: int) -> int:
        """The MTU (bytes) for a tunnel to peers at these addresses; ``mark`` is that of its encrypted packets."""
        netlink = self._doors.netlink
        paths = [await netlink.path_to(destination, mark) for destination in destinations]
        found = [path.mtu for path in paths if path is not None and path.interface != self._interface]
        return tunnel_mtu(found, await self._default_mtu())

    async def _default_mtu(self) -> int | None:
        mtus = {link.name: link.mtu for link in await self._doors.netlink.links()}
        defaults = [
            route
            for route in await self._doors.netlink.routes()
            if route.network.prefixlen == 0 and route.interface not in ("lo", self._interface)
        ]
        return max((route.mtu or mtus[route.interface] for route in defaults), default=None)

    async def mtu(self) -> int | None:
        """The interface's MTU in bytes; None when it is gone."""
        return next((link.mtu for link in await self._doors.netlink.links() if link.name == self._interface), None)

    async def addresses(self) -> list[IPInterface]:
        """The interface's addresses, whoever set them."""
        addresses = await self._doors.netlink.addresses()
        return [address.value for address in addresses if address.interface == self._interface]

    async def bring(self, config: TunnelConfig, mtu: int, default_route: DefaultRoute | None) -> int:
        """Make the host as ``config`` wants it; returns the number of changes."""
        table = number_of(config.table)
        return await self._reach(desired(config, self._interface, Choices(mtu, table, default_route)))

    async def _reach(self, wanted: Sequence[Item]) -> int:
        count = 0
        for _ in range(_ROUNDS_MAX):
            changes = plan(wanted, await self._host.observe(self.journal.made), self.journal.made)
            if not changes:
                break
            count += len(changes)
            await self._carry_out(changes)
        return count

    async def _carry_out(self, changes: Sequence[Change]) -> None:
        adding = [
            self._host.with_previous(change.item)
            for change in changes
            if isinstance(change, Add) and not isinstance(change.item, (Mtu, Up))  # those end with the interface
        ]
        self.journal.made = self.journal.made.union(adding)  # keeps what an earlier one remembers of before
        self.journal.write()
        for change in changes:
            await self._host.apply(change)
            _log.debug("%s", change)
        removed = [change.item for change in changes if isinstance(change, Remove)]
        if removed:
            self.journal.made = self.journal.made.difference(removed)
            self.journal.write()

    async def clear(self) -> list[str]:
        """Remove all that was made, but what goes with the interface; returns what failed, one sentence each.

        A failure does not keep the rest from being removed.
        """
        failures = []
        made = self.journal.made
        try:
            changes = plan((), await self._host.observe(made), made)
        except OperationFailed as error:
            return [str(error)]
        for change in changes:
            if isinstance(change.item, (Address, Route)):
                continue
            try:
                await self._host.apply(change)
                _log.debug("%s", change)
            except OperationFailed as error:
                failures.append(str(error))
        return failures
