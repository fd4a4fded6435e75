"""What the networks of one agent share: the world, the local config, and who has which interface and prefixes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv6Network
from pathlib import Path

from warren.agent.candidates import Surroundings
from warren.agent.config import AgentConfig
from warren.agent.network.desired import Claim
from warren.agent.world import World
from warren.identity.signing import VerifyKey
from warren.identity.store import KeyStore
from warren.model.tunnel import IPNetwork


@dataclass
class Shared:
    """Used by tasks of one event loop, one thing after the other."""

    world: World
    keys: KeyStore
    state: Path
    config: AgentConfig
    nat64: IPv6Network | None = None
    interfaces: dict[VerifyKey, str] = field(default_factory=dict)
    ports: dict[VerifyKey, int] = field(default_factory=dict)
    claims: dict[VerifyKey, tuple[str, tuple[IPNetwork, ...]]] = field(default_factory=dict)
    """Of each network its name and the prefixes it has on this host."""

    async def surroundings(self) -> Surroundings:
        """Raises OperationFailed."""
        netlink = self.world.netlink
        overlays = self.interfaces.values()
        return Surroundings.of(
            await netlink.links(), await netlink.addresses(), await netlink.routes(), tuple(overlays), self.nat64
        )

    def taken(self, network: VerifyKey, surroundings: Surroundings) -> list[Claim]:
        """What ``network`` may not use: the prefixes of the node's other networks and of the host's links."""
        others = [
            Claim(prefix, f"network {name}")
            for key, (name, prefixes) in self.claims.items()
            if key != network
            for prefix in prefixes
        ]
        return others + [Claim(prefix, "this host's own links") for prefix in surroundings.on_link()]

    def others(self, network: VerifyKey) -> tuple[object, ...]:
        """Changes when what other networks have on this host does."""
        return tuple(claim for key, claim in self.claims.items() if key != network)

    def overlays(self) -> tuple[IPNetwork, ...]:
        """All that is reached through a tunnel."""
        return tuple(dict.fromkeys(prefix for _, prefixes in self.claims.values() for prefix in prefixes))

    def other_interfaces(self, network: VerifyKey) -> set[str]:
        return {name for key, name in self.interfaces.items() if key != network}

    def claim(self, network: VerifyKey, name: str, prefixes: Iterable[IPNetwork]) -> None:
        self.claims[network] = (name, tuple(prefixes))

    def release(self, network: VerifyKey) -> None:
        self.interfaces.pop(network, None)
        self.ports.pop(network, None)
        self.claims.pop(network, None)
