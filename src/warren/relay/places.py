"""Which addresses of this host a relay listens at, relays from, and is seen at; and so which peers nobody may have."""

from __future__ import annotations

import socket

from warren.errors import OperationFailed
from warren.model.tunnel import IPAddress
from warren.proto.turn.filter import PeerFilter
from warren.relay.config import RelayConfig
from warren.relay.own_addresses import own_addresses, usual_address


class Places:
    """Raises OperationFailed when there is no address to relay from, or one that is named is not this host's."""

    def __init__(self, config: RelayConfig) -> None:
        self._config = config
        self.listen: list[tuple[int, str]] = [(one.version, str(one)) for one in config.listen] or [(4, ""), (6, "")]
        """Family and address of each port; an empty address is all of them."""
        self.relay = _relay_hosts(config)
        """Where relayed sockets are bound, by family."""
        outside = self.relay | {one.version: one for one in config.external_addresses}
        if not outside:
            raise OperationFailed("this host has no address that could be relayed to: name one with relay_addresses")
        self.outside = tuple(outside.values())
        """Of relayed addresses, as peers see them."""

    @property
    def hosts(self) -> set[str]:
        """Of relayed addresses, from within and from outside."""
        return {str(one) for one in (*self.outside, *self.relay.values())}

    def peer_filter(self) -> PeerFilter:
        """By the addresses that this host has now."""
        config, outside = self._config, frozenset(self.outside)
        return PeerFilter(
            allowed=config.allow_peers,
            own=own_addresses() | outside,
            relayed=outside,
            denied=config.deny_peers,
            nat64_prefixes=config.nat64_prefixes,
        )


def _relay_hosts(config: RelayConfig) -> dict[int, IPAddress]:
    hosts: dict[int, IPAddress] = {}
    for family in (4, 6):
        named = [one for one in config.relay_addresses if one.version == family]
        listened = [one for one in config.listen if one.version == family and not one.is_unspecified]
        chosen = next(iter([*named, *listened]), None) or usual_address(family)
        if chosen is not None:
            hosts[family] = chosen
        for one in named:
            _check(one)
    return hosts


def _check(address: IPAddress) -> None:
    """Now, and not when the first client asks for an allocation."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.bind((str(address), 0))
    except OSError as error:
        raise OperationFailed(
            f"relay_addresses: {address} cannot be relayed from ({error.strerror}): name an address of this host here, "
            "and what it looks like from outside in external_addresses"
        ) from None
