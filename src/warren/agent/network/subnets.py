"""Subnets behind a node without root: inside the nest, what is meant for them is handed to the stream process."""

from __future__ import annotations

import zlib
from collections.abc import Collection
from typing import Final

from warren.identity.signing import VerifyKey
from warren.linux.netlink import Netlink
from warren.linux.netlink_values import Route, Rule
from warren.linux.nft import Command, Nft
from warren.model.tunnel import IPNetwork

_PORTS: Final = range(20_000, 32_768)
"""Of loopback inside the nest; the kernel gives none of them to programs there."""


def transparent_port(network: VerifyKey) -> int:
    """Where the stream process listens for what is meant for subnets of ``network``; the same after a restart."""
    return _PORTS[zlib.crc32(network.raw) % len(_PORTS)]


class Subnets:
    """Of one network. Single owner; both doors are those of the nest."""

    def __init__(self, netlink: Netlink, nft: Nft, port: int) -> None:
        self._netlink = netlink
        self._nft = nft
        self._port = port
        self._document: list[Command] | None = []
        """None: there is none. At the beginning an agent before this one may have left one."""
        self._routes: tuple[Route, ...] = ()

    async def keep(self, interface: str, prefixes: Collection[IPNetwork]) -> None:
        """From now on these prefixes, and no others, are handed over. Raises OperationFailed."""
        from warren.l4.transparent import transparent_rules

        if not prefixes and self._document is None:
            return
        wanted = transparent_rules(interface, prefixes, self._port)
        present = {*await self._netlink.routes()}
        for route in set(self._routes) - set(wanted.routes):
            await self._netlink.remove_route(route)
        for route in wanted.routes:
            if route not in present:
                await self._netlink.add_route(route)
        await self._keep_rules(wanted.rules)
        if wanted.document != self._document:
            self._nft.run(wanted.document if prefixes else wanted.removal)
        self._document = wanted.document if prefixes else None
        self._routes = wanted.routes

    async def _keep_rules(self, wanted: Collection[Rule]) -> None:
        """They are the same for all networks, so none is taken away."""
        present = {*await self._netlink.rules()}
        for rule in wanted:
            if rule not in present:
                await self._netlink.add_rule(rule)
