"""One uplink of this host: an interface by which it gets to the Internet, whether the routes prefer it or not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from warren.model.tunnel import IPAddress, TransportAddress, Way
from warren.paths.values import Base


@dataclass(frozen=True, slots=True)
class Uplink:
    """``sources`` are its addresses that packets may leave from, at most one of each family."""

    interface: int
    """Its index."""
    sources: tuple[IPAddress, ...]

    def reaches(self, ip: IPAddress) -> bool:
        return any(source.version == ip.version for source in self.sources)

    def way_to(self, server: TransportAddress) -> Way:
        """By this uplink and no other. Without a source of that family packets find no route, and are lost."""
        source = next((one for one in self.sources if one.version == server.ip.version), None)
        return Way(source=source, interface=self.interface)


def uplinks_of(bases: Iterable[Base]) -> tuple[Uplink, ...]:
    """Those that ``bases`` of this host belong to, in their order; of each family the first address counts."""
    found: dict[int, dict[int, IPAddress]] = {}
    for base in bases:
        if base.kind == "host" and base.interface and base.address is not None:
            found.setdefault(base.interface, {}).setdefault(base.address.version, base.address)
    return tuple(Uplink(interface, tuple(sources.values())) for interface, sources in found.items())
